"""Attention: heads and widths followed, rebuilt and counted, and what a wrong row does."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

import amc_tf
from amc_tf.graph import contractions, layer_table, rewrites
from amc_tf.graph.channel_classes import classes_of
from amc_tf.graph.keras_structure import numpy_ops
from amc_tf.pruning.importance.criteria import IMPORTANCES, consumer_magnitude
from amc_tf.pruning.masked_model import MaskedModel
from amc_tf.pruning.refit.dense import gather
from amc_tf.pruning.refit.in_order import gather_in_order
from amc_tf.pruning.verification import halved, noise, outputs_of

TOKENS, HEADS, WIDTH = 9, 4, 6


def _of_heads(x):
    return ops.transpose(ops.reshape(x, (-1, TOKENS, HEADS, WIDTH)), (0, 2, 1, 3))


def _attended(query, key, value):
    scores = ops.softmax(ops.matmul(query * WIDTH**-0.5, ops.swapaxes(key, -1, -2)))
    joined = ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))
    return ops.reshape(joined, (-1, TOKENS, HEADS * WIDTH))


def _by_hand(x):
    parts = (kl.Dense(HEADS * WIDTH, name=name)(x) for name in ("query", "key", "value"))
    return kl.Dense(12, name="output")(_attended(*map(_of_heads, parts)))


def _of_one_kernel(x):
    x = kl.Dense(3 * HEADS * WIDTH, use_bias=False, name="query")(x)
    x = ops.reshape(x, (-1, TOKENS, 3, HEADS, WIDTH))
    parts = (ops.transpose(x[:, :, i], (0, 2, 1, 3)) for i in range(3))
    return kl.Dense(12, name="output")(_attended(*parts))


def _split_kernel(x):
    x = kl.Dense(3 * HEADS * WIDTH, name="query")(x)
    x = ops.reshape(x, (-1, TOKENS, 3, HEADS, WIDTH))
    parts = (ops.transpose(ops.squeeze(p, 2), (0, 2, 1, 3)) for p in ops.split(x, 3, axis=2))
    return kl.Dense(12, name="output")(_attended(*parts))


def _keras(*args, **settings):
    def build(x):
        return kl.MultiHeadAttention(*args, **settings)(x, x)

    return build


class OwnBlock(keras.Layer):
    """Attention of products with the layer's own weights."""

    def build(self, shape):
        self.into = self.add_weight(shape=(shape[-1], HEADS, WIDTH), name="into")
        self.out = self.add_weight(shape=(HEADS, WIDTH, 12), name="out")

    def call(self, x):
        y = ops.einsum("btc,chd->bthd", x, self.into)
        shares = ops.softmax(ops.einsum("bthd,bshd->bhts", y, y) * WIDTH**-0.5)
        return ops.einsum("bhts,bshd,hdo->bto", shares, y, self.out)


class OwnPairs(OwnBlock):
    """The same, but each product is one of two tensors."""

    def call(self, x):
        y = ops.einsum("btc,chd->bthd", x, self.into)
        shares = ops.softmax(ops.einsum("bthd,bshd->bhts", y, y) * WIDTH**-0.5)
        return ops.einsum("bthd,hdo->bto", ops.einsum("bhts,bshd->bthd", shares, y), self.out)


# Of each network: the block, and the sizes of the groups that it makes.
BLOCKS = {
    "keras": (_keras(HEADS, WIDTH), [HEADS, WIDTH, WIDTH]),
    "keras, values of another width": (_keras(HEADS, WIDTH, value_dim=5), [HEADS, WIDTH, 5]),
    "keras, dropout": (_keras(HEADS, WIDTH, value_dim=5, dropout=0.1), [HEADS, WIDTH, 5]),
    "keras, without biases": (_keras(HEADS, WIDTH, use_bias=False), [HEADS, WIDTH, WIDTH]),
    "queries share keys": (
        lambda x: kl.GroupQueryAttention(WIDTH, HEADS, 2)(x, x),
        [2, WIDTH, WIDTH],
    ),
    "by hand": (_by_hand, [HEADS, WIDTH, WIDTH]),
    # One axis of width for all three: each width is one of queries, keys and values.
    "one kernel": (_of_one_kernel, [HEADS, WIDTH]),
    "one kernel, split": (_split_kernel, [HEADS, WIDTH]),
    "own weights": (lambda x: OwnPairs()(x), [HEADS, WIDTH]),
}


