"""Blocks whose calls are not all that they do stay whole, and stay as they are."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import amc_tf


class _Own(kl.Layer):
    """A block with a Dense layer and a weight, whose `call` is a function of itself."""

    def __init__(self, function, weight=None, **settings):
        super().__init__(**settings)
        self.function = function
        self.dense = kl.Dense(8)
        self.norm = kl.BatchNormalization()
        self.settings = weight

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((None, 8))
        if self.settings is not None:
            self.own = self.add_weight(**{"name": "own", "initializer": "normal", **self.settings})
        self.built = True

    def call(self, x, training=None):
        return self.function(self, x, training)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 8)


def _model(block, dtype="float32", width=8):
    inputs = keras.Input((width,), dtype=dtype)
    return keras.Model(inputs, kl.Dense(3)(block(inputs)))


SCALE = {"shape": (8,)}
CLOSED = {
    "a weight of its layer's": (
        lambda b, x, t: ops.matmul(b.norm(b.dense(x), training=t), b.dense.kernel),
        None,
        "reads a weight of one of its layers",
    ),
    "a weight of its layer's, transposed": (
        lambda b, x, t: ops.matmul(b.norm(b.dense(x), training=t), ops.transpose(b.dense.kernel)),
        None,
        "computes with the values of its weight",
    ),
    "a norm of its layer's weight": (
        lambda b, x, t: b.own * b.norm(b.dense(x), training=t) / ops.norm(b.dense.kernel),
        SCALE,
        "computes with the values of its weight",
    ),
    "a frozen batch norm": (
        lambda b, x, t: b.norm(b.dense(x), training=False),
        None,
        "fixes whether one of its layers is trained",
    ),
    "a batch norm that always follows its batch": (
        lambda b, x, t: b.norm(b.dense(x), training=True),
        None,
        "fixes whether one of its layers is trained",
    ),
    "another factor in training": (
        lambda b, x, t: b.norm(b.dense(x), training=t) * (0.5 if t else 1.0),
        None,
        "something else in training",
    ),
    "a regularizer": (
        lambda b, x, t: b.norm(b.dense(x), training=t) * b.own,
        {**SCALE, "regularizer": "l2"},
        "has a regularizer",
    ),
    "a constraint": (
        lambda b, x, t: b.norm(b.dense(x), training=t) * b.own,
        {**SCALE, "constraint": "non_neg"},
        "has a regularizer or a constraint",
    ),
    "a weight in a function": (
        lambda b, x, t: ops.vectorized_map(lambda r: r * b.own, b.norm(b.dense(x), training=t)),
        SCALE,
        "",
    ),
}


@pytest.mark.parametrize("kind", CLOSED)
def test_a_block_that_does_more_than_its_calls_stays_whole(kind):
    function, weight, told = CLOSED[kind]
    block = _Own(function, weight)
    model = _model(block)
    before = [np.array(v) for v in model.variables]
    graph = amc_tf.analyze(model)
    (refused,) = graph.refused
    assert refused.class_name == "_Own"
    assert told in refused.reason
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, np.array(b))


@pytest.mark.parametrize(
    "function",
    [
        lambda b, x, t: kl.Add()([x, b.norm(b.dense(x), training=t)]),  # made anew in each call
        lambda b, x, t: kl.ReLU()(b.norm(b.dense(x))),
    ],
)
def test_a_block_that_does_no_more_is_looked_into(function):
    model = _model(_Own(function))
    graph = amc_tf.analyze(model)
    assert not graph.refused
    assert amc_tf.verify(model, graph) < 1e-5
    # Its batch norm is trained in the copy as in the model.
    x = np.random.default_rng(0).normal(3.0, 1.0, (64, 8)).astype("float32")
    moved = []
    for network in (model, amc_tf.rebuild(model, graph, None)):
        network.compile("sgd", "mse")
        network.fit(x, np.zeros((64, 3)), batch_size=64, verbose=0)
        (mean,) = [np.array(v) for v in network.variables if v.name == "moving_mean"]
        moved.append(mean)
    np.testing.assert_allclose(*moved, atol=1e-5)
    assert np.abs(moved[0]).max() > 0


def test_an_activity_regularizer_keeps_a_block_whole():
    block = _Own(lambda b, x, t: b.norm(b.dense(x), training=t), activity_regularizer="l2")
    assert "activity_regularizer" in amc_tf.analyze(_model(block)).refused[0].reason


def test_a_block_that_casts_its_input_stays_whole():
    block = _Own(lambda b, x, t: b.norm(b.dense(x), training=t))
    graph = amc_tf.analyze(_model(block, dtype="float64"))
    assert "casts its input from float64 to float32" in graph.refused[0].reason


def test_blocks_in_mixed_precision_are_looked_into():
    def function(block, x, training):
        return x + block.own * ops.relu(block.norm(block.dense(x), training=training))

    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8,))
        x = kl.Dense(8)(inputs)
        model = keras.Model(inputs, kl.Dense(3)(_Own(function, SCALE)(x)))
        graph = amc_tf.analyze(model)
        small = amc_tf.rebuild(model, graph, None)
    finally:
        keras.config.set_dtype_policy(previous)
    assert not graph.refused
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    assert small(x).dtype == model(x).dtype
    np.testing.assert_allclose(small(x), model(x), atol=5e-3)


def test_index_tables_and_scalar_weights_are_carried():
    class Biased(kl.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(5, 8), initializer="normal", name="table")
            self.index = self.add_weight(
                shape=(6,), dtype="int32", initializer="ones", trainable=False, name="index"
            )
            self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

        def call(self, x):
            return x * self.factor + ops.take(self.table, self.index[0], axis=0)

    inputs = keras.Input((6, 5))
    model = keras.Model(inputs, kl.Dense(3)(Biased()(kl.Dense(8)(inputs))))
    graph = amc_tf.analyze(model)
    assert graph.network.opened
    small = amc_tf.rebuild(model, graph, None)
    assert [w.dtype for w in small.weights if w.dtype == "int32"]
    x = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)


def test_a_scalar_weight_freezes_nothing():
    class ReZero(kl.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

        def call(self, x):
            return x * self.factor

    inputs = keras.Input((6,))
    model = keras.Model(inputs, kl.Dense(3)(ReZero()(kl.Dense(8, name="before")(inputs))))
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["before"]
    assert amc_tf.verify(model, graph) < 1e-5


def test_blocks_that_share_a_weight_stay_whole():
    class Reads(kl.Layer):
        def __init__(self, other, **settings):
            super().__init__(**settings)
            self.other = other

        def build(self, shape):
            self.kernel = self.other.kernel

        def call(self, x):
            return ops.matmul(x, self.kernel)

    inputs = keras.Input((8,))
    dense = kl.Dense(8, name="first")
    model = keras.Model(inputs, kl.Dense(3)(Reads(dense)(dense(inputs))))
    graph = amc_tf.analyze(model)
    assert not graph.network.opened
    assert not graph.groups


def test_an_activation_with_a_weight_freezes_its_layer_and_is_not_shared():
    @keras.saving.register_keras_serializable("inside_checks")
    class Swish(kl.Layer):
        def build(self, shape):
            self.beta = self.add_weight(shape=(), initializer="ones", name="beta")

        def call(self, x):
            return x * ops.sigmoid(self.beta * x)

    inputs = keras.Input((5,))
    model = keras.Model(inputs, kl.Dense(3)(kl.Dense(8, activation=Swish())(inputs)))
    graph = amc_tf.analyze(model)
    assert not graph.groups
    small = amc_tf.rebuild(model, graph, None)
    assert not {id(w) for w in small.weights} & {id(w) for w in model.weights}


MIXING = {
    "where any is not zero": lambda t: (
        ops.cast(ops.any(ops.not_equal(t, 0.0), -1, keepdims=True), t.dtype) * (1.0 + t)
    ),
    "clipped by a large norm": lambda t: (
        t / ops.maximum(1.0, ops.norm(t, axis=-1, keepdims=True) / 500.0)
    ),
    "where all are one": lambda t: t * ops.cast(ops.any(t != 1.0, -1, keepdims=True), t.dtype),
}


@pytest.mark.parametrize("kind", MIXING)
def test_rare_values_show_that_channels_are_mixed(kind):
    inputs = keras.Input((4, 4, 5))
    x = kl.Conv2D(8, 1, activation="relu")(inputs)
    model = keras.Model(inputs, kl.Conv2D(3, 1)(kl.Lambda(MIXING[kind])(x)))
    assert not amc_tf.analyze(model).groups


def test_masking_is_refused():
    inputs = keras.Input((8, 5))
    x = kl.Masking(1.0)(kl.Dense(8)(inputs))
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(3)(x)))
    assert not graph.groups
    assert "masks a position" in graph.refused[0].reason
