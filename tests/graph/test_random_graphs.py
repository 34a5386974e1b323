"""Random graphs from the whole layer table, random plans, and faults that must not go unseen.

The same properties over hundreds of graphs: `python benchmarks/many_graphs.py --graphs=500`.
"""

import dataclasses
import pathlib
import tempfile

import numpy as np
import pytest
import random_graphs
import zoo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import amc_tf
from amc_tf.graph import analysis, kernel_propagation, layer_rows, layer_table, propagation

_HURRIED = settings(
    deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
# Keras draws names and seeds with `random`.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")


@settings(_HURRIED, max_examples=40)
@given(data=st.data())
def test_random_graphs(data):
    model = data.draw(random_graphs.models())
    graph = amc_tf.analyze(model, allow_approximate=data.draw(st.booleans()))
    random_graphs.check_identity(model, graph)
    plan = data.draw(random_graphs.plans(graph))
    rebuilt = random_graphs.check_plan(model, graph, plan)
    second = data.draw(st.sampled_from(["pruned again", "nothing", "nothing"]))
    if second == "pruned again":
        random_graphs.check_twice(
            model, graph, plan, rebuilt, lambda graph: data.draw(random_graphs.plans(graph))
        )


@settings(_HURRIED, max_examples=6)
@given(data=st.data())
def test_random_graphs_in_files(data):
    model = data.draw(random_graphs.models(most_steps=5))
    graph = amc_tf.analyze(model)
    rebuilt = amc_tf.rebuild(model, graph, data.draw(random_graphs.plans(graph)))
    with tempfile.TemporaryDirectory() as folder:
        random_graphs.check_files(model, rebuilt, pathlib.Path(folder))


# --- eight deliberate faults -----------------------------------------------------------


def _tiled_depthwise(c, call, inputs, out_shape):
    roles = kernel_propagation.depthwise(c, call, inputs, out_shape)
    return {**roles, "out": np.tile(inputs[0].ids, call.operation.depth_multiplier)}


def _merge_without_uniting(c, call, inputs, out_shape):
    wide = next(x for x in inputs if len(x.ids) == out_shape[-1])
    return {"in": wide.ids, "out": wide.ids}


def _flatten_repeated(c, call, inputs, out_shape):
    (x,) = inputs
    return {"in": x.ids, "out": np.repeat(x.ids, out_shape[-1] // len(x.ids))}


def _concatenated_backwards(c, call, inputs, out_shape):
    ids = np.concatenate([x.ids for x in reversed(inputs)])
    return {"in": ids, "out": ids}


def _groups_left_alone(c, call, inputs, out_shape):
    layer, (x,) = call.operation, inputs
    parts = x.ids.reshape(layer.groups, -1)
    return {"in": x.ids, "part": parts[0], "out": c.fresh(out_shape[-1])}


FAULTS = {
    "depthwise tiles": ("DepthwiseConv2D", _tiled_depthwise, "depthwise_multiplier"),
    "merge does not unite": ("Add", _merge_without_uniting, "residual"),
    "flatten repeats": ("Flatten", _flatten_repeated, "sequential_flatten"),
    "concatenation is backwards": ("Concatenate", _concatenated_backwards, "concatenated"),
    "groups are not tied": ("Conv2D", _groups_left_alone, "grouped"),
    "softmax is like any other": ("Softmax", propagation.same, None),
}


def _find_fault(model) -> None:
    graph = amc_tf.analyze(model)
    assert graph.groups
    for seed in range(3):
        rng = np.random.default_rng(seed)
        plan = {
            name: np.flatnonzero(rng.random(group.channels) < 0.6)
            for name, group in graph.groups.items()
        }
        plan = amc_tf.PruningPlan({name: kept if len(kept) else [0] for name, kept in plan.items()})
        random_graphs.check_plan(model, graph, plan)


def _softmax_inside():
    kl = zoo.kl
    model = zoo.keras.Sequential(
        [zoo.keras.Input((6,)), kl.Dense(8), kl.Softmax(), kl.Dense(3), kl.Dense(2)]
    )
    random_graphs.randomise(model, 0)
    return model


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_rule_is_caught(fault, monkeypatch):
    class_name, connect, model_name = FAULTS[fault]
    model = _softmax_inside() if model_name is None else zoo.build(model_name)
    _find_fault(model)
    kind = getattr(zoo.kl, class_name)
    variant = layer_table.TABLE[kind].variant
    row = dataclasses.replace(layer_table.TABLE[kind], connect=connect)
    if fault == "groups are not tied":
        within = dataclasses.replace(layer_rows.WITHIN_GROUPS, connect=connect)
        row = dataclasses.replace(
            row, variant=lambda layer: within if layer.groups == 2 else variant(layer)
        )
    monkeypatch.setitem(layer_table.TABLE, kind, row)
    with pytest.raises(Exception):  # noqa: B017 - a wrong output or a shape that does not fit
        _find_fault(model)


def test_a_batch_norm_whose_statistics_are_sliced_wrongly_is_caught(monkeypatch):
    model = zoo.build("residual")
    compress = np.compress

    def first_ones(condition, value, axis):
        # As many, but not the ones: what a plan with sorted indices must not become.
        count = int(np.count_nonzero(condition))
        return compress(np.arange(len(condition)) < count, value, axis)

    monkeypatch.setattr("amc_tf.pruning.surgery.np.compress", first_ones)
    with pytest.raises(AssertionError):
        _find_fault(model)


def test_a_shared_layer_that_is_not_united_is_caught(monkeypatch):
    model = zoo.build("shared_layers")
    unite = analysis._Analysis.unite

    def only_inside_rules(self, a, b):
        if self._inside_rule:
            unite(self, a, b)

    connect = analysis._Analysis._connect

    def remember(self, call, rule):
        self._inside_rule = True
        try:
            return connect(self, call, rule)
        finally:
            self._inside_rule = False

    monkeypatch.setattr(analysis._Analysis, "_connect", remember)
    monkeypatch.setattr(analysis._Analysis, "unite", only_inside_rules)
    with pytest.raises(Exception):  # noqa: B017
        _find_fault(model)
