"""Graph analysis of keras.applications: groups, MACs, refusals, rebuilt against masked.

    python benchmarks/graphs.py [--models=MobileNet,ResNet50]

Each model has random weights, is halved in every group, and is run on random
images as rebuilt and as masked.
"""

from __future__ import annotations

import time

import keras
import numpy as np
import record
from absl import app, flags

import amc_tf

MODELS = flags.DEFINE_list(
    "models",
    [
        "MobileNet",
        "MobileNetV2",
        "ResNet50",
        "VGG16",
        "DenseNet121",
        "EfficientNetB0",
        "InceptionV3",
        "Xception",
        "NASNetMobile",
        "ConvNeXtTiny",
    ],
    "Names in keras.applications.",
)


def study(name: str) -> dict:
    model = getattr(keras.applications, name)(weights=None)
    start = time.perf_counter()
    graph = amc_tf.analyze(model)
    seconds = time.perf_counter() - start
    rng = np.random.default_rng(0)
    plan = amc_tf.PruningPlan(
        {
            n: np.sort(rng.choice(g.channels, max(1, g.channels // 2), replace=False))
            for n, g in graph.groups.items()
        }
    )
    start = time.perf_counter()
    rebuilt = amc_tf.rebuild(model, graph, plan)
    rebuild_seconds = time.perf_counter() - start
    x = rng.normal(size=(1, *model.input_shape[1:])).astype("float32")
    small, full = rebuilt(x), amc_tf.mask(model, graph, plan)(x)
    recounted = amc_tf.analyze(rebuilt)
    assert amc_tf.macs(graph, plan) == amc_tf.macs(recounted)
    assert amc_tf.params(graph, plan) == rebuilt.count_params()
    return {
        "model": name,
        "operations": len(graph.network.calls),
        "groups": len(graph.groups),
        "macs": amc_tf.macs(graph),
        "halved_macs": amc_tf.macs(graph, plan),
        "params": amc_tf.params(graph),
        "refused": len(graph.refused),
        "max_relative_difference": float(np.max(np.abs(small - full)) / np.max(np.abs(full))),
        "analysis_seconds": round(seconds, 3),
        "rebuild_seconds": round(rebuild_seconds, 2),
    }


def main(argv):
    del argv
    record.append("graphs", {"seed": 0, "models": [study(name) for name in MODELS.value]})


if __name__ == "__main__":
    app.run(main)
