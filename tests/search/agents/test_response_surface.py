"""The model of the reward, and what it proposes."""

import itertools

import numpy as np
import pytest
import zoo

import amc_tf
from amc_tf.search.agents import response_surface
from amc_tf.search.agents.priced_plan import propose
from amc_tf.search.agents.random import RandomSearcher
from amc_tf.search.agents.response_surface import Features, ResponseModel, ResponseSearcher
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem

# Loss of accuracy of each group where all of it is pruned: by the share, and by its square.
CURVES = -np.array([[0.05, 0.2, 0.1], [0.6, 0.3, 0.5]])


def additive(ratios):
    pruned = 1 - np.asarray(ratios)
    return 0.9 + float((CURVES[0] * pruned + CURVES[1] * pruned**2).sum())


@pytest.fixture(scope="module")
def graph():
    return amc_tf.analyze(zoo.three_convolutions())


def environment(graph, rounding=2):
    return DecisionEnv(channel_problem(graph, rounding=rounding), amc_tf.Budget(macs=0.5))


def best_of_all(env):
    dense = np.array([choices[-1] for choices in env.choices])
    return max(additive(c / dense) for c in itertools.product(*env.choices) if env.meets(c))


def play(env, searcher, episodes):
    outcomes = []
    for _ in range(episodes):
        state = env.reset()
        while state is not None:
            state, _ = env.step(searcher.act(state))
        decided = env.finish()
        accuracy = additive(decided.counts / env.problem.dense)
        outcomes.append(env.outcome(decided, accuracy))
        searcher.finish(outcomes[-1].actions, outcomes[-1].reward)
    return outcomes


def test_the_best_plan_of_known_curves_is_that_of_all_plans(graph):
    env = environment(graph)
    dense = np.array([choices[-1] for choices in env.choices])
    worth = [a * p + b * p**2 for a, b, p in zip(*CURVES, _pruned(env), strict=True)]
    start = np.array(env.fitted([1.0, 1.0, 1.0]))
    for _ in range(4):
        start = np.array(propose(env, worth, start))
        assert env.meets(np.rint(start * dense))
    assert additive(start) == pytest.approx(best_of_all(env), abs=0.005)
    assert additive(start) > additive(env.fitted([1.0, 1.0, 1.0])) + 0.01


def test_a_search_ends_close_to_the_best_of_all_plans(graph):
    for seed in range(3):
        env = environment(graph)
        searcher = ResponseSearcher(env, env.fitted([1.0, 1.0, 1.0]), seed=seed)
        outcomes = play(env, searcher, 30)
        assert max(o.score for o in outcomes) == pytest.approx(best_of_all(env), abs=0.01)
        random = play(env, RandomSearcher(seed), 30)
        late = np.mean([o.score for o in outcomes[15:]])
        assert late > np.mean([o.score for o in random[15:]]) + 0.01


def test_draws_close_in_on_the_curves():
    rng = np.random.default_rng(0)
    features = Features([np.arange(20, 101)] * 3, np.full(3, 100))
    spreads = []
    for count in (20, 400):
        model = ResponseModel()
        for _ in range(count):
            counts = rng.integers(20, 101, 3)
            model.add(features.of(counts), additive(counts / 100) + 0.003 * rng.normal())
        draws = np.stack([features.worth(model.draw(rng)) for _ in range(50)])
        spreads.append(draws[:, :, 30].std(axis=0).mean())
        assert len(model) == count
    assert spreads[1] < spreads[0] / 2
    # What a curve says of pruning half of a group.
    half = draws[:, :, 30].mean(axis=0)
    np.testing.assert_allclose(half, CURVES[0] * 0.5 + CURVES[1] * 0.25, atol=0.02)


