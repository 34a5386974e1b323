"""Budgets, states, rewards and hand-crafted policies."""

import dataclasses

import keras
import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.search.agents.guided import GuidedSearcher
from amc_tf.search.agents.handcrafted import PROFILES, FixedSearcher, profile
from amc_tf.search.agents.response_surface import ResponseSearcher
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.env.problem import NUM_FEATURES
from amc_tf.search.problem import problem_of
from amc_tf.training.score import Score


@pytest.fixture(scope="module")
def graph():
    return amc_tf.analyze(zoo.three_convolutions())


def _env(graph, budget, reward="err", fill_budget=True, **changes):
    problem = channel_problem(graph, **changes)
    return DecisionEnv(problem, budget, reward=reward, fill_budget=fill_budget)


def _episode(env, actions, score=0.5):
    state = env.reset()
    states = [state]
    for action in actions:
        state, _ = env.step(action)
        states.append(state)
    assert states[-1] is None
    return env.outcome(env.finish(), score), states[:-1]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["macs", "params"]),
    share=st.floats(0.05, 1.0),
    rounding=st.sampled_from([1, 2, 8]),
    actions=st.lists(st.floats(-0.5, 1.5), min_size=3, max_size=3),
)
def test_the_budget_is_never_exceeded_rounding_included(graph, kind, share, rounding, actions):
    cost = {"macs": amc_tf.macs, "params": amc_tf.params}[kind]
    dense = cost(graph)
    try:
        env = _env(graph, amc_tf.Budget(**{kind: share}), rounding=rounding)
    except amc_tf.AmcError as error:
        least = env_minimum(graph, rounding, cost)
        assert f"smallest reachable is {least:,}" in str(error) and least > int(share * dense)
        return
    outcome, _ = _episode(env, actions)
    assert cost(graph, outcome.plan) <= share * dense
    assert {"macs": outcome.macs, "params": outcome.params}[kind] == cost(graph, outcome.plan)
    for count, group in zip(outcome.counts, graph.groups.values(), strict=True):
        assert count % rounding == 0 or count == group.channels
        assert count >= 0.2 * group.channels


def env_minimum(graph, rounding, cost):
    """Every group at its least allowed count, found one by one."""
    keep = {}
    for name, group in graph.groups.items():
        allowed = [
            n
            for n in range(1, group.channels + 1)
            if n >= 0.2 * group.channels and (n % rounding == 0 or n == group.channels)
        ]
        keep[name] = range(allowed[0])
    return cost(graph, amc_tf.PruningPlan(keep))


def test_ratios_that_fit_are_executed_as_they_are(graph):
    env = _env(graph, amc_tf.Budget(macs=1.0), fill_budget=False)
    outcome, states = _episode(env, [0.5, 1.0, 0.61], score=0.75)
    assert outcome.counts == (8, 24, 24)  # 0.61 * 40 = 24.4 -> the nearest multiple of 8
    assert outcome.actions == (0.5, 1.0, 0.6)
    assert outcome.reward == -0.25
    assert [s.shape for s in states] == [(NUM_FEATURES,)] * 3


@settings(max_examples=30, deadline=None)
@given(
    share=st.floats(0.2, 1.0),
    actions=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
)
def test_what_is_left_of_the_budget_is_given_out_in_proportion(graph, share, actions):
    budget = amc_tf.Budget(macs=share)
    clipped, filled = (_env(graph, budget, rounding=1, fill_budget=fill) for fill in (False, True))
    before, _ = _episode(clipped, actions)
    after, _ = _episode(filled, actions)
    assert before.actions == after.actions
    assert all(a >= b for a, b in zip(after.counts, before.counts, strict=True))
    assert before.macs <= after.macs <= filled.bounds["macs"]
    # Nothing worth a step is left: no group could take one more channel of the largest shortfall.
    assert after.macs >= 0.85 * min(filled.bounds["macs"], amc_tf.macs(graph))


def test_an_absolute_budget_is_that_number(graph):
    env = _env(graph, amc_tf.Budget(params=4000))
    outcome, _ = _episode(env, [1, 1, 1])
    assert amc_tf.params(graph, outcome.plan) <= 4000
    assert env.bounds == {"params": 4000}


