"""Corrections of a plan: what the searcher behind sees, is told, and what is executed."""

import numpy as np
import pytest
import zoo

import amc_tf
from amc_tf.search.agents.correction import NUM_KNOWN, CorrectingSearcher
from amc_tf.search.agents.ddpg.process import DdpgSearcher
from amc_tf.search.agents.ddpg.settings import DdpgSettings
from amc_tf.search.agents.guided import GuidedSearcher
from amc_tf.search.agents.knapsack import knapsack
from amc_tf.search.agents.priced_plan import advantages
from amc_tf.search.agents.response_surface import ResponseSearcher
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem


class Recorder:
    """A searcher that always proposes the same action, and records what it is told."""

    def __init__(self, action=0.5):
        self.action, self.states, self.finished = action, [], []

    def act(self, state):
        self.states.append(np.array(state))
        return self.action

    def finish(self, actions, reward):
        self.finished.append((list(actions), reward))
        return {"told": float(len(self.finished))}


class Model:
    """A model of the reward that always proposes one plan."""

    def __init__(self, plan, worth=None):
        self.plan, self.worth = plan, worth

    def planned(self):
        return self.plan


@pytest.fixture(scope="module")
def problem():
    return channel_problem(amc_tf.analyze(zoo.three_convolutions((48, 64, 40))), rounding=1)


@pytest.fixture
def env(problem):
    return DecisionEnv(problem, amc_tf.Budget(macs=0.5))


@pytest.fixture
def plan(env):
    return env.fitted([1.0, 0.8, 0.9])


def _losses(env):
    return [10.0 ** np.linspace(0, -2, len(a)) * (t + 1) for t, a in enumerate(env.choices)]


def _worth(env):
    return [-loss for loss in _losses(env)]


def _play(env, searcher, actions=None, reward=0.5):
    state, t = env.reset(), 0
    while state is not None:
        proposed = searcher.act(state)
        state, _ = env.step(proposed if actions is None else actions[t])
        t += 1
    decided = env.finish()
    return decided, searcher.finish(decided.actions, reward)


def test_the_middle_is_the_plan_and_the_ends_lose_a_part_of_the_best_reward(env, plan):
    worth, dense = _worth(env), env.problem.dense
    tables = advantages(env, worth, env.filled(plan))
    for action in (0.0, 0.25, 0.5, 0.75, 1.0):
        searcher = CorrectingSearcher(
            Recorder(action), env, _losses(env), Model(plan, worth), risk=0.06
        )
        _play(env, searcher, plan, reward=-2.0)
        proposed = [searcher.act(np.zeros(11, np.float32)) for _ in env.choices]
        if action == 0.5:
            np.testing.assert_allclose(proposed, plan)
        for t, ratio in enumerate(proposed):
            lost = np.interp(ratio * dense[t], env.choices[t], tables[t])
            if action in (0.0, 1.0) and env.choices[t][0] < ratio * dense[t] < dense[t]:
                assert lost == pytest.approx(-0.06 * 2.0 / 3)
            assert lost >= -0.06 * 2.0 / 3 - 1e-9
            assert (ratio - plan[t]) * (action - 0.5) >= 0


def test_what_was_executed_is_told_as_the_correction_that_leads_to_it(env, plan):
    behind, worth = Recorder(0.6), _worth(env)
    searcher = CorrectingSearcher(behind, env, _losses(env), Model(plan, worth), risk=0.9)
    _play(env, searcher, plan, reward=-2.0)
    decided, told = _play(env, searcher, reward=-2.5)
    assert told == {"told": 2.0}
    np.testing.assert_allclose(behind.finished[0][0], 0.5)  # the plan itself
    corrections, earned = behind.finished[1]
    assert len(earned) == len(plan)
    for t, (correction, executed) in enumerate(zip(corrections, decided.actions, strict=True)):
        again = CorrectingSearcher(
            Recorder(correction), env, _losses(env), Model(plan, worth), risk=0.9
        )
        _play(env, again, plan, reward=-2.0)
        proposed = [again.act(np.zeros(11, np.float32)) for _ in env.choices]
        assert proposed[t] == pytest.approx(executed)


def test_states_say_what_is_known_of_the_group(env, plan):
    behind, losses = Recorder(), _losses(env)
    _play(env, CorrectingSearcher(behind, env, losses, Model(plan)))
    for t, state in enumerate(behind.states):
        assert state.shape == (11 + NUM_KNOWN,) and state.dtype == np.float32
        assert (state >= 0).all() and (state <= 1).all()
        assert state[11] == pytest.approx(plan[t])
        half = np.interp(0.5 * env.problem.dense[t], env.choices[t], losses[t])
        assert state[13] == pytest.approx(np.sqrt(half / 3.0))  # 3 is the largest loss of all


def test_at_the_best_plan_every_other_count_earns_less(env):
    """Convex losses and one group of middling price: the knapsack's plan is the best by them."""
    best = env.filled(knapsack(env, _losses(env)))
    tables = advantages(env, _worth(env), best)
    for table, allowed, n in zip(tables, env.choices, best, strict=True):
        at = int(np.searchsorted(allowed, n))
        assert table[at] == 0
        # A count is as good as its neighbours there, up to the rounding of prices.
        assert np.max(table) <= 0.02 * np.ptp(table)


