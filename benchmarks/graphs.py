"""Graph analysis of keras.applications, of kinds of network that it lacks, and of KerasHub.

    python benchmarks/graphs.py [--only=applications,kinds] [--models=MobileNet,ResNet50,unet]
    python benchmarks/graphs.py --only=kerashub

KerasHub's backbones are written as layers that are made of layers; common/hub_networks.py says
what they need. `--tflite` also converts each model, whole, to float32 and int8.

Each model has random weights (batch norms and biases too, or its outputs would hardly depend on
its inputs). It keeps a random half of every group, and is run on random images as rebuilt and as
masked. How far masking moves the dense outputs shows that the comparison means something. Then
streams under layer normalisation are pruned, too; the masked network takes its statistics of the
kept channels. The time of the analysis is the median of three.
"""

from __future__ import annotations

import statistics
import time

import keras
import numpy as np
from absl import app, flags
from common import hub_networks, networks, record

import amc_tf
import tflite_tools
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
GROUPS = {
    "applications": APPLICATIONS,
    "kinds": list(networks.NETWORKS),
    "kerashub": list(hub_networks.NETWORKS),
}
ONLY = flags.DEFINE_list("only", ["applications", "kinds"], f"Groups: {', '.join(GROUPS)}.")
MODELS = flags.DEFINE_list("models", None, "Names of models, instead of groups.")
TFLITE = flags.DEFINE_bool("tflite", False, "Whether to convert each model, too.")


def build(name: str) -> keras.Model:
    keras.utils.clear_session()
    for made in (networks.NETWORKS, hub_networks.NETWORKS):
        if name in made:
            return made[name]()
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
    open_size = None in model.inputs[0].shape[1:]
    size = hub_networks.SHAPE if open_size else ()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        graph = amc_tf.analyze(model, input_shape=size)
        seconds.append(time.perf_counter() - start)
    plan = halved(graph)
    start = time.perf_counter()
    rebuilt = amc_tf.rebuild(model, graph, plan)
    rebuild_seconds = time.perf_counter() - start
    recounted = amc_tf.analyze(rebuilt, input_shape=size)
    assert amc_tf.macs(graph, plan) == amc_tf.macs(recounted)
    assert amc_tf.params(graph, plan) == rebuilt.count_params()
    cost = macs_cost(graph)
    wider = amc_tf.analyze(model, input_shape=size, allow_approximate=True)
    wider_cost = macs_cost(wider)
    return {
        "operations": len(graph.network.calls),
        "groups": len(graph.groups),
        "macs": amc_tf.macs(graph),
        "prunable": 1 - sum(cost.untouched().values()) / cost(cost.dense),
        "prunable_approximate": 1 - sum(wider_cost.untouched().values()) / cost(cost.dense),
        "halved_macs": amc_tf.macs(graph, plan),
        "params": amc_tf.params(graph),
        "refused": sorted({refused.class_name for refused in graph.refused}),
        "opened": len(graph.network.opened),
        "probed": sorted({kind for _, kind in graph.probed}),
        "moved": moved(model, graph, plan),
        "verify": amc_tf.verify(model, graph, plan),
        "verify_approximate": amc_tf.verify(model, wider),
        **(converted(model) if TFLITE.value else {}),
        "seconds": round(statistics.median(seconds), 3),
        "rebuild_seconds": round(rebuild_seconds, 2),
    }


def converted(model: keras.Model) -> dict:
    """Converts a model; returns the largest error of each file, or why there is none."""
    x = noise(model)
    inputs = x if isinstance(x, list) else [x]
    samples = [[np.asarray(a[i : i + 1]) for a in inputs] for i in range(len(inputs[0]))]
    expected = keras.tree.flatten(model(x))
    found = {}
    for name, quantize in (("float_tflite", None), ("int8_tflite", "int8")):
        try:
            content = tflite_tools.convert(model, quantize, samples if quantize else None)
        except ValueError as error:
            found[name] = str(error).splitlines()[0]
            continue
        received = keras.tree.flatten(tflite_tools.LiteRtModel(content).predict(x))
        found[name] = max(
            float(np.abs(a - b).max() / np.ptp(a)) for a, b in zip(expected, received, strict=True)
        )
    return found


def studied(name: str) -> dict:
    """Studies a model; if that fails, says how."""
    try:
        found = study(name)
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {str(error).split(chr(10))[0]}"}
    print(name, found, flush=True)
    return found


def main(argv):
    del argv
    names = MODELS.value or [name for group in ONLY.value for name in GROUPS[group]]
    group = "models" if MODELS.value else ",".join(ONLY.value)
    record.append(
        "graphs", {"seed": 0, "group": group, "models": {name: studied(name) for name in names}}
    )


if __name__ == "__main__":
    app.run(main)
