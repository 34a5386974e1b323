"""Sparse files against files that store their zeros: bytes and latency on this host.

    python benchmarks/sparse_files.py --network=mobilenet_v1_padded --density=0.2
    python benchmarks/sparse_files.py --network=resnet56 --density=0.2 --data=DIR

The smallest weights of every kernel that sums over channels are made zero, in equal shares. Nothing
is trained, as accuracy does not matter here. mobilenet_v1_padded is MobileNet-V1 0.75 at 192
(random weights) whose strided convolutions are padded by a pixel on every side, as XNNPACK's sparse
kernels need it, where Keras pads below and on the right only; mobilenet_v1 is the one of
keras.applications. --channels=0.5 prunes channels first, uniformly, to that share of the MACs.
--model=FILE takes any other .keras file, as it is if --density is 0.
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from absl import app, flags
from common import record
from keras import layers as kl

import amc_tf
import tflite_tools
from amc_tf.export.formats import FORMATS
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.pruning.weights import numpy_of
from amc_tf.sparsity.kernels import STEPS, kernels
from amc_tf.sparsity.masks import MagnitudeMasks
from amc_tf.sparsity.plan import DensityPlan

NETWORK = flags.DEFINE_string("network", "mobilenet_v1_padded", "A name of NETWORKS.")
DATA = flags.DEFINE_string("data", None, "Folder of resnet56_cifar10.keras.")
MODEL = flags.DEFINE_string("model", None, "A .keras file in place of --network.")
DENSITY = flags.DEFINE_float("density", 0.2, "Share of each kernel's weights kept; 0: no change.")
CHANNELS = flags.DEFINE_float("channels", 1.0, "Share of the MACs kept by pruning channels first.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Fresh processes in which each file is timed.")
FILES = ("float32", "float32_sparse", "float16", "float16_sparse", "int8", "int8_sparse")


def mobilenet_v1() -> keras.Model:
    return keras.applications.MobileNet(
        (192, 192, 3), alpha=0.75, weights=None, classifier_activation=None
    )


def mobilenet_v1_padded() -> keras.Model:
    def clone(layer):
        if isinstance(layer, kl.ZeroPadding2D):
            return kl.ZeroPadding2D(1, name=layer.name)
        if isinstance(layer, kl.Conv2D) and layer.strides == (2, 2):
            # The first one pads by itself.
            return kl.Conv2D.from_config({**layer.get_config(), "padding": "valid"})
        return layer.__class__.from_config(layer.get_config())

    inputs = keras.Input((192, 192, 3))
    model = keras.models.clone_model(mobilenet_v1(), clone_function=clone)
    x = kl.ZeroPadding2D(1)(inputs)
    return keras.Model(inputs, keras.models.clone_model(model, keras.Input((194, 194, 3)))(x))


def resnet56() -> keras.Model:
    path = pathlib.Path(DATA.value) / "resnet56_cifar10.keras"
    return keras.models.load_model(path, compile=False)


NETWORKS = {build.__name__: build for build in (mobilenet_v1, mobilenet_v1_padded, resnet56)}


def narrowed(model: keras.Model, share: float) -> keras.Model:
    """Keeps the strongest channels of every group, as many as the share of the MACs allows."""
    graph = amc_tf.analyze(model)
    importance = consumer_magnitude(graph)
    for kept in np.arange(1.0, 0.0, -0.01):
        counts = {
            name: min(group.channels, max(8, round(kept * group.channels / 8) * 8))
            for name, group in graph.groups.items()
        }
        plan = strongest(importance, counts)
        if amc_tf.macs(graph, plan) <= share * amc_tf.macs(graph):
            break
    return amc_tf.rebuild(model, graph, plan)


def thinned(model: keras.Model, density: float) -> keras.Model:
    """Keeps the largest weights of every kernel, in equal shares."""
    graph = amc_tf.analyze(model)
    plan = DensityPlan(steps={k.name: round(density * STEPS) for k in kernels(graph)})
    return amc_tf.rebuild(model, graph, None, MagnitudeMasks(graph).refit(plan))


def main(argv):
    del argv
    keras.utils.set_random_seed(0)
    model = (
        NETWORKS[NETWORK.value]()
        if MODEL.value is None
        else keras.models.load_model(MODEL.value, compile=False)
    )
    if CHANNELS.value < 1:
        model = narrowed(model, CHANNELS.value)
    if DENSITY.value:
        model = thinned(model, DENSITY.value)
    values = [numpy_of(k.weight) for k in kernels(amc_tf.analyze(model))]
    rng = np.random.default_rng(0)
    samples = [rng.random((1, *model.input_shape[1:]), np.float32) for _ in range(8)]
    contents = {}
    for name in FILES:
        form = FORMATS[name]
        given = samples if form.calibrated else None
        contents[name] = tflite_tools.convert(model, form.quantize, given, sparse=form.sparse)
        print(name, len(contents[name]), flush=True)
    times = tflite_tools.measure_host(contents, rounds=ROUNDS.value)
    name = NETWORK.value if MODEL.value is None else pathlib.Path(MODEL.value).stem
    record.append(
        "sparse_files",
        {
            "network": name + (f", channels {CHANNELS.value:g}" if CHANNELS.value < 1 else ""),
            "density": sum(np.count_nonzero(v) for v in values) / sum(v.size for v in values),
            "files": {
                key: {
                    "bytes": len(content),
                    "latency_ms": times[key].median_ms,
                    "latency_ms_min": times[key].min_ms,
                    "latency_ms_max": times[key].max_ms,
                }
                for key, content in contents.items()
            },
        },
    )


if __name__ == "__main__":
    app.run(main)