def _around(block):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((TOKENS, 7))
    x = kl.Dense(8, name="before")(inputs)
    x = kl.BatchNormalization()(x)
    x = kl.GlobalAveragePooling1D()(kl.Dense(10, activation="relu", name="after")(block(x)))
    model = keras.Model(inputs, kl.Dense(3)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        positive = weight.name == "moving_variance"
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else _normal(rng, weight))
    return model


def _normal(rng, weight):
    return rng.normal(0.1, 0.5, weight.shape)


def _checked(model, sizes):
    graph = amc_tf.analyze(model)
    assert not graph.refused
    found = [group.channels for group in graph.groups.values()]
    for size in (8, 10, *sizes):  # `before`, `after` and what the block makes inside
        found.remove(size)
    assert set(found) <= {8, 12}  # the width of what it returns
    assert amc_tf.verify(model, graph) < 1e-5
    for plan in (halved(graph), None):
        small = amc_tf.rebuild(model, graph, plan)
        assert amc_tf.macs(graph, plan) == amc_tf.macs(amc_tf.analyze(small))
        assert amc_tf.params(graph, plan) == small.count_params()
    return graph


@pytest.mark.parametrize("kind", BLOCKS)
def test_heads_and_widths_are_pruned(kind):
    block, sizes = BLOCKS[kind]
    graph = _checked(_around(block), sizes)
    # The traced computation is a second count of the dense work.
    assert amc_tf.macs(graph) == sum(work.macs for work in graph.trace.work)


def test_products_count_by_heads_and_by_widths():
    # By hand: tokens x (in x heads x (2 keys + values) + tokens x heads x (keys + values) + out).
    graph = amc_tf.analyze(_around(_keras(HEADS, WIDTH, value_dim=5)))
    of_size = {group.channels: name for name, group in graph.groups.items()}
    heads, keys, values = (of_size[size] for size in (HEADS, WIDTH, 5))
    plan = amc_tf.PruningPlan({heads: [1, 2, 3], keys: [0, 5], values: [2]})
    h, k, v, t = 3, 2, 1, TOKENS
    expected = t * 7 * 8 + t * 8 * h * (2 * k + v) + t * t * h * (k + v) + t * h * v * 8
    expected += t * 8 * 10 + 10 * 3
    assert amc_tf.macs(graph, plan) == expected


def test_the_scale_stays_that_of_the_whole_width():
    def block(x):
        query, key, value = (_with_heads(x) for _ in range(3))
        return kl.Reshape((TOKENS, -1))(ops.dot_product_attention(query, key, value))

    model = _around(block)
    graph = amc_tf.analyze(model)
    assert WIDTH in {group.channels for group in graph.groups.values()}
    assert amc_tf.verify(model, graph) < 1e-5


def _with_heads(x):
    return kl.Reshape((TOKENS, HEADS, WIDTH))(kl.Dense(HEADS * WIDTH)(x))


def _masked(x):
    query, key, value = (_with_heads(x) for _ in range(3))
    mask = np.tril(np.ones((1, 1, TOKENS, TOKENS), bool))
    return kl.Reshape((TOKENS, -1))(ops.dot_product_attention(query, key, value, mask=mask))


def _biased_heads(x):
    query, key, value = (_with_heads(x) for _ in range(3))
    bias = np.random.default_rng(0).normal(size=(1, HEADS, TOKENS, TOKENS)).astype("float32")
    return kl.Reshape((TOKENS, -1))(ops.dot_product_attention(query, key, value, bias=bias))


@pytest.mark.parametrize(
    "block",
    [
        _masked,
        _biased_heads,
        lambda x: kl.MultiHeadAttention(HEADS, WIDTH)(x, x, use_causal_mask=True),
        lambda x: kl.MultiHeadAttention(HEADS, WIDTH)(x, x, return_attention_scores=True)[0],
        lambda x: OwnBlock()(x),
    ],
)
def test_what_else_attention_reads_is_right_or_kept(block):
    model = _around(block)
    assert amc_tf.verify(model, amc_tf.analyze(model)) < 1e-5


