"""MACs of operations outside the layer table, and of the table's rows, counted a second way."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as kl
from keras import ops

import amc_tf
from amc_tf.graph.costs import macs_cost, multiplications
from amc_tf.graph.layer_table import rule_of
from amc_tf.graph.tensorflow_macs import macs_of


class Own(kl.Layer):
    """A layer of the user's that no table lists, with a function as its call."""

    def __init__(self, function, **settings):
        super().__init__(**settings)
        self.function = function

    def call(self, *tensors):
        return self.function(*tensors)


class Eager(Own):
    """A layer whose call needs real values; it says itself what it returns."""

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def compute_output_shape(self, shape):
        return shape


class ResidualBlock(kl.Layer):
    """A residual block written as one layer."""

    def build(self, shape):
        self.conv = kl.Conv2D(shape[-1], 3, padding="same")
        self.norm = kl.BatchNormalization()
        self.conv.build(shape)
        self.norm.build(shape)

    def call(self, x):
        return ops.relu(x + self.norm(self.conv(x)))


def kernel(*shape):
    return ops.ones(shape)


def three_spectral(x):
    for filters in (4, 5, 6):
        x = kl.SpectralNormalization(kl.Conv2D(filters, 3, padding="same"))(x)
    return x


def mapped_over_time(x):
    """A product in a loop over axis 1: as a While, or unrolled, as TensorFlow likes."""
    steps = ops.transpose(x, (1, 0, 2))
    return ops.transpose(ops.map(lambda step: ops.matmul(step, kernel(3, 4)), steps), (1, 0, 2))


def scanned_over_time(x):
    steps = ops.transpose(x, (1, 0, 2))

    def step(state, now):
        state = ops.matmul(state, kernel(3, 3)) + now
        return state, state

    return ops.transpose(ops.scan(step, x[:, 0], steps)[1], (1, 0, 2))


