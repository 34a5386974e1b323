"""Plans on the way to a plan."""

import numpy as np
import plans
import pytest
import zoo

import amc_tf
from amc_tf.graph.plan_steps import towards, within


def test_the_most_important_of_what_goes_goes_last():
    """By hand: six channels, of which 1 and 4 stay in the end."""
    model = zoo.three_convolutions((6, 4, 2))
    graph = amc_tf.analyze(model)
    plan = amc_tf.PruningPlan({"conv0": (1, 4)})
    importance = {"conv0": [0.3, 9, 0.1, 0.4, 9, 0.2]}
    expected = {
        0.0: (0, 1, 2, 3, 4, 5),
        0.3: (0, 1, 3, 4, 5),
        0.5: (0, 1, 3, 4),
        0.75: (1, 3, 4),
        1.0: (1, 4),
    }
    for share, kept in expected.items():
        assert towards(graph, plan, importance, share).keep == {"conv0": kept}


def test_the_rest_of_a_plan_is_told_in_the_numbers_of_the_pruned_network():
    outer = amc_tf.PruningPlan({"a": (0, 3, 4, 7)})
    plan = amc_tf.PruningPlan({"a": (3, 7), "b": (2,)})
    assert within(plan, outer).keep == {"a": (1, 3), "b": (2,)}


@pytest.mark.parametrize("name", sorted(set(zoo.ZOO) - {"grouped"}))
def test_pruning_in_steps_is_pruning_at_once(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    plan = plans.random_plan(graph, 1)
    rng = np.random.default_rng(0)
    importance = {n: rng.random(group.channels) for n, group in graph.groups.items()}
    small, at, done = model, graph, None
    for share in (0.3, 0.7, 1.0):
        target = towards(graph, plan, importance, share)
        assert all(set(plan.keep[n]) <= set(kept) for n, kept in target.keep.items())
        small = amc_tf.rebuild(small, at, target if done is None else within(target, done))
        at, done = amc_tf.analyze(small), target
    once = amc_tf.rebuild(model, graph, plan)
    x = zoo.sample(model)
    for a, b in zip(zoo.outputs(small, x), zoo.outputs(once, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