def test_what_no_weight_makes_zero_is_not_summed_over():
    # A sigmoid of zero is a half: without the width, the scores would lose what it adds.
    def block(x):
        query, key, value = (_with_heads(x) for _ in range(3))
        query, key = ops.sigmoid(query), ops.sigmoid(key)
        return kl.Reshape((TOKENS, -1))(ops.dot_product_attention(query, key, value))

    model = _around(block)
    graph = amc_tf.analyze(model)
    assert any("no weights can make them zero" in reason for _, _, reason in graph.frozen)
    assert amc_tf.verify(model, graph) < 1e-5


def test_importance_ranks_what_no_kernel_reads_by_what_makes_it():
    model = _around(_keras(HEADS, WIDTH))
    graph = amc_tf.analyze(model)
    name = next(n for n, g in graph.groups.items() if g.consumers[0].startswith("dot_product"))
    kernels = [graph.site(part).call.operation.kernel for part in ("query", "key")]
    expected = sum(
        n / n.mean() for n in (np.abs(ops.convert_to_numpy(k)).sum((0, 1)) for k in kernels)
    )
    np.testing.assert_allclose(consumer_magnitude(graph)[name], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["keras", "own weights", "by hand"])
def test_one_masked_model_serves_all_plans(kind):
    """Scoring assigns its weights by name, those of a block's own too."""
    model = _around(BLOCKS[kind][0])
    graph = amc_tf.analyze(model)
    masked, x = MaskedModel(graph), noise(model)
    for plan in (halved(graph, 1), halved(graph, 2)):
        masked.assign(plan, {})
        (found,), (expected,) = (
            outputs_of(made, x) for made in (masked.model, amc_tf.rebuild(model, graph, plan))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["keras", "own weights", "by hand", "one kernel"])
@pytest.mark.parametrize("criterion", sorted(IMPORTANCES))
def test_every_criterion_ranks_heads_and_widths(kind, criterion):
    model = _around(BLOCKS[kind][0])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, TOKENS, 7)).astype("float32"), rng.normal(size=(40, 3))
    task = amc_tf.Task(
        train=(x, y),
        validation=(x, y),
        test=(x, y),
        metric="mae",
        mode="min",
        calibration_size=32,
        compile=lambda made: made.compile("adam", "mse", metrics=["mae"]),
    )
    graph = amc_tf.analyze(model)
    found = IMPORTANCES[criterion](graph, task)
    for name, group in graph.groups.items():
        assert found[name].shape == (group.channels,)
        assert np.isfinite(found[name]).all() and (found[name] >= 0).all()
        assert group.channels == 1 or len(set(found[name])) > 1


def test_the_output_projection_is_refitted():
    """Heads and widths that do nothing may go: the refit finds it, whatever the weights are."""
    model = _around(_keras(HEADS, WIDTH))
    graph = amc_tf.analyze(model)
    (value,) = (x.value_dense for x in model.layers if isinstance(x, kl.MultiHeadAttention))
    kernel, bias = (ops.convert_to_numpy(weight).copy() for weight in value.weights)
    kernel[..., 5], bias[..., 5] = 0.5 * kernel[..., 0], 0.5 * bias[..., 0]  # says nothing new
    value.set_weights([kernel, bias])
    name = next(
        n for n, g in graph.groups.items() if g.producers == ("value",) and g.channels == WIDTH
    )
    plan = amc_tf.PruningPlan({name: [0, 1, 2, 3, 4]})
    x = np.random.default_rng(0).normal(size=(200, TOKENS, 7)).astype("float32")
    expected = np.asarray(model(x))
    for refit in (gather(graph, [x], ridge=1e-6), gather_in_order(graph, [x], ridges=(1e-6,))):
        small = amc_tf.rebuild(model, graph, plan, refit.refit(plan))
        error = np.abs(np.asarray(small(x)) - expected).max() / np.ptp(expected)
        without = np.asarray(amc_tf.rebuild(model, graph, plan)(x))
        assert error < 0.01 < np.abs(without - expected).max() / np.ptp(expected)


