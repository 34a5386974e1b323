"""The central property: what is rebuilt computes what the masked model computes."""

import gc
import json
import weakref

import keras
import marks
import numpy as np
import pytest
import random_graphs
import zoo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as kl
from recount import recount

import amc_tf

_MODELS = {}


def _analysed(name):
    if name not in _MODELS:
        model = zoo.build(name)
        _MODELS[name] = model, amc_tf.analyze(model)
    return _MODELS[name]


@pytest.mark.parametrize("name", zoo.ZOO)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_rebuild_equals_mask_and_costs_equal_a_recount(name, data):
    model, graph = _analysed(name)
    plan = data.draw(random_graphs.plans(graph))
    rebuilt = amc_tf.rebuild(model, graph, plan)
    masked = amc_tf.mask(model, graph, plan)
    inputs = zoo.sample(model)
    for small, full in zip(zoo.outputs(rebuilt, inputs), zoo.outputs(masked, inputs), strict=True):
        assert small.shape == full.shape
        np.testing.assert_allclose(small, full, rtol=1e-4, atol=1e-4 * np.abs(full).max())
    assert (amc_tf.macs(graph, plan), amc_tf.params(graph, plan)) == recount(rebuilt)
    assert masked.count_params() == model.count_params()


@pytest.mark.parametrize("name", marks.slow_but(zoo.ZOO, marks.VARIED))
def test_the_dense_model_does_not_keep_rebuilt_ones_alive(name):
    """A search rebuilds thousands of times; layers without weights are called in every model."""
    model, graph = _analysed(name)
    rebuilt = amc_tf.rebuild(model, graph, None)
    layers = [weakref.ref(layer) for layer in rebuilt.layers]
    del rebuilt
    gc.collect()
    assert [ref().name for ref in layers if ref() is not None] == []


@pytest.mark.parametrize("name", zoo.ZOO)
def test_keeping_everything_is_the_identity_on_an_independent_copy(name):
    model, graph = _analysed(name)
    copy = amc_tf.rebuild(model, graph, amc_tf.PruningPlan({}))
    inputs = zoo.sample(model)
    before = zoo.outputs(model, inputs)
    for a, b in zip(before, zoo.outputs(copy, inputs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (amc_tf.macs(graph), amc_tf.params(graph)) == recount(copy)
    for weight in copy.weights:
        weight.assign(weight * 0)
    for a, b in zip(before, zoo.outputs(model, inputs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_channel_that_is_pruned_changes_something(name):
    """A mask that touched nothing would equal any rebuild: here it must not."""
    model, graph = _analysed(name)
    assert graph.groups
    inputs = zoo.sample(model)
    dense = zoo.outputs(model, inputs)
    for group in graph.groups.values():
        if group.channels == 1:
            continue
        plan = amc_tf.PruningPlan({group.name: range(group.channels // 2)})
        masked = zoo.outputs(amc_tf.mask(model, graph, plan), inputs)
        assert any(not np.allclose(a, b) for a, b in zip(dense, masked, strict=True)), group.name
        assert amc_tf.params(graph, plan) < amc_tf.params(graph)


@pytest.mark.parametrize("name", ["residual", "nested_backbone", "zero_padded_shortcut", "sliced"])
def test_a_rebuilt_model_can_be_saved_and_pruned_again(name, tmp_path):
    model, graph = _analysed(name)
    half = {n: range(0, g.channels, 2) for n, g in graph.groups.items()}
    once = amc_tf.rebuild(model, graph, amc_tf.PruningPlan(half))
    once.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    inputs = zoo.sample(model)
    for a, b in zip(zoo.outputs(once, inputs), zoo.outputs(loaded, inputs), strict=True):
        np.testing.assert_array_equal(a, b)
    again = amc_tf.analyze(loaded)
    assert {n: g.channels for n, g in again.groups.items()} == {n: len(k) for n, k in half.items()}
    first = amc_tf.PruningPlan({n: [0] for n in again.groups})
    twice = amc_tf.rebuild(loaded, again, first)
    composed = amc_tf.rebuild(model, graph, amc_tf.PruningPlan({n: [0] for n in graph.groups}))
    for a, b in zip(zoo.outputs(twice, inputs), zoo.outputs(composed, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_rebuilt_model_keeps_trainable_flags_names_and_structure():
    model, graph = _analysed("two_outputs")
    model.get_layer("feature").trainable = False
    rebuilt = amc_tf.rebuild(model, graph, None)
    assert not rebuilt.get_layer("feature").trainable
    assert [t.name for t in rebuilt.inputs] == [t.name for t in model.inputs]
    assert set(rebuilt(zoo.sample(model))) == {"map", "label"}
    model.get_layer("feature").trainable = True


def test_lambda_and_custom_activation_survive_rebuilding():
    def wave(x):
        return keras.ops.sin(x)

    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, activation="relu")(x)
    x = kl.Conv2D(6, 3, activation=wave)(x)
    x = kl.Lambda(lambda t: t * 2)(x)
    model = keras.Model(inputs, kl.Dense(2)(kl.GlobalAveragePooling2D()(x)))
    graph = amc_tf.analyze(model)
    assert len(graph.groups) == 2
    assert [kind for _, kind in graph.probed] == ["Lambda"]
    plan = amc_tf.PruningPlan({name: [1, 2] for name in graph.groups})
    rebuilt, masked = amc_tf.rebuild(model, graph, plan), amc_tf.mask(model, graph, plan)
    inputs = zoo.sample(model)
    np.testing.assert_allclose(rebuilt(inputs), masked(inputs), rtol=1e-5, atol=1e-6)
    assert any(isinstance(layer, kl.Lambda) for layer in rebuilt.layers)


def test_refused_plans():
    model, graph = _analysed("residual")
    name = next(iter(graph.groups))
    with pytest.raises(amc_tf.AmcError, match=f"did you mean '{name}'"):
        amc_tf.rebuild(model, graph, amc_tf.PruningPlan({name + "x": [0]}))
    with pytest.raises(amc_tf.AmcError, match="only 8 channels"):
        amc_tf.rebuild(model, graph, amc_tf.PruningPlan({name: [0, 8]}))
    with pytest.raises(amc_tf.AmcError, match="another model"):
        amc_tf.rebuild(zoo.build("plain"), graph, None)
    with pytest.raises(amc_tf.AmcError, match="no weight of the model"):
        amc_tf.rebuild(model, graph, None, {"nowhere/kernel": np.zeros(1)})
    for bad in ([], [1, 1], [-1], [0.5], "ab"):
        with pytest.raises(amc_tf.AmcError, match=name):
            amc_tf.PruningPlan({name: bad})


def test_plan_file_round_trip_and_damage(tmp_path):
    plan = amc_tf.PruningPlan({"a": np.array([3, 1]), "b": (0,)})
    path = tmp_path / "plan.json"
    plan.save(path)
    assert amc_tf.PruningPlan.load(path) == plan
    assert json.loads(path.read_text())["keep"] == {"a": [1, 3], "b": [0]}
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    for content, message in (
        ("{", "not a pruning plan"),
        ("[]", "not a pruning plan"),
        ('{"format": "amc_tf.PruningPlan/1", "keep": []}', "map group to indices"),
        ('{"format": "amc_tf.PruningPlan/1", "keep": {"a": []}}', "at least one"),
    ):
        path.write_text(content)
        with pytest.raises(amc_tf.AmcError, match=message):
            amc_tf.PruningPlan.load(path)
    with pytest.raises(amc_tf.AmcError, match="no pruning plan"):
        amc_tf.PruningPlan.load(tmp_path / "absent.json")
