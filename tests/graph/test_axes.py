"""Axes that hold channels beside the last: what mixes them, moves them or reads them otherwise."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import amc_tf
from amc_tf.graph.widths import random_plan
from amc_tf.pruning.importance.criteria import IMPORTANCES
from amc_tf.pruning.verification import outputs_of

T, HEADS, WIDTH = 6, 3, 4


def _heads(x, name=None):
    return kl.Reshape((T, HEADS, WIDTH))(kl.Dense(HEADS * WIDTH, name=name)(x))


def _gram(z):
    return ops.einsum("bhd,bhe->bde", z, z)


def _over_channels(x):
    return kl.Permute((2, 1))(kl.Dense(8)(x))


def _summed_beside_a_bias(x):
    """What is 0 gets the bias of a kernel that runs along the channels."""
    return _gram(kl.Dense(5)(_over_channels(x)))


def _summed_beside_a_norm(x):
    return _gram(kl.BatchNormalization()(_over_channels(x)))


def _tokens_are_channels(x):
    y = _over_channels(x)
    return kl.MultiHeadAttention(2, 4)(y, y)


def _tokens_are_channels_and_scores(x):
    y = _over_channels(x)
    return kl.MultiHeadAttention(2, 4)(y, y, return_attention_scores=True)[0]


def _shared_over_axes_of_two_sizes(x):
    dense = kl.Dense(5)
    a, b = (dense(kl.Permute((2, 1))(kl.Dense(size)(x))) for size in (8, 9))
    return sum(kl.Dense(4)(kl.Permute((2, 1))(y)) for y in (a, b))


def _softmax_over_heads(x):
    return kl.Reshape((T, -1))(kl.Dense(5, activation=lambda y: ops.softmax(y, axis=-2))(_heads(x)))


def _activation_over_heads(x):
    return kl.Reshape((T, -1))(kl.Activation(lambda y: ops.softmax(y, axis=2))(_heads(x)))


def _divided(x):
    q, g = kl.Dense(8)(x), kl.Dense(8, activation="exponential")(x)
    q = ops.divide(q, g)
    return ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(q, 1, 2))), kl.Dense(9)(x))


def _without_epsilon(x):
    q = kl.BatchNormalization(epsilon=0.0)(kl.Dense(8)(x))
    return ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(q, 1, 2))), kl.Dense(9)(x))


def _gram_of_itself(x):
    """Channels by channels: k * k of them are kept, and k on the diagonal."""
    x = kl.Dense(8, activation="relu")(x)
    return kl.Flatten()(ops.matmul(ops.swapaxes(x, 1, 2), x))


def _cut_two_ways(x):
    x = kl.Dense(12)(x)
    h = kl.Reshape((T, 3, 4))(x)
    moved = kl.Reshape((T, 12))(ops.transpose(h, (0, 1, 3, 2)))
    attended = kl.Reshape((T, 12))(ops.dot_product_attention(h, h, h))
    return kl.Dense(5)(x[..., :6]) + kl.Dense(5)(moved) + kl.Dense(5)(attended)


def _linear_attention(x):
    q, k, v = (_heads(x) for _ in range(3))
    kv = ops.einsum("bshd,bshe->bhde", ops.elu(k), v)
    return kl.Reshape((T, -1))(ops.einsum("bthd,bhde->bthe", ops.elu(q), kv))


def _talking_heads(x):
    q, k, v = (_heads(x) for _ in range(3))
    scores = ops.einsum("bthd,bshd->btsh", q, k)
    scores = ops.softmax(kl.Dense(5)(scores), axis=2)
    scores = kl.Dense(HEADS)(scores)
    return kl.Reshape((T, -1))(ops.einsum("btsh,bshd->bthd", scores, v))


def _batch_moved(x):
    qkv = kl.Reshape((T, 3, HEADS, WIDTH))(kl.Dense(3 * HEADS * WIDTH)(x))
    q, k, v = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), axis=0)
    scores = ops.softmax(ops.matmul(q, ops.swapaxes(k, -1, -2)))
    return ops.reshape(ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3)), (-1, T, HEADS * WIDTH))


def _one_head_with_a_causal_mask(x):
    x = kl.LayerNormalization()(kl.Dense(9)(x))
    return x + kl.MultiHeadAttention(1, 4)(x, x, use_causal_mask=True)


def _rectified_linear_attention(x):
    q, k, v = (ops.transpose(_heads(x), (0, 2, 1, 3)) for _ in range(3))
    return ops.matmul(ops.relu(q), ops.matmul(ops.swapaxes(ops.relu(k), -1, -2), v))


def _moved_over_the_batch(x):
    x = kl.Dense(8)(x)
    return ops.swapaxes(ops.relu(ops.swapaxes(x, 0, 2)), 0, 2)


def _one_head_of_one_width(x):
    return kl.MultiHeadAttention(1, 1)(x, x)


def _causal_with_values_of_another_width(x):
    return kl.MultiHeadAttention(2, 3, value_dim=5)(x, x, use_causal_mask=True)


BLOCKS = {f.__name__.strip("_"): f for f in list(globals().values()) if callable(f)}
BLOCKS = {name: f for name, f in BLOCKS.items() if f.__module__ == __name__}
BLOCKS = {name: f for name, f in BLOCKS.items() if name not in ("heads", "gram", "over_channels")}


def _model(block):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((T, 7))
    x = block(inputs)
    x = kl.Dense(6, activation="relu", name="after")(x)
    return _drawn(keras.Model(inputs, kl.Dense(3)(kl.Flatten()(x))))


def _drawn(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "variance" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        else:
            weight.assign(rng.normal(0.1, 0.5, weight.shape))
    return model


def _check(model, x, allowed):
    graph = amc_tf.analyze(model, allow_approximate=allowed)
    whole = amc_tf.rebuild(model, graph, None)
    for a, b in zip(outputs_of(whole, [x]), outputs_of(model, [x]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    for seed in range(3):
        plan = random_plan(graph, np.random.default_rng(seed))
        assert amc_tf.verify(model, graph, plan, [x]) < 1e-4
        small = amc_tf.rebuild(model, graph, plan)
        again = amc_tf.analyze(small, allow_approximate=allowed)
        assert amc_tf.macs(graph, plan) == amc_tf.macs(again)
        assert amc_tf.params(graph, plan) == small.count_params()
    return graph


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("block", BLOCKS)
def test_it_is_right(block, allowed):
    x = np.random.default_rng(1).normal(size=(2, T, 7)).astype("float32")
    _check(_model(BLOCKS[block]), x, allowed)


@pytest.mark.parametrize(
    "block",
    [
        lambda x: kl.MultiHeadAttention(2, 3)(x, x),
        lambda x: kl.LayerNormalization()(x + kl.MultiHeadAttention(2, 3)(x, x)),
        lambda x: kl.GroupQueryAttention(3, 4, 2)(kl.Dense(9)(x), kl.Dense(9)(x)),
        lambda x: kl.Bidirectional(kl.LSTM(4))(kl.Dense(6)(x)),
    ],
)
def test_masks_that_come_with_values_stay(block):
    """Keras passes them on beside the tensors; a network that is made anew must not lose them."""
    inputs = keras.Input((T,), dtype="int32")
    x = block(kl.Embedding(9, 8, mask_zero=True)(inputs))
    model = _drawn(keras.Model(inputs, kl.Dense(3)(kl.Flatten()(x))))
    x = np.array([[1, 2, 0, 0, 0, 0], [3, 4, 5, 6, 7, 0]], np.int32)
    _check(model, x, allowed=False)


def test_a_head_alone_is_ranked():
    model = _model(_one_head_with_a_causal_mask)
    x, y = np.ones((8, T, 7), "float32"), np.zeros((8, 3), "float32")
    task = amc_tf.Task(train=(x, y), validation=(x, y), test=(x, y), metric="mae", mode="min")
    model.compile("adam", "mse", metrics=["mae"])
    graph = amc_tf.analyze(model, allow_approximate=True)
    found = IMPORTANCES["elimination"](graph, task)
    assert all(len(found[n]) == group.channels for n, group in graph.groups.items())


def test_a_quantised_network_is_refused_in_a_sentence():
    inputs = keras.Input((T,), dtype="int32")
    x = kl.Embedding(9, 8)(inputs)
    model = keras.Model(inputs, kl.Dense(5)(kl.Flatten()(x)))
    model.quantize("int4")
    graph = amc_tf.analyze(model)
    with pytest.raises(amc_tf.AmcError, match="pruned before it is quantised"):
        amc_tf.rebuild(model, graph, None)


def test_rectified_widths_vanish():
    graph = amc_tf.analyze(_model(_rectified_linear_attention))
    assert not any("can make them zero" in reason for _, _, reason in graph.frozen)


def test_what_kept_attention_whole_is_told():
    inputs = keras.Input((T, 7))
    x = kl.Dense(9)(inputs)
    x = kl.MultiHeadAttention(3, 4, dtype="mixed_float16")(x, kl.Dense(9)(inputs))
    graph = amc_tf.analyze(keras.Model(inputs, x))
    assert "casts its input" in graph.refused[0].reason