def test_a_saved_small_model_is_the_same(tmp_path):
    model = _around(_keras(HEADS, WIDTH))
    graph = amc_tf.analyze(model)
    small = amc_tf.rebuild(model, graph, halved(graph))
    small.save(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(2, TOKENS, 7)).astype("float32")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(small(x), loaded(x))


def test_classes_of_axes_that_are_cut_twice():
    """12 channels are heads of 4 here and heads of 2 there: both ways must drop whole cells."""
    ids, four, three = np.arange(12), np.arange(12, 15), np.arange(15, 19)
    six, two = np.arange(19, 25), np.arange(25, 27)
    joint = [
        (ids, [np.repeat(four, 4), np.tile(three, 3)]),
        (ids, [np.repeat(six, 2), np.tile(two, 6)]),
    ]
    found = classes_of(27, [], joint).of_id
    assert len(set(found[four])) == 3  # heads of 4 stay apart
    assert len(set(found[three])) == 2  # positions of equal parity go together
    assert found[six].tolist() == np.repeat(found[four], 2).tolist()


# --- deliberate faults: each is told by `verify` ------------------------------------------------


def _einsum_of_swapped_axes(layer):
    right = contractions.einsum_dense(layer)
    if layer.equation != "abc,cde->abde":
        return right
    return dataclasses.replace(right, weights={**right.weights, "kernel": ("in", "out", "out@-2")})


# Outputs that differ; or, where sizes do not fit, what the library says.
TOLD = (amc_tf.AmcError, ValueError, tf.errors.InvalidArgumentError)
FAULTS = {
    "a head's rows taken from the wrong axis": (
        kl.EinsumDense,
        lambda row: dataclasses.replace(row, variant=_einsum_of_swapped_axes),
    ),
    "the scale of the smaller width": (
        layer_table.nn_ops.DotProductAttention,
        lambda row: dataclasses.replace(row, rewrite=_rescaled),
    ),
    "values kept by the widths of queries": (
        layer_table.nn_ops.DotProductAttention,
        lambda row: dataclasses.replace(
            row, connect=_changed(row.connect, lambda roles: {**roles, "out": roles["in"]})
        ),
    ),
    "heads of the output moved on by one": (
        layer_table.nn_ops.DotProductAttention,
        lambda row: dataclasses.replace(
            row,
            connect=_changed(
                row.connect, lambda roles: {**roles, "out@-2": np.roll(roles["out@-2"], 1)}
            ),
        ),
    ),
}


def _changed(connect, change):
    return lambda *args: change(connect(*args))


def _rescaled(call, kept, rank):
    fewer = {**kept, "sum:width": kept["sum:width"][kept["sum:width"]]}

    def attend(query, key, value, **_):
        return rewrites.rewrite_attention(call, fewer, rank)(query, key, value)

    return attend


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_row_is_told(fault, monkeypatch):
    model = _around(_keras(HEADS, WIDTH))
    kind, wrong = FAULTS[fault]
    monkeypatch.setitem(layer_table.TABLE, kind, wrong(layer_table.TABLE[kind]))
    with pytest.raises(TOLD):
        amc_tf.verify(model, amc_tf.analyze(model))


def test_widths_of_queries_that_are_not_made_zero_are_told():
    model = _around(_keras(HEADS, WIDTH))
    graph = amc_tf.analyze(model)
    vars(graph)["summed"] = np.zeros(graph.classes, bool)
    with pytest.raises(amc_tf.AmcError):
        amc_tf.verify(model, graph)