def test_the_price_is_the_median_of_what_groups_lose_for_what_they_save(env):
    counts = np.array([24, 32, 20])
    tables = advantages(env, [np.zeros(len(a)) for a in env.choices], counts)
    assert all((table == 0).all() for table in tables)  # nothing is worth anything: no price
    worth = [np.asarray(a, float) * k for a, k in zip(env.choices, (1.0, 5.0, 2.0), strict=True)]
    cost = env.costs["macs"]
    slopes = []
    for t, allowed in enumerate(env.choices):
        ends = [np.where(np.arange(3) == t, end, counts) for end in (allowed[0], allowed[-1])]
        slopes.append((cost(ends[1]) - cost(ends[0])) / (allowed[-1] - allowed[0]))
    price = np.median([k / slope for k, slope in zip((1.0, 5.0, 2.0), slopes, strict=True)])
    for table, allowed, k, slope, n in zip(
        advantages(env, worth, counts), env.choices, (1.0, 5.0, 2.0), slopes, counts, strict=True
    ):
        np.testing.assert_allclose(table, (k - price * slope) * (allowed - n), atol=1e-9)


def test_each_decision_is_told_its_advantage_and_its_share_of_the_surprise(env, plan):
    behind, worth = Recorder(0.7), [table / 10 for table in _worth(env)]
    searcher = CorrectingSearcher(
        behind, env, _losses(env), Model(plan, worth), demonstrations=1, risk=0.6
    )
    _play(env, searcher, plan, reward=-1.0)
    first, _ = _play(env, searcher, reward=-1.2)
    second, _ = _play(env, searcher, reward=-1.5)
    assert first.counts == second.counts
    tables = advantages(env, worth, env.filled(plan))
    counts = np.rint(np.array(first.actions) * env.problem.dense)
    expected = np.array(
        [t[np.searchsorted(a, n)] for t, a, n in zip(tables, env.choices, counts, strict=True)]
    )
    unit = 0.6 * 1.0 / 3  # what each of three decisions may lose of the best reward, -1
    np.testing.assert_allclose(behind.finished[0][1], expected / unit)
    # The model foresaw both alike: the second was 0.3 worse, half of which is unusual by now.
    shared = (expected - 0.3 / 2 / 3) / unit
    np.testing.assert_allclose(behind.finished[1][1], shared)
    assert np.abs(shared).max() < 3  # none is cut


def test_what_earned_far_too_little_is_told_as_a_bounded_loss(env, plan):
    behind = Recorder()
    searcher = CorrectingSearcher(behind, env, _losses(env), Model(plan, _worth(env)))
    _play(env, searcher, plan, reward=-0.001)
    least = [float(a[0] / n) for a, n in zip(env.choices, env.problem.dense, strict=True)]
    _play(env, searcher, least, reward=-0.001)
    assert min(behind.finished[1][1]) == -3


def test_demonstrations_are_not_told_and_imagined_episodes_follow_them(env, plan):
    behind = Recorder(0.55)
    searcher = CorrectingSearcher(
        behind, env, _losses(env), Model(plan), demonstrations=2, imagined=30, refreshed=2
    )
    for given in ([1.0, 0.5, 0.7], [0.6, 1.0, 0.8]):
        assert not behind.finished
        _play(env, searcher, env.fitted(given), -1.0)
    assert len(behind.finished) == 30
    corrections = np.array([told for told, _ in behind.finished])
    assert np.ptp(corrections, axis=0).min() > 0.5  # random, not the searcher's own
    _play(env, searcher)
    assert len(behind.finished) == 30 + 1 + 2


def test_without_a_draw_the_losses_are_worth_what_the_best_reward_says(env, plan):
    behind, losses = Recorder(0.6), _losses(env)
    searcher = CorrectingSearcher(behind, env, losses, Model(plan))
    decided, _ = _play(env, searcher, reward=-2.0)
    searcher.act(env.reset())
    scale = 2.0 / env.total(losses, decided.counts)
    expected = advantages(env, [-scale * loss for loss in losses], env.filled(plan))
    for table, wanted in zip(searcher._advantages, expected, strict=True):
        np.testing.assert_allclose(table, wanted)


def test_the_agent_stays_with_a_plan_that_the_model_is_right_about(env):
    """An actor that learnt a wrong price keeps everything of the first groups, or nothing."""
    losses = _losses(env)
    settings = DdpgSettings(
        hidden_units=(64, 64), warmup_episodes=0, learning_starts=0, decay_episodes=1
    )
    best = env.filled(knapsack(env, losses))
    unit = env.total(losses, best)
    with DdpgSearcher(settings, 11 + NUM_KNOWN, seed=0) as agent:
        model = ResponseSearcher(env, knapsack(env, losses), losses, seed=0)
        corrects = CorrectingSearcher(agent, env, losses, model, 1, imagined=200, seed=0)
        searcher = GuidedSearcher(corrects, [knapsack(env, losses)], model, 0.0, 1)
        rewards = []
        for _ in range(12):
            state = env.reset()
            while state is not None:
                state, _ = env.step(searcher.act(state))
            decided = env.finish()
            rewards.append(-env.total(losses, decided.counts) / unit)
            searcher.finish(decided.actions, rewards[-1])
    assert rewards[0] == pytest.approx(-1)
    assert np.median(rewards[4:]) > -1.3