def test_losses_known_beforehand_are_worth_the_same_in_all_groups_at_first(graph):
    """Two episodes cannot tell the groups apart; what was known beforehand does."""
    env = environment(graph)
    losses = [-(a * p + b * p**2) for a, b, p in zip(*CURVES, _pruned(env), strict=True)]
    features = Features(env.choices, env.problem.dense, losses)
    model = ResponseModel()
    for ratios in ([1.0, 1.0, 1.0], [0.5, 0.75, 1.0]):
        counts = np.rint(np.array(env.fitted(ratios)) * env.problem.dense)
        model.add(features.of(counts), additive(counts / env.problem.dense))
    rng = np.random.default_rng(0)
    worth = np.mean([np.concatenate(features.worth(model.draw(rng))) for _ in range(200)], axis=0)
    assert np.corrcoef(worth, -np.concatenate(losses))[0, 1] > 0.95


def _pruned(env):
    return [1 - choices / choices[-1] for choices in env.choices]


def test_the_same_seed_proposes_the_same(graph):
    runs = []
    for seed in (1, 1, 2):
        env = environment(graph)
        searcher = ResponseSearcher(env, env.fitted([1.0, 1.0, 1.0]), seed=seed)
        runs.append([outcome.counts for outcome in play(env, searcher, 14)])
    assert runs[0] == runs[1] != runs[2]


def test_what_is_left_out_is_predicted_by_the_others():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=9)
    penalty = 0.7
    expected = 0.0
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        a = x[others].T @ x[others] + penalty * np.eye(4)
        expected += (y[i] - x[i] @ np.linalg.solve(a, x[others].T @ y[others])) ** 2
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    assert response_surface._left_out(u, s, u.T @ y, y, penalty) == pytest.approx(expected)


def test_the_best_plan_within_a_staircase_is_found():
    """No count between two edges is worth having, and the next edge is far."""
    graph = amc_tf.analyze(zoo.three_convolutions((48, 64, 40)))

    def latency(counts):
        counts = np.asarray(counts)
        return float((-(-counts // 16) * np.where(counts % 16, 1.1, 1.0)).sum())

    problem = channel_problem(graph, rounding=2).with_latency(latency)
    env = DecisionEnv(problem, amc_tf.Budget(latency=0.6))
    searcher = ResponseSearcher(env, env.fitted([1.0, 1.0, 1.0]))
    outcomes = play(env, searcher, 30)
    assert max(outcome.score for outcome in outcomes) == pytest.approx(best_of_all(env), abs=0.01)


def test_where_the_model_is_sure_it_still_tries_other_plans(graph):
    env = environment(graph, rounding=1)
    searcher = ResponseSearcher(env, env.fitted([1.0, 1.0, 1.0]))
    assert len({outcome.counts for outcome in play(env, searcher, 30)}) >= 15


def test_a_worse_start_may_lead_to_the_better_plan():
    """Around the better start all is flat; the worse one lies beside a peak."""
    graph = amc_tf.analyze(zoo.three_convolutions((48, 64, 40)))
    env = DecisionEnv(channel_problem(graph, rounding=2), amc_tf.Budget(macs=0.5))
    broad, beside, peak = (
        np.array(env.fitted(r)) for r in ([0.3, 1.0, 1.0], [1.0, 0.5, 0.5], [1.0, 0.3, 1.0])
    )

    def reward(ratios):
        far = [np.square(np.asarray(ratios) - at).sum() for at in (broad, peak)]
        return max(0.6 - 0.1 * far[0], 0.9 - 1.5 * far[1])

    assert reward(beside) < reward(broad) < reward(peak)

    def best(others):
        found = []
        for seed in range(3):
            searcher = ResponseSearcher(env, broad.tolist(), seed=seed, warmup=3, others=others)
            found.append(max(reward(o.actions) for o in played(searcher)))
        return found

    def played(searcher):
        for _ in range(30):
            state = env.reset()
            while state is not None:
                state, _ = env.step(searcher.act(state))
            outcome = env.outcome(decided := env.finish(), reward(env_ratios(decided)))
            searcher.finish(outcome.actions, outcome.score)
            yield outcome

    def env_ratios(decided):
        return decided.counts / env.problem.dense

    assert max(best([])) < 0.65
    assert min(best([beside.tolist()])) > 0.8
