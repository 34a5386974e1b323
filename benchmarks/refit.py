"""Ways to refit ResNet-56 with every inner width halved: test accuracy before fine-tuning.

    python benchmarks/refit.py --data=DIR

DIR holds resnet56_cifar10.keras (pixels 0 to 255 in, logits out) and
cifar10.npz. Calibration images come from the training set, without labels. The
test accuracies printed here decide nothing. Takes about half an hour on two
cores.
"""

from __future__ import annotations

import dataclasses
import pathlib
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from absl import app, flags
from common import record

import amc_tf
from amc_tf.pruning.importance.criteria import Importance, consumer_magnitude, strongest
from amc_tf.pruning.importance.elimination import elimination_order
from amc_tf.pruning.refit.dense import gather
from amc_tf.pruning.refit.in_order import gather_in_order

DATA = flags.DEFINE_string("data", None, "Folder of the network and the images.", required=True)
TEST_IMAGES = flags.DEFINE_integer("test_images", 10000, "Test images to measure on.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the calibration images and the positions sampled.")
ONLY = flags.DEFINE_multi_string("only", None, "A variant to run (repeatable); default all.")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to choose channels and refit.

    Attributes:
        how: class that gathers the statistics; None for no refit.
        images: number of calibration images.
        augmented: whether the images are distorted as in training.
        eliminated: whether channels are chosen by backward elimination, not by magnitude.
        options: options of `how`.
    """

    how: Callable | None = gather_in_order
    images: int = 2000
    augmented: bool = False
    eliminated: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


VARIANTS = {
    "no refit": Variant(how=None),
    "dense activations": Variant(how=gather),
    "in order": Variant(),
    "in order, own outputs": Variant(options={"residual": False}),
    "in order, no rectifier": Variant(options={"rounds": 1}),
    "2 rounds": Variant(options={"rounds": 2}),
    "8 rounds": Variant(options={"rounds": 8}),
    "ridge 1e-4": Variant(options={"ridges": [1e-4]}),
    "ridge 1e-3": Variant(options={"ridges": [1e-3]}),
    "ridge 1e-2": Variant(options={"ridges": [1e-2]}),
    "ridge 1e-1": Variant(options={"ridges": [1e-1]}),
    "5 positions": Variant(options={"rows": 10_000, "rows_per_feature": 0}),
    "20 positions": Variant(options={"rows": 40_000}),
    "500 images": Variant(images=500, options={"rows": 5_000, "rows_per_feature": 0}),
    "500 images, 40 positions": Variant(images=500),
    "5000 images": Variant(images=5000, options={"rows": 50_000}),
    "2000 augmented": Variant(augmented=True),
    "5000 augmented": Variant(images=5000, augmented=True, options={"rows": 50_000}),
    "eliminated, no refit": Variant(how=None, eliminated=True),
    "eliminated, dense activations": Variant(how=gather, eliminated=True),
    "eliminated, in order": Variant(eliminated=True),
    "eliminated, 5000 augmented": Variant(
        images=5000, augmented=True, eliminated=True, options={"rows": 50_000}
    ),
}


def halved(graph: amc_tf.ChannelGraph, importance: Importance) -> amc_tf.PruningPlan:
    """Keeps half of the channels inside the residual branches."""
    inner = {n: g.channels // 2 for n, g in graph.groups.items() if len(g.producers) == 1}
    return strongest(importance, inner)


def augmented(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distorts images as in training: shifts by up to four pixels, and mirror images."""
    size = images.shape[1]
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    shifts, mirrored = rng.integers(0, 9, (len(images), 2)), rng.random(len(images)) < 0.5
    shifted = [x[i : i + size, j : j + size] for x, (i, j) in zip(padded, shifts, strict=True)]
    return np.stack([x[:, ::-1] if m else x for x, m in zip(shifted, mirrored, strict=True)])


def main(argv):
    del argv
    folder = pathlib.Path(DATA.value)
    data = np.load(folder / "cifar10.npz")
    model = keras.models.load_model(folder / "resnet56_cifar10.keras", compile=False)
    graph = amc_tf.analyze(model)

    def accuracy(network: keras.Model) -> float:
        images, labels = (data[k][: TEST_IMAGES.value] for k in ("x_test", "y_test"))
        scores = network.predict(images.astype("float32"), batch_size=250, verbose=0)
        return float(np.mean(np.argmax(scores, axis=-1) == labels))

    def calibration(count: int, distorted: bool) -> np.ndarray:
        rng = np.random.default_rng(SEED.value)
        images = data["x_train"][rng.permutation(len(data["x_train"]))[:count]]
        return (augmented(images, rng) if distorted else images).astype("float32")

    def plan_of(variant: Variant) -> amc_tf.PruningPlan:
        if not variant.eliminated:
            return halved(graph, consumer_magnitude(graph))
        images = calibration(variant.images, variant.augmented)
        statistics = gather(graph, [images], seed=SEED.value)
        return halved(graph, elimination_order(statistics, consumer_magnitude(graph)))

    rows = [{"variant": "dense", "accuracy": accuracy(model)}]
    for name in ONLY.value or VARIANTS:
        variant = VARIANTS[name]
        plan = plan_of(variant)
        start = time.perf_counter()
        refitter = None
        if variant.how is not None:
            images = calibration(variant.images, variant.augmented)
            refitter = variant.how(graph, [images], seed=SEED.value, **variant.options)
        gathered = time.perf_counter()
        weights = {} if refitter is None else refitter.refit(plan)
        refitted = time.perf_counter()
        rows.append(
            {
                "variant": name,
                "accuracy": accuracy(amc_tf.rebuild(model, graph, plan, weights)),
                "gather_seconds": round(gathered - start, 1),
                "refit_seconds": round(refitted - gathered, 1),
                "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            }
        )
        print(rows[-1], flush=True)
    record.append(
        "refit",
        {
            "model": "resnet56_cifar10",
            "seed": SEED.value,
            "test_images": TEST_IMAGES.value,
            "macs_ratio": amc_tf.macs(graph, plan) / amc_tf.macs(graph),
            "variants": rows,
        },
    )


if __name__ == "__main__":
    app.run(main)