def test_early_groups_leave_room_for_the_rest(graph):
    """Greedy first actions are clipped to what the later groups' minimum leaves over."""
    env = _env(graph, amc_tf.Budget(macs=0.3), rounding=1)
    outcome, _ = _episode(env, [1, 1, 1])
    # One more channel in any group would have been too much when it was decided.
    for t in range(3):
        counts = list(outcome.counts[: t + 1]) + [c[0] for c in env.choices[t + 1 :]]
        counts[t] += 1
        assert counts[t] > env.choices[t][-1] or not env.meets(counts)


def test_states_by_hand(graph):
    env = _env(graph, amc_tf.Budget(macs=1.0))
    _, states = _episode(env, [0.5, 1.0, 1.0])
    areas = (256, 64, 64)  # of the consumers' inputs: conv1 reads 16 x 16, conv2 and pooling 8 x 8
    del areas
    macs = {
        "conv0": 256 * 9 * 3 * 16,
        "conv1": 64 * 9 * 16 * 24,
        "conv2": 64 * 9 * 24 * 40,
        "dense": 40 * 7,
    }
    total = sum(macs.values())
    first, second, third = states
    np.testing.assert_allclose(first[:3], [0, 24 / 40, 16 / 40], rtol=1e-6)
    np.testing.assert_allclose(first[3:5], [1, 1])  # the largest input
    np.testing.assert_allclose(second[3:5], [0.5, 0.5])
    np.testing.assert_allclose(first[5:7], [1, 1])  # stride 2, kernel 3
    np.testing.assert_allclose(second[5], 0.5)
    np.testing.assert_allclose(third[5:7], [0.5, 1 / 3], rtol=1e-6)  # Dense counts as 1 x 1
    reads = [macs["conv1"], macs["conv2"], macs["dense"]]
    np.testing.assert_allclose([s[7] for s in states], np.array(reads) / max(reads), rtol=1e-5)
    # Halving conv0's channels halves conv0 and conv1.
    np.testing.assert_allclose(
        [s[8] for s in states],
        np.array([0, 1, 1]) * (macs["conv0"] + macs["conv1"]) / 2 / total,
        rtol=1e-5,
    )
    rest = [macs["conv2"] + macs["dense"], macs["dense"], 0]
    np.testing.assert_allclose([s[9] for s in states], np.array(rest) / total, rtol=1e-5)
    np.testing.assert_allclose([s[10] for s in states], [1, 0.5, 1])


def test_the_reward_of_the_divergence(graph):
    env = _env(graph, amc_tf.Budget(macs=0.5), reward="divergence")
    costs = env.problem.dense_costs
    given = [(0.0, 0.0), (0.25, -0.25), (100.0, -100.0), (np.inf, -100.0)]
    for distance, expected in given:
        assert env.reward(Score(0.75, distance), costs) == expected
    while env.step(0.5)[0] is not None:
        pass
    outcome = env.outcome(env.finish(), Score(0.75, 0.25, cut=True))
    assert (outcome.score, outcome.reward) == (0.75, -0.25)
    assert outcome.divergence == 0.25 and outcome.cut and type(outcome.score) is float
    with pytest.raises(amc_tf.AmcError, match="received accuracy 75.00% alone; use another workd"):
        env.reward(0.75, costs)
    with pytest.raises(amc_tf.AmcError, match="'divergence' needs a budget, e.g. Budget"):
        _env(graph, None, reward="divergence")