# Name: shape of each input, the function, and MACs: positions of the output x elements of the
# kernel that each reads.
KINDS = {
    "TimeDistributed": ([(5, 8, 8, 3)], kl.TimeDistributed(kl.Conv2D(4, 3)), 5 * 36 * 9 * 3 * 4),
    "own convolution": (
        [(8, 8, 3)],
        Own(lambda x: ops.conv(x, kernel(3, 3, 3, 4))),
        36 * 9 * 3 * 4,
    ),
    "own residual block": ([(8, 8, 4)], ResidualBlock(), 64 * 9 * 4 * 4),
    "Lambda": ([(8, 8, 3)], kl.Lambda(lambda x: ops.conv(x, kernel(3, 3, 3, 4))), 36 * 9 * 3 * 4),
    "ops.conv": ([(8, 8, 3)], lambda x: ops.conv(x, kernel(3, 3, 3, 4)), 36 * 9 * 3 * 4),
    "ops.conv 1D": ([(8, 3)], lambda x: ops.conv(x, kernel(3, 3, 4)), 6 * 3 * 3 * 4),
    "ops.conv 3D": ([(4, 4, 4, 3)], lambda x: ops.conv(x, kernel(3, 3, 3, 3, 4)), 8 * 27 * 3 * 4),
    "grouped convolution": (
        [(8, 8, 4)],
        Own(lambda x: tf.nn.conv2d(x, kernel(3, 3, 2, 6), 1, "VALID")),
        36 * 9 * 2 * 6,
    ),
    "ops.depthwise_conv": (
        [(8, 8, 3)],
        lambda x: ops.depthwise_conv(x, kernel(3, 3, 3, 2)),
        36 * 9 * 3 * 2,
    ),
    "dilated depthwise convolution": (  # TensorFlow pads 9 to 10 and folds it into blocks
        [(9, 9, 3)],
        lambda x: ops.depthwise_conv(x, kernel(3, 3, 3, 2), padding="same", dilation_rate=2),
        81 * 9 * 3 * 2,
    ),
    "ops.separable_conv": (
        [(8, 8, 3)],
        lambda x: ops.separable_conv(x, kernel(3, 3, 3, 2), kernel(1, 1, 6, 5)),
        36 * 9 * 3 * 2 + 36 * 6 * 5,
    ),
    "ops.conv_transpose": (  # by the positions of the input
        [(8, 8, 3)],
        Own(lambda x: ops.conv_transpose(x, kernel(3, 3, 4, 3), strides=2)),
        64 * 9 * 3 * 4,
    ),
    "ops.einsum of weights": (
        [(5, 3)],
        lambda x: ops.einsum("...c,cd->...d", x, kernel(3, 4)),
        5 * 3 * 4,
    ),
    "ops.einsum of activations": (
        [(5, 3), (7, 3)],
        lambda x, y: ops.einsum("bic,bjc->bij", x, y),
        5 * 7 * 3,
    ),
    "ops.einsum of one operand": ([(5, 3)], lambda x: ops.einsum("bic->bci", x), 0),
    "ops.matmul of activations": ([(5, 3), (3, 7)], lambda x, y: ops.matmul(x, y), 5 * 3 * 7),
    "ops.dot": ([(5, 3)], lambda x: ops.dot(x, kernel(3, 4)), 5 * 3 * 4),
    "ops.tensordot": ([(5, 3)], lambda x: ops.tensordot(x, kernel(3, 4), axes=1), 5 * 3 * 4),
    "Dot": ([(5, 3), (7, 3)], lambda x, y: kl.Dot(axes=2)([x, y]), 5 * 7 * 3),
    "SpectralNormalization": (  # power iteration runs in training alone
        [(8, 8, 3)],
        three_spectral,
        64 * 9 * (3 * 4 + 4 * 5 + 5 * 6),
    ),
    "Bidirectional LSTM": (
        [(5, 3)],
        kl.Bidirectional(kl.LSTM(6)),
        2 * 5 * 4 * (3 * 6 + 6 * 6),
    ),
    "masked GRU": ([(5, 3)], lambda x: kl.GRU(6)(kl.Masking()(x)), 5 * 3 * (3 * 6 + 6 * 6)),
    "RNN of cells": (
        [(5, 3)],
        kl.RNN([kl.SimpleRNNCell(6), kl.SimpleRNNCell(4)]),
        5 * (3 * 6 + 6 * 6 + 6 * 4 + 4 * 4),
    ),
    "ConvLSTM": ([(5, 8, 8, 3)], kl.ConvLSTM2D(4, 3), 5 * 36 * 9 * (3 + 4) * 16),
    "attention with a mask": (  # 4 projections of 8 to 2 heads of 4, and two products
        [(4, 8), (4, 4)],
        lambda x, mask: kl.MultiHeadAttention(2, 4)(x, x, attention_mask=mask),
        4 * 4 * 8 * 8 + 2 * 4 * 4 * 8,
    ),
    "attention over a key of its own": (
        [(4, 8), (6, 8), (6, 5)],
        lambda query, value, key: kl.MultiHeadAttention(2, 4)(query, value, key),
        4 * 8 * 8 + 6 * 8 * 8 + 6 * 5 * 8 + 4 * 8 * 8 + 2 * 4 * 6 * 8,
    ),
    "grouped queries": (  # 4 heads of queries, 2 of keys and values
        [(4, 8)],
        lambda x: kl.GroupQueryAttention(4, 4, 2)(x, x),
        4 * 8 * (16 + 8 + 8) + 4 * 16 * 8 + 2 * 4 * 4 * 16,
    ),
    "ops.map": ([(5, 3)], Own(mapped_over_time), 5 * 3 * 4),
    "ops.scan": ([(5, 3)], Own(scanned_over_time), 5 * 3 * 3),
    "ops.fori_loop": (
        [(4,)],
        Own(lambda x: ops.fori_loop(2, 9, lambda i, y: ops.matmul(y, kernel(4, 4)), x)),
        7 * 4 * 4,
    ),
    "the larger branch": (
        [(4,)],
        Own(lambda x: ops.cond(ops.sum(x) > 0, lambda: ops.matmul(x, kernel(4, 4)), lambda: x)),
        4 * 4,
    ),
    "products of weights alone are folded": (
        [(4,)],
        Own(lambda x: ops.matmul(x, ops.matmul(kernel(4, 3), kernel(3, 4)))),
        4 * 4,
    ),
    "what nobody reads is dropped": (
        [(4,)],
        Own(lambda x: (ops.matmul(x, kernel(4, 9)), x + 1)[1]),
        0,
    ),
    "a known layer on positions that are folded into the batch": (
        [(8, 8, 4)],
        lambda x: ops.reshape(kl.Dense(5)(ops.reshape(x, (-1, 4, 4))), (-1, 8, 8, 5)),
        64 * 4 * 5,
    ),
    "a fixed batch": (
        [keras.Input(batch_shape=(4, 8, 3))],
        Own(lambda x: ops.conv(x, kernel(3, 3, 5))),
        6 * 3 * 3 * 5,
    ),
    "elementwise operations and pooling": (
        [(8, 8, 3)],
        lambda x: kl.AdaptiveAveragePooling2D(3)(kl.Resizing(6, 6, "bicubic")(ops.exp(x * x))),
        0,
    ),
}


