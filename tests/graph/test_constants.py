"""Arrays among the arguments of a call: sliced with the channels that lie along them."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import amc_tf
from amc_tf.graph.widths import random_plan
from amc_tf.pruning.refit.in_order import gather_in_order
from amc_tf.pruning.refit.linear_path import follow
from amc_tf.pruning.verification import outputs_of
from amc_tf.scoring.batch_norm_folding import fold

T, HEADS, WIDTH = 6, 3, 4
_RNG = np.random.default_rng(0)
CAUSAL = np.tril(np.ones((T, T), bool))


def _array(*shape):
    return _RNG.normal(size=shape).astype("float32")


def _attention(masked=lambda scores: scores, turned=lambda heads: heads):
    def block(x):
        q, k, v = (
            ops.transpose(kl.Reshape((T, HEADS, WIDTH))(kl.Dense(HEADS * WIDTH)(x)), (0, 2, 1, 3))
            for _ in range(3)
        )
        scores = ops.matmul(turned(q), ops.transpose(turned(k), (0, 1, 3, 2)))
        y = ops.matmul(ops.softmax(masked(scores)), v)
        return kl.Reshape((T, HEADS * WIDTH))(ops.transpose(y, (0, 2, 1, 3)))

    return block


def _turned(x):
    """Rotary embedding, its tables given as arrays."""
    angles = np.outer(np.arange(T), 0.5 ** np.arange(WIDTH // 2))
    angles = np.concatenate([angles, angles], -1).astype("float32")
    a, b = x[..., : WIDTH // 2], x[..., WIDTH // 2 :]
    return x * np.cos(angles) + ops.concatenate([-b, a], axis=-1) * np.sin(angles)


# What each block computes, and how many groups there are within it.
BLOCKS = {
    "factors of channels": (lambda x: kl.Dense(5)(x) * _array(5), 1),
    "a tensor": (lambda x: kl.Dense(5)(x) + ops.convert_to_tensor(_array(1, 1, 5)), 1),
    "first": (lambda x: ops.subtract(_array(T, 5), kl.Dense(5)(x)), 1),
    "a table of positions": (lambda x: kl.Dense(5)(x) + _array(1, T, 5), 1),
    "clipped by arrays": (lambda x: ops.minimum(kl.Dense(5)(x), _array(5)), 1),
    "where": (lambda x: ops.where(_array(T, 5) > 0, kl.Dense(5)(x), _array(1, 5)), 1),
    "integers": (lambda x: kl.Dense(4)(x) * np.arange(4), 1),
    "causal": (_attention(lambda s: ops.where(CAUSAL, s, -1e9)), 3),
    "causal as a tensor": (_attention(lambda s: ops.where(ops.array(CAUSAL)[None], s, -1e9)), 3),
    "causal array below": (_attention(lambda s: ops.where(CAUSAL, s, _array(T, T) - 1e4)), 3),
    "added mask": (_attention(lambda s: s + np.where(CAUSAL, 0, -1e4).astype("float32")), 3),
    "a bias for each head": (_attention(lambda s: s + _array(1, HEADS, T, T)), 3),
    "a slope for each head": (_attention(lambda s: s - _array(HEADS, 1, 1) * _array(T, T)), 3),
    # Widths 0 and 2 turn with one another, as do 1 and 3.
    "rotary": (_attention(turned=_turned), 3),
}


def _model(block):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((T, 7))
    x = kl.Dense(6, activation="relu")(block(inputs))
    model = keras.Model(inputs, kl.Dense(3)(kl.Flatten()(x)))
    for weight in model.weights:
        weight.assign(_RNG.normal(0.1, 0.5, weight.shape))
    return model


@pytest.mark.parametrize("block", BLOCKS)
def test_arrays_keep_what_lies_along_kept_channels(block, tmp_path):
    make, groups = BLOCKS[block]
    model = _model(make)
    x = _RNG.normal(size=(2, T, 7)).astype("float32")
    graph = amc_tf.analyze(model)
    assert len(graph.groups) == groups + 1
    assert not graph.refused
    for seed in range(3):
        plan = random_plan(graph, np.random.default_rng(seed))
        assert amc_tf.verify(model, graph, plan, [x]) < 1e-5
        small = amc_tf.rebuild(model, graph, plan)
        assert amc_tf.macs(graph, plan) == amc_tf.macs(amc_tf.analyze(small))
        small.save(tmp_path / "small.keras")
        loaded = keras.models.load_model(tmp_path / "small.keras")
        for a, b in zip(outputs_of(loaded, [x]), outputs_of(small, [x]), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_factors_are_those_of_the_kept_channels():
    inputs = keras.Input((2,))
    dense = kl.Dense(4, use_bias=False, name="scaled")
    x = dense(inputs) * np.array([1, 10, 100, 1000], "float32")
    last = kl.Dense(1, use_bias=False)
    model = keras.Model(inputs, last(x))
    dense.kernel.assign(np.ones((2, 4)))
    last.kernel.assign(np.ones((4, 1)))
    plan = amc_tf.PruningPlan({"scaled": (1, 3)})
    small = amc_tf.rebuild(model, amc_tf.analyze(model), plan)
    assert small(np.array([[1.0, 2.0]], "float32")).numpy() == 3 * (10 + 1000)


def test_a_weight_that_an_operation_reads_stays_whole():
    """Of a variable that belongs to no layer, nobody knows who else reads it."""
    inputs = keras.Input((6,))
    variable = keras.Variable(np.arange(5.0, dtype="float32"))
    model = keras.Model(inputs, kl.Dense(2)(kl.Dense(5)(inputs) * variable))
    assert not amc_tf.analyze(model).groups


def test_channels_that_an_array_repeats_stay():
    inputs = keras.Input((6,))
    x = kl.Dense(1, name="one")(inputs) * _array(5)
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(x)))
    assert not graph.groups


@pytest.mark.parametrize(
    ("table", "follows"), [((1, T, 5), False), ((T, 1), False), ((1, 1, 5), True), ((5,), True)]
)
@pytest.mark.parametrize("join", [lambda x, a: x * a, lambda x, a: x + a])
def test_refit_ends_before_what_differs_by_position(table, follows, join):
    """A factor or a summand of its own for each position is no affine function of channels."""
    inputs = keras.Input((T, 7))
    x = kl.Dense(8, activation="relu", name="first")(inputs)
    x = kl.Activation("relu")(join(kl.Dense(5, name="second")(x), _array(*table)))
    model = keras.Model(inputs, kl.Dense(3)(x))
    graph = amc_tf.analyze(model)
    (call,) = [c for c in graph.network.calls if c.operation.name == "second"]
    path = follow(graph.network, call)
    assert bool(path.calls) is follows
    plan = amc_tf.PruningPlan({"first": (0, 2, 3, 5, 7), "second": tuple(range(5))})
    images = _RNG.normal(size=(60, T, 7)).astype("float32")
    weights = gather_in_order(graph, [images]).refit(plan)
    refitted = amc_tf.rebuild(model, graph, plan, weights)
    cut = amc_tf.rebuild(model, graph, plan)
    dense, with_refit, without = (outputs_of(m, [images])[0] for m in (model, refitted, cut))
    assert np.square(with_refit - dense).mean() < np.square(without - dense).mean()


@pytest.mark.parametrize("block", ["factors of channels", "where", "causal", "rotary"])
def test_refit_runs_the_pruned_network_with_the_arrays_that_are_kept(block):
    model = _model(BLOCKS[block][0])
    images = _RNG.normal(size=(40, T, 7)).astype("float32")
    graph = amc_tf.analyze(model)
    plan = random_plan(graph, np.random.default_rng(0))
    weights = gather_in_order(graph, [images]).refit(plan)
    found = [
        outputs_of(m, [images])[0]
        for m in (
            model,
            amc_tf.rebuild(model, graph, plan, weights),
            amc_tf.rebuild(model, graph, plan),
        )
    ]
    refitted, cut = (np.square(x - found[0]).mean() for x in found[1:])
    assert refitted <= cut


def test_layer_normalisation_behind_a_product_with_an_array():
    inputs = keras.Input((T, 7))
    x = kl.LayerNormalization()(kl.Dense(5)(inputs) * _array(5))
    model = keras.Model(inputs, kl.Dense(2)(x))
    graph = amc_tf.analyze(model, allow_approximate=True)
    plan = random_plan(graph, np.random.default_rng(0))
    assert amc_tf.verify(model, graph, plan) < 1e-5


@pytest.mark.parametrize(
    "join",
    [
        lambda x, a: kl.Concatenate(axis=1)([x, a]),
        lambda x, a: kl.Concatenate(axis=-1)([x, a]),
        lambda x, a: ops.stack([x, a], axis=2),
    ],
)
def test_tensors_are_not_joined_with_arrays(join):
    inputs = keras.Input(batch_shape=(2, T, 7))
    x = join(kl.Dense(5)(inputs), _array(2, T, 5))
    model = keras.Model(inputs, kl.Dense(2)(kl.Dense(4, name="free")(kl.Flatten()(x))))
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["free"]
    assert amc_tf.verify(model, graph) < 1e-5


def test_an_operation_called_twice_stays_one():
    inputs = keras.Input((T, 7))
    product = type((inputs * inputs)._keras_history.operation)()
    x = product(kl.Dense(5)(inputs), _array(5))
    x = product(kl.Dense(4)(x), _array(T, 4))
    model = keras.Model(inputs, kl.Dense(2)(x))
    graph = amc_tf.analyze(model)
    assert [g.channels for g in graph.groups.values()] == [5, 4]
    assert amc_tf.verify(model, graph) < 1e-5


SUMMANDS = {
    "columns of positions": lambda x: x + _array(T, 1),
    "columns as a tensor": lambda x: ops.add(x, ops.convert_to_tensor(_array(1, T, 1))),
    "channels": lambda x: x + _array(1, 1, 8),
}


@pytest.mark.parametrize("name", SUMMANDS)
def test_columns_of_positions_are_added_along_positions(name):
    """Keras adds (6, 1) along the channels of a tensor that has 6 of them."""
    inputs = keras.Input((T, 7))
    x = kl.Dense(8, name="made", activation="relu")(inputs)
    model = keras.Model(inputs, kl.Dense(2, name="last")(kl.Flatten()(SUMMANDS[name](x))))
    for weight in model.weights:
        weight.assign(_RNG.normal(0.1, 0.5, weight.shape))
    graph = amc_tf.analyze(model)
    plan = amc_tf.PruningPlan({"made": (0, 1, 2, 4, 6, 7)})  # as many as there are positions
    assert amc_tf.verify(model, graph, plan) < 1e-5
    images = _RNG.normal(size=(40, T, 7)).astype("float32")
    weights = gather_in_order(graph, [images]).refit(plan)
    dense, refitted = (
        outputs_of(m, [images])[0] for m in (model, amc_tf.rebuild(model, graph, plan, weights))
    )
    assert np.square(refitted - dense).mean() < 0.2 * np.square(dense).mean()


def test_channels_along_which_keras_adds_positions_stay():
    inputs = keras.Input((T, 7))
    x = kl.Dense(T)(inputs) + _array(T, 1)
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(x)))
    assert "another axis" in next(iter(graph.refused)).reason
    assert not graph.groups


@pytest.mark.parametrize(
    "block",
    [
        lambda x: ops.clip(x, -np.abs(_array(5)), np.abs(_array(5))),
        lambda x: ops.celu(x, np.abs(_array(5))),
        lambda x: ops.where(ops.max(x) > 0.0, x, _array(5)),
        lambda x: x * ops.tanh(ops.sum(x)),
    ],
)
def test_array_settings_and_tensors_without_axes_freeze(block):
    inputs = keras.Input((T, 7))
    x = kl.Dense(4, name="free")(block(kl.Dense(5)(inputs)))
    model = keras.Model(inputs, kl.Dense(2)(x))
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["free"]
    assert amc_tf.verify(model, graph) < 1e-5


def test_rotary_attention_is_scored_with_its_batch_norms_folded():
    model = _model(BLOCKS["rotary"][0])
    assert fold(amc_tf.analyze(model)).graph.groups