@pytest.mark.parametrize("kind", [numpy_ops.Transpose, numpy_ops.Reshape])
def test_axes_that_are_not_moved_along_are_told(kind, monkeypatch):
    """A row that leaves ids where they were, or joins them in the wrong order."""
    model = _around(_by_hand)
    right = layer_table.TABLE[kind]

    def connect(c, call, inputs, out_shape):
        roles = right.connect(c, call, inputs, out_shape)
        if len(out_shape) == 3 and len(inputs[0].shape) == 4:  # heads and widths are joined
            grid = np.arange(HEADS * WIDTH).reshape(HEADS, WIDTH).T.ravel()
            return {**roles, "out": roles["out"][grid]}
        if kind is numpy_ops.Transpose and inputs[0].axes:
            ids = inputs[0].ids
            return {"in": ids, "out": ids, "out@-2": next(iter(inputs[0].axes.values()))}
        return roles

    monkeypatch.setitem(layer_table.TABLE, kind, dataclasses.replace(right, connect=connect))
    with pytest.raises(TOLD):
        amc_tf.verify(model, amc_tf.analyze(model))


class OwnConvolutions(keras.Layer):
    """Convolutions with the layer's own kernels."""

    def build(self, shape):
        self.first = self.add_weight(shape=(3, 3, shape[-1], 6), name="first")
        self.each = self.add_weight(shape=(3, 3, 6, 1), name="each")
        self.last = self.add_weight(shape=(1, 1, 6, 5), name="last")
        self.shift = self.add_weight(shape=(5,), name="shift")

    def call(self, x):
        x = ops.relu(ops.conv(x, self.first, padding="same"))
        x = ops.depthwise_conv(x, self.each, padding="same")
        return ops.conv(x, self.last) + self.shift


def test_convolutions_with_own_kernels():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = OwnConvolutions()(kl.Conv2D(4, 3, name="before")(inputs))
    model = keras.Model(inputs, kl.Dense(2)(kl.GlobalAveragePooling2D()(x)))
    graph = amc_tf.analyze(model)
    assert sorted(group.channels for group in graph.groups.values()) == [4, 5, 6]
    assert amc_tf.verify(model, graph) < 1e-5
    small = amc_tf.rebuild(model, graph, halved(graph))
    assert amc_tf.macs(graph, halved(graph)) == amc_tf.macs(amc_tf.analyze(small))
    assert amc_tf.macs(graph) == sum(work.macs for work in graph.trace.work)


def test_permuted_and_cut_channels_are_followed():
    """What froze channels before: an axis moved in front of the positions, and one that is cut."""
    for layer in (kl.Permute((3, 1, 2)), kl.Reshape((8, 8, 3, 2))):
        inputs = keras.Input((8, 8, 3))
        x = layer(kl.Conv2D(6, 3, padding="same", name="before")(inputs))
        model = keras.Model(inputs, kl.Dense(2)(kl.Dense(4, name="after")(kl.Flatten()(x))))
        graph = amc_tf.analyze(model)
        assert {"before", "after"} <= set(graph.groups)
        assert amc_tf.verify(model, graph) < 1e-5


def test_pixels_are_shuffled():
    """Sub-pixel convolution: 12 channels become 2 x 2 pixels of 3."""
    inputs = keras.Input((5, 5, 3))
    x = kl.Conv2D(12, 3, padding="same", name="pixels")(inputs)
    x = ops.reshape(x, (-1, 5, 5, 2, 2, 3))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 10, 10, 3))
    model = keras.Model(inputs, kl.Conv2D(2, 3, name="end")(x))
    graph = amc_tf.analyze(model)
    assert {name: group.channels for name, group in graph.groups.items()} == {"pixels": 3}
    assert amc_tf.verify(model, graph) < 1e-5


@pytest.mark.skipif(not hasattr(ops, "depth_to_space"), reason="Keras has no such operation yet")
def test_blocks_of_channels_become_pixels_and_back():
    inputs = keras.Input((6, 6, 3))
    x = ops.depth_to_space(kl.Conv2D(12, 3, padding="same", name="pixels")(inputs), 2)
    x = ops.space_to_depth(kl.Conv2D(5, 3, padding="same", name="inside")(x), 2)
    model = keras.Model(inputs, kl.Conv2D(2, 1, name="end")(x))
    graph = amc_tf.analyze(model)
    found = {name: group.channels for name, group in graph.groups.items()}
    assert found == {"pixels": 3, "inside": 5}
    assert amc_tf.verify(model, graph) < 1e-5
