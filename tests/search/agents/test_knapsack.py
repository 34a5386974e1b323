"""The allocation against all plans there are."""

import itertools

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

import amc_tf
from amc_tf.search.agents.knapsack import knapsack
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem


@pytest.fixture(scope="module")
def problem():
    return channel_problem(amc_tf.analyze(zoo.three_convolutions()), rounding=4)


def _sum(env, losses, counts):
    places = [int(np.searchsorted(a, n)) for a, n in zip(env.choices, counts, strict=True)]
    return sum(float(loss[place]) for loss, place in zip(losses, places, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    share=st.floats(0.15, 0.95),
    kind=st.sampled_from(["macs", "params"]),
)
def test_it_is_within_the_budget_and_near_the_best_of_all_plans(problem, seed, share, kind):
    rng = np.random.default_rng(seed)
    env = DecisionEnv(problem, amc_tf.Budget(**{kind: share}))
    losses = [np.append(np.sort(rng.exponential(size=len(a) - 1))[::-1], 0.0) for a in env.choices]
    counts = np.rint(np.array(knapsack(env, losses)) * problem.dense).astype(int)
    assert env.meets(counts)
    within = [_sum(env, losses, c) for c in itertools.product(*env.choices) if env.meets(c)]
    most = sum(loss[0] for loss in losses)
    assert _sum(env, losses, counts) <= min(within) + 0.25 * (most - min(within))


def test_what_loses_nothing_goes_first(problem):
    env = DecisionEnv(problem, amc_tf.Budget(macs=0.6))
    losses = [np.linspace(1, 0, len(a)) * (t != 1) for t, a in enumerate(env.choices)]
    ratios = knapsack(env, losses)
    assert ratios[1] == min(ratios) and np.mean(ratios) > ratios[1]
