"""Operations of keras.ops that treat every element alone, move positions or reduce over them."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import amc_tf
from amc_tf.graph.widths import random_plan

T, HEADS, WIDTH = 6, 3, 4
# By the operation's name: of two tensors, each with channels and heads.
OF_ONE = (
    "exp exp2 log log1p log2 log10 reciprocal cos cosh arccos arccosh sinc signbit isfinite isinf "
    "isnan logical_not ones_like tanh expm1 abs square sqrt cbrt sign sin sinh tan arcsin arcsinh "
    "arctan arctanh floor ceil round trunc deg2rad rad2deg nan_to_num conj real zeros_like rsqrt "
    "erf erfinv stop_gradient"
).split()
OF_TWO = (
    "maximum minimum power floor_divide mod hypot arctan2 heaviside logaddexp logaddexp2 equal "
    "not_equal greater greater_equal less less_equal isclose logical_and logical_or logical_xor "
    "add subtract multiply divide divide_no_nan"
).split()
BLOCKS = {
    "mean over tokens": lambda x: ops.mean(x, axis=1),
    "mean over tokens, kept": lambda x: ops.mean(x, axis=1, keepdims=True),
    "variance": lambda x: ops.var(x, axis=1),
    "deviation": lambda x: ops.std(x, axis=1, keepdims=True),
    "product": lambda x: ops.prod(x, axis=1),
    "logsumexp": lambda x: ops.logsumexp(x, axis=-3),
    "amax": lambda x: ops.amax(x, axis=[1]),
    "median": lambda x: ops.median(x, axis=1),
    "any": lambda x: ops.cast(ops.any(x > 0.5, axis=1), "float32"),
    "all": lambda x: ops.cast(ops.all(x > -2, axis=1), "float32"),
    "count": lambda x: ops.cast(ops.count_nonzero(ops.relu(x), axis=1), "float32"),
    "rolled": lambda x: ops.roll(x, 2, axis=1),
    "rolled twice": lambda x: ops.roll(x, (1, 2), axis=(1, -3)),
    "flipped tokens": lambda x: ops.flip(x, axis=1),
    "flipped heads": lambda x: ops.flip(x, axis=2) * 2.0,
    "flipped channels": lambda x: ops.flip(x, axis=-1) + 1.0,
    "flipped both": lambda x: ops.flip(x, axis=(1, -1)),
    "moved": lambda x: ops.moveaxis(x, 1, 2),
    "moved and back": lambda x: ops.moveaxis(ops.relu(ops.moveaxis(x, -1, 1)), 1, -1),
    "moved several": lambda x: ops.moveaxis(x, (1, 3), (3, 1)),
}
# What freezes the heads, or all.
FREEZES = {
    "rolled heads": lambda x: ops.roll(x, 1, axis=2),
    "rolled channels": lambda x: ops.roll(x, 1, axis=-1),
    "rolled flat": lambda x: ops.roll(x, 1),
    "mean over heads": lambda x: ops.mean(x, axis=2),
    "deviation of channels": lambda x: ops.std(x, axis=-1),
    "max of all": lambda x: ops.max(x, axis=(1, 2, 3)),
}


def _graph(block):
    """Heads and widths of a Dense layer, after batch norm: so their values vary."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((T, 7))
    x = kl.Reshape((T, HEADS, WIDTH))(kl.Dense(HEADS * WIDTH, name="made")(inputs))
    x = kl.Flatten()(block(x))
    model = keras.Model(inputs, kl.Dense(3)(kl.Dense(6, activation="relu", name="after")(x)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0.1, 0.5, weight.shape))
    return amc_tf.analyze(model)


def _check(graph):
    x = np.random.default_rng(1).normal(size=(3, T, 7)).astype("float32")
    for seed in range(2):
        plan = random_plan(graph, np.random.default_rng(seed))
        assert amc_tf.verify(graph.network.model, graph, plan, [x]) < 1e-4
        small = amc_tf.rebuild(graph.network.model, graph, plan)
        assert amc_tf.macs(graph, plan) == amc_tf.macs(amc_tf.analyze(small))


def _one(name):
    # Values that all functions are defined for, in (0, 1); of comparisons, numbers again.
    return lambda x: ops.cast(getattr(ops, name)(_defined(name, x)), "float32")


def _two(name):
    return lambda x: ops.cast(getattr(ops, name)(ops.sigmoid(x), ops.relu(x) + 0.5), "float32")


def _defined(name, x):
    return ops.sigmoid(x) + (1.0 if name == "arccosh" else 0.0)


ALL = {**{n: _one(n) for n in OF_ONE}, **{n: _two(n) for n in OF_TWO}, **BLOCKS}


@pytest.mark.parametrize("name", ALL)
def test_heads_and_widths_are_followed(name):
    graph = _graph(ALL[name])
    assert not graph.refused and not graph.probed
    assert sorted(g.channels for g in graph.groups.values()) == [HEADS, WIDTH, 6]
    _check(graph)


@pytest.mark.parametrize("name", FREEZES)
def test_heads_stay_where_they_are_mixed(name):
    graph = _graph(FREEZES[name])
    assert HEADS not in [g.channels for g in graph.groups.values()]
    _check(graph)
