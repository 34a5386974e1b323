"""Graph analysis of every family of keras.applications, and of kinds of network that it lacks.

    python benchmarks/graphs.py [--models=MobileNet,ResNet50,unet]

Each model has random weights (batch norms and biases too, or its outputs would hardly depend on
its inputs). It keeps a random half of every group, and is run on random images as rebuilt and as
masked. How far masking moves the dense outputs shows that the comparison means something. The time
of the analysis is the median of three.
"""

from __future__ import annotations

import statistics
import time

import keras
import numpy as np
from absl import app, flags
from common import networks, record

import amc_tf
from amc_tf.graph.costs import macs_cost
from amc_tf.pruning.verification import halved, noise

APPLICATIONS = [
    "VGG16",
    "ResNet50",
    "ResNet50V2",
    "InceptionV3",
    "InceptionResNetV2",
    "Xception",
    "DenseNet121",
    "NASNetMobile",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "ConvNeXtTiny",
]
MODELS = flags.DEFINE_list(
    "models", [*APPLICATIONS, *networks.NETWORKS], "Names in keras.applications or networks.py."
)


def build(name: str) -> keras.Model:
    keras.utils.clear_session()
    if name in networks.NETWORKS:
        return networks.NETWORKS[name]()
    # MobileNetV3 leaves its input size open unless it is given.
    shape = (224, 224, 3) if name.startswith("MobileNetV3") else None
    make = getattr(keras.applications, name)
    return make(input_shape=shape, weights=None, classifier_activation=None)


def randomise(model: keras.Model) -> None:
    rng = np.random.default_rng(0)
    for weight in model.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 0
        if fan_in:
            weight.assign(rng.normal(0, np.sqrt(1.5 / fan_in), weight.shape))
        elif weight.name in ("gamma", "moving_variance", "variance"):
            weight.assign(rng.uniform(0.7, 1.3, weight.shape))
        elif weight.dtype.startswith("float"):
            weight.assign(rng.normal(0, 0.2, weight.shape))


def moved(model: keras.Model, graph, plan) -> float:
    """Computes the largest change of an output by masking, relative to the output's spread."""
    x = noise(model)
    both = [keras.tree.flatten(m(x)) for m in (model, amc_tf.mask(model, graph, plan))]
    return max(
        float(np.max(np.abs(dense - masked)) / np.std(dense))
        for dense, masked in zip(*both, strict=True)
    )


def study(name: str) -> dict:
    keras.utils.set_random_seed(0)
    model = build(name)
    randomise(model)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        graph = amc_tf.analyze(model)
        seconds.append(time.perf_counter() - start)
    plan = halved(graph)
    start = time.perf_counter()
    rebuilt = amc_tf.rebuild(model, graph, plan)
    rebuild_seconds = time.perf_counter() - start
    recounted = amc_tf.analyze(rebuilt)
    assert amc_tf.macs(graph, plan) == amc_tf.macs(recounted)
    assert amc_tf.params(graph, plan) == rebuilt.count_params()
    cost = macs_cost(graph)
    terms = cost.terms(cost.dense)
    prunable = terms[cost.touched().any(axis=1)].sum() / cost(cost.dense)
    return {
        "model": name,
        "operations": len(graph.network.calls),
        "groups": len(graph.groups),
        "macs": amc_tf.macs(graph),
        "prunable_macs": float(prunable),
        "halved_macs": amc_tf.macs(graph, plan),
        "params": amc_tf.params(graph),
        "refused": sorted({refused.class_name for refused in graph.refused}),
        "moved": moved(model, graph, plan),
        "max_relative_difference": amc_tf.verify(model, graph, plan),
        "analysis_seconds": round(statistics.median(seconds), 3),
        "rebuild_seconds": round(rebuild_seconds, 2),
    }


def main(argv):
    del argv
    record.append("graphs", {"seed": 0, "models": [study(name) for name in MODELS.value]})


if __name__ == "__main__":
    app.run(main)