def model_of(shapes, function):
    inputs = [s if isinstance(s, keras.KerasTensor) else keras.Input(s) for s in shapes]
    return keras.Model(inputs, function(*inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_macs_equal_a_hand_count(kind):
    shapes, function, expected = KINDS[kind]
    cost = macs_cost(amc_tf.analyze(model_of(shapes, function)))
    assert cost(cost.dense) == expected
    assert not cost.uncounted


@pytest.mark.parametrize("name", zoo.ZOO)
def test_rows_of_the_table_agree_with_the_trace(name):
    graph = amc_tf.analyze(zoo.build(name))
    for call, work in zip(graph.network.calls, graph.trace.work, strict=True):
        site, rule = graph.site_at(call), rule_of(call.operation)
        assert not work.uncounted
        if rule is not None and rule.macs:
            weights = call.operation.weights
            told = sum(multiplications(graph, site, w) * math.prod(w.shape) for w in weights)
            assert work.macs == told, site.name


def test_an_lstm_of_cudnn_is_counted_as_any_other():
    """On a GPU Keras calls one operation for all time steps."""

    @tf.function(autograph=False)
    def lstm(x, state):
        return tf.raw_ops.CudnnRNNV3(
            input=x,
            input_h=state,
            input_c=state,
            params=tf.zeros([4 * (3 * 6 + 6 * 6 + 12)]),
            sequence_lengths=[5],
            rnn_mode="lstm",
        ).output

    specs = tf.TensorSpec((5, 1, 3)), tf.TensorSpec((1, 1, 6))
    graph = lstm.get_concrete_function(*specs).graph
    (operation,) = [op for op in graph.get_operations() if op.type == "CudnnRNNV3"]
    assert macs_of(operation) == 5 * 4 * (3 * 6 + 6 * 6)


UNCOUNTED = {
    "While": lambda x: ops.while_loop(
        lambda y: ops.sum(y) < 9, lambda y: (ops.matmul(y, kernel(4, 4)),), (x,)
    )[0],
    "PyFunc": lambda x: tf.ensure_shape(tf.numpy_function(np.copy, [x], tf.float32), x.shape),
    "RFFT": lambda x: tf.abs(tf.signal.rfft(x)),
    "Cholesky": lambda x: tf.linalg.cholesky(x[:, :, None] * x[:, None] + tf.eye(4)),
    "not traced: TypeError": lambda x: x + float(ops.sum(x)),  # only a real value is a float
}


@pytest.mark.parametrize("kind", UNCOUNTED)
def test_what_cannot_be_counted_is_listed(kind):
    x = inputs = keras.Input((4,))
    x = kl.Dense(4)(x)
    layer = (Eager if "not traced" in kind else Own)(UNCOUNTED[kind])
    cost = macs_cost(amc_tf.analyze(keras.Model(inputs, layer(x))))
    (found,) = cost.uncounted
    assert (found.operation, found.class_name) == (layer.name, type(layer).__name__)
    assert kind in found.reason
    assert cost(cost.dense) == 4 * 4


def test_a_layer_whose_name_begins_with_an_underscore_is_traced():
    """EfficientNet-Lite has some. At the top of a TensorFlow graph no name may begin so."""
    x = inputs = keras.Input((4,))
    x = kl.Dense(3, name="_stem")(x)
    outputs = Own(lambda x: ops.matmul(x, kernel(3, 5)), name="_own")(x)
    graph = amc_tf.analyze(keras.Model(inputs, outputs))
    cost = macs_cost(graph)
    assert not cost.uncounted
    assert cost(cost.dense) == 4 * 3 + 3 * 5
    assert [work.macs for work in graph.trace.work] == [4 * 3, 3 * 5]


def test_work_before_a_call_that_cannot_be_traced_is_counted():
    inputs = keras.Input((4,))
    x = Own(lambda x: ops.matmul(x, kernel(4, 4)))(inputs)
    x = Eager(UNCOUNTED["not traced: TypeError"])(x)
    cost = macs_cost(amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(x))))
    assert cost(cost.dense) == 4 * 4 + 4 * 2
    assert [found.class_name for found in cost.uncounted] == ["Eager"]


def partly_counted():
    x = inputs = keras.Input((4,))
    x = kl.Dense(8, name="counted")(x)
    x = Own(UNCOUNTED["RFFT"])(kl.Dense(4)(x))
    return keras.Model(inputs, kl.Dense(2)(x))


@pytest.mark.parametrize(
    "budget, changes",
    [(amc_tf.Budget(macs=0.5), {}), (None, {"reward": "flops"})],
)
def test_macs_that_leave_work_out_are_no_budget_unless_the_user_allows_it(budget, changes, caplog):
    from amc_tf.search.problem import check, problem_of

    graph = amc_tf.analyze(partly_counted())

    def checked(**more):
        settings = amc_tf.SearchSettings(rounding=1, **changes, **more)
        check(problem_of(graph, settings), budget, settings)

    with pytest.raises(amc_tf.AmcError, match=r"Own: RFFT.*allow_uncounted=True"):
        checked()
    checked(allow_uncounted=True)
    assert "leave out the work of" in caplog.text
    settings = amc_tf.SearchSettings(rounding=1)
    check(problem_of(graph, settings), amc_tf.Budget(params=0.5), settings)


def test_a_name_that_tensorflow_refuses_stays_in_its_layer():
    inputs = keras.Input((4,))
    named = kl.Dense(2, name="two words")
    cost = macs_cost(amc_tf.analyze(keras.Model(inputs, named(inputs))))
    assert cost(cost.dense) == 4 * 2
    later = kl.Dense(2, name="later")
    later.build((None, 4))
    assert later.kernel.path == "later/kernel"