@pytest.mark.parametrize("reward, scale", [("flops", "macs"), ("params", "params")])
def test_rewards_without_a_budget_price_the_cost(graph, reward, scale):
    env = _env(graph, None, reward=reward)
    outcome, _ = _episode(env, [0.5, 0.5, 0.5], score=0.75)
    assert outcome.reward == pytest.approx(-0.25 * np.log(getattr(outcome, scale)))
    full, _ = _episode(env, [1, 1, 1], score=0.75)
    assert full.counts == (16, 24, 40) and full.reward < outcome.reward


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_handcrafted_policies_use_the_budget_they_are_given(graph, name, share):
    env = _env(graph, amc_tf.Budget(macs=share), rounding=1)
    ratios = env.fitted(profile(name, 3).tolist())
    outcome, _ = _episode(env, ratios)
    np.testing.assert_allclose(outcome.actions, ratios)
    assert 0.93 * share < outcome.macs / amc_tf.macs(graph) <= share
    if name != "uniform":
        assert (ratios[0] < ratios[-1]) == (name == "shallow")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"budget": amc_tf.Budget(macs=0.01)}, "smallest reachable is"),
        ({"budget": None}, "needs a budget"),
        ({"budget": amc_tf.Budget(macs=0.5), "reward": "flops"}, "leave the budget out"),
        ({"budget": amc_tf.Budget(macs=0.5), "reward": "speed"}, "one of 'err', 'divergence'"),
        ({"budget": amc_tf.Budget(macs=0.5), "min_preserve": 0.0}, "min_preserve in"),
        ({"budget": amc_tf.Budget(macs=0.5), "min_preserve": [0.5, 1.1, 0.5]}, "min_preserve in"),
        ({"budget": amc_tf.Budget(macs=0.5), "rounding": [8, 8]}, "rounding as one .* or as 3"),
    ],
)
def test_impossible_wishes_are_refused_at_once(graph, arguments, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        _env(graph, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"macs": 0},
        {"macs": -1},
        {"macs": "half"},
        {"latency": 1.5},
        {"latency_ms": 0.0},
        {"latency_ms": float("inf")},
        {"latency": 0.5, "latency_ms": 2.0},
    ],
)
def test_wrong_budgets(arguments):
    with pytest.raises(amc_tf.AmcError, match="budget"):
        amc_tf.Budget(**arguments)


def test_a_model_without_groups_is_refused():
    x = inputs = keras.Input((4,))
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(3)(x)))
    with pytest.raises(amc_tf.AmcError, match="no prunable group"):
        _env(graph, amc_tf.Budget(macs=0.5))


def test_magnitude_keeps_the_channels_that_are_read_most():
    model = zoo.build("plain")
    graph = amc_tf.analyze(model)
    importance = consumer_magnitude(graph)
    name, group = next(iter(graph.groups.items()))
    kernel = np.abs(np.asarray(model.get_layer(group.consumers[0]).kernel)).sum(axis=(0, 1, 3))
    np.testing.assert_allclose(importance[name], kernel / kernel.mean(), rtol=1e-5)
    plan = strongest(importance, {name: 2})
    assert set(plan.keep[name]) == set(np.argsort(kernel)[-2:])


def test_guided_searcher_follows_then_leads():
    class Learner:
        def __init__(self):
            self.seen = []

        def act(self, state):
            return 0.9

        def finish(self, actions, reward):
            self.seen.append((list(actions), reward))
            return {"sigma": 0.1}

    learner = Learner()
    guided = GuidedSearcher(learner, [[0.1, 0.2]])  # no trials around the best
    for reward in (1.0, 2.0):
        actions = [guided.act(None), guided.act(None)]
        assert guided.finish(actions, reward) == {"sigma": 0.1}
    assert learner.seen == [([0.1, 0.2], 1.0), ([0.9, 0.9], 2.0)]
    fixed = FixedSearcher([[0.3], [0.4]])
    for expected in (0.3, 0.4, 0.3):
        assert fixed.act(None) == expected
        assert fixed.finish([expected], 0.0) == {}


def test_guided_searcher_gives_the_model_its_share_of_the_episodes():
    class Constant:
        def __init__(self, action):
            self.action, self.learned = action, []

        def act(self, state):
            return self.action

        def planned(self):
            return [self.action, self.action]

        def finish(self, actions, reward):
            self.learned.append((actions, reward))
            return {}

        learn = finish

    for share, warmup, reward, expected in (
        (0.5, 0, 2.0, "mdmmmdmm"),  # its plans are no better: half as often each time
        (0.5, 0, 3.0, "mdmdmdmd"),
        (0.5, 3, 2.0, "mmmdmmmd"),
        (0.75, 1, 2.0, "mmmdmmmm"),
        (1.0, 0, 3.0, "mmmmmmmm"),
    ):
        learner, model = Constant(0.9), Constant(0.1)
        guided = GuidedSearcher(learner, [[0.2, 0.3]], model, share, warmup)
        played = [([guided.act(None), guided.act(None)], 1.0)]
        assert played == [([0.2, 0.3], 1.0)]
        guided.finish(*played[0])
        for number, letter in enumerate(expected):
            actions = [guided.act(None), guided.act(None)]
            assert actions == ([0.1, 0.1] if letter == "m" else [0.9, 0.9]), (share, number)
            played.append((actions, 2.0 if letter == "m" else reward + number * (reward > 2)))
            guided.finish(*played[-1])
        assert learner.learned == model.learned == played


