"""Corrections of a plan: what the searcher behind sees, and what is executed."""

import numpy as np
import pytest
import zoo

import amc_tf
from amc_tf.search.agents.correction import NUM_KNOWN, CorrectingSearcher
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


@pytest.fixture(scope="module")
def problem():
    return channel_problem(amc_tf.analyze(zoo.three_convolutions((48, 64, 40))), rounding=1)


@pytest.fixture
def env(problem):
    return DecisionEnv(problem, amc_tf.Budget(macs=0.5))


def _losses(env):
    return [10.0 ** np.linspace(0, -2, len(a)) * (t + 1) for t, a in enumerate(env.choices)]


def _lost(env, actions):
    parts = zip(env.choices, env.filled(actions), _losses(env), strict=True)
    return sum(float(loss[np.searchsorted(allowed, n)]) for allowed, n, loss in parts)


def _play(env, searcher, actions=None, reward=0.5):
    state, t = env.reset(), 0
    while state is not None:
        proposed = searcher.act(state)
        state, _ = env.step(proposed if actions is None else actions[t])
        t += 1
    decided = env.finish()
    return decided, searcher.finish(decided.actions, reward)


def test_the_middle_is_the_plan_and_the_ends_are_the_factor(env):
    plan = env.fitted([1.0, 0.8, 0.9])
    for action, factor in ((0.5, 1.0), (0.0, 1 / 1.25), (1.0, 1.25)):
        searcher = CorrectingSearcher(Recorder(action), env, _losses(env), plan)
        proposed = [searcher.act(np.zeros(11, np.float32)) for _ in env.choices]
        np.testing.assert_allclose(proposed, np.minimum(1, np.array(plan) * factor))


def test_what_was_executed_is_told_as_the_correction_that_leads_to_it(env):
    plan, behind = env.fitted([1.0, 0.8, 0.9]), Recorder(0.6)
    searcher = CorrectingSearcher(behind, env, _losses(env), plan, factor=4.0)
    decided, told = _play(env, searcher, reward=0.25)
    assert told == {"told": 1.0}
    (corrections, reward), executed = behind.finished[0], np.array(decided.actions)
    assert reward == 0.25
    again = np.array(plan) * 4.0 ** (2 * np.array(corrections) - 1)
    np.testing.assert_allclose(again, executed, rtol=1e-6)


def test_states_say_what_is_known_of_the_group(env):
    plan, behind, losses = env.fitted([1.0, 0.8, 0.9]), Recorder(), _losses(env)
    searcher = CorrectingSearcher(behind, env, losses, plan)
    _play(env, searcher)
    for t, state in enumerate(behind.states):
        assert state.shape == (11 + NUM_KNOWN,) and state.dtype == np.float32
        assert (state >= 0).all() and (state <= 1).all()
        assert state[11] == pytest.approx(plan[t])
        half = np.interp(0.5 * env.problem.dense[t], env.choices[t], losses[t])
        assert state[13] == pytest.approx(np.sqrt(half / 3.0))  # 3 is the largest loss of all


def test_the_best_demonstration_is_corrected_and_all_are_told(env):
    plans = [env.fitted(a) for a in ([1.0, 0.5, 0.7], [0.6, 1.0, 0.8])]
    behind = Recorder()
    searcher = CorrectingSearcher(behind, env, _losses(env), plans[0], demonstrations=2)
    for plan, reward in zip(plans, (0.3, 0.6), strict=True):
        decided, _ = _play(env, searcher, plan, reward)
    assert [reward for _, reward in behind.finished] == [0.3, 0.6]
    np.testing.assert_allclose(behind.finished[1][0], 0.5)  # no correction of itself
    best = decided.actions
    np.testing.assert_allclose([searcher.act(np.zeros(11, np.float32)) for _ in plans[0]], best)


def test_imagined_rewards_are_those_that_the_losses_predict(env):
    behind = Recorder(0.55)
    plans = [env.fitted(a) for a in ([1.0, 0.5, 0.7], [0.6, 1.0, 0.8])]
    searcher = CorrectingSearcher(
        behind, env, _losses(env), plans[0], demonstrations=2, imagined=3, factor=4.0
    )
    played = [_play(env, searcher, p, 0.9 - 0.1 * _lost(env, p))[0].actions for p in plans]
    assert len(behind.finished) == 2 + 3
    best = min(played, key=lambda actions: _lost(env, actions))
    for corrections, reward in behind.finished[2:]:
        actions = np.array(best) * 4.0 ** (2 * np.array(corrections) - 1)
        actions = np.rint(actions * env.problem.dense) / env.problem.dense
        assert reward == pytest.approx(0.9 - 0.1 * _lost(env, actions))


@pytest.mark.parametrize("known", [1, 2])
def test_where_no_slope_is_known_it_is_that_to_no_loss(env, known):
    """One plan, or two of which the one that loses more is the better."""
    behind = Recorder(0.55)
    plans = [env.fitted(a) for a in ([1.0, 0.5, 0.7], [0.6, 1.0, 0.8])][:known]
    searcher = CorrectingSearcher(behind, env, _losses(env), plans[0], known, 3, factor=4.0)
    lost = [_lost(env, plan) for plan in plans]
    rewards = [-1.0 if at == max(lost) else -1.5 for at in lost]
    for plan, reward in zip(plans, rewards, strict=True):
        _play(env, searcher, plan, reward)
    assert len(behind.finished) == known + 3
    best = plans[int(np.argmax(rewards))]
    for corrections, reward in behind.finished[known:]:
        actions = np.array(best) * 4.0 ** (2 * np.array(corrections) - 1)
        actions = np.rint(actions * env.problem.dense) / env.problem.dense
        assert reward == pytest.approx(-_lost(env, actions) / max(lost))