@pytest.mark.parametrize("rounding", [3, 5, 8, 1000])
@pytest.mark.parametrize("policy", ["fixed", "response"])
def test_strict_rounding_leaves_no_width_that_is_no_multiple(graph, caplog, rounding, policy):
    budget = amc_tf.Budget(macs=0.99)
    widths = [group.channels for group in graph.groups.values()]
    whole = [n for n in widths if not any(m % rounding == 0 for m in range(1, n + 1))]
    problem = channel_problem(graph, rounding=rounding, min_preserve=0.05, strict=True)
    assert problem.dense.tolist() == widths
    assert problem.dense_costs["macs"] == amc_tf.macs(graph)
    assert ("stay whole" in caplog.text) == bool(whole)
    for choices, width in zip(problem.choices, widths, strict=True):
        expected = [m for m in range(1, width + 1) if m % rounding == 0 and m >= 0.05 * width]
        assert choices.tolist() == (expected or [width])
    if len(whole) == len(widths):
        with pytest.raises(amc_tf.AmcError, match="cannot be reached"):
            DecisionEnv(problem, budget)
        return
    env = DecisionEnv(problem, budget)
    searcher = {
        "fixed": lambda: FixedSearcher([[1.0] * len(env), [0.9] * len(env), [0.4] * len(env)]),
        "response": lambda: ResponseSearcher(env, [0.9] * len(env), warmup=1),
    }[policy]()
    for _ in range(3):
        state = env.reset()
        while state is not None:
            state, _ = env.step(searcher.act(state))
        outcome = env.outcome(env.finish(), 0.5)
        searcher.finish(outcome.actions, outcome.reward)
        assert amc_tf.macs(graph, outcome.plan) <= 0.99 * amc_tf.macs(graph)
        for count, width in zip(outcome.counts, widths, strict=True):
            assert count % rounding == 0 or (count == width and width in whole)


def test_strict_rounding_is_a_setting_and_the_whole_width_is_priced():
    graph = amc_tf.analyze(zoo.three_convolutions())
    wishes = amc_tf.SearchSettings(rounding=7, rounding_strict=True)
    problem = problem_of(graph, wishes)
    loose = problem_of(graph, dataclasses.replace(wishes, rounding_strict=False))
    for choices, priced, all_of_them in zip(
        problem.choices, problem.priced, loose.choices, strict=True
    ):
        assert priced.tolist() == all_of_them.tolist()
        assert choices.tolist() == [n for n in all_of_them.tolist() if n % 7 == 0]


def test_a_ratio_of_zero_keeps_the_least(graph):
    env = _env(graph, amc_tf.Budget(macs=0.5), rounding=1)
    least, dense = env.problem.least, env.problem.dense
    kept = np.rint(np.array(env.fitted([0, 1, 1])) * dense)
    assert kept[0] == least[0] and (kept[1:] > least[1:]).all() and env.meets(kept)
    assert env.fitted([0, 0, 0]) == (least / dense).tolist()


def test_a_budget_that_cannot_be_reached_names_the_layer_that_holds_most():
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 1, name="first")(x)  # of 8 channels it keeps 1: 64 * 3 * 1 MACs
    x = kl.Conv2D(4, 1, name="second")(x)  # 64 * 1 * 4
    x = zoo.Unlisted(16, name="stays")(x)  # 64 * 4 * 16
    graph = amc_tf.analyze(keras.Model(inputs, x))
    told = r"reachable is 4,544 .*, the largest part, 4,096 MACs, in 'stays';"
    with pytest.raises(amc_tf.AmcError, match=told):
        _env(graph, amc_tf.Budget(macs=0.01), rounding=1, min_preserve=0.1)
