"""The searchers: that they learn, repeat themselves, fail in plain words and leave Keras alone."""

import concurrent.futures
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import scipy.stats

import amc_tf
from amc_tf.errors import AmcError
from amc_tf.search.agents.base import Searcher
from amc_tf.search.agents.ddpg import process
from amc_tf.search.agents.ddpg.exploration import truncated_normal
from amc_tf.search.agents.ddpg.process import AgentError, DdpgSearcher
from amc_tf.search.agents.ddpg.settings import DdpgSettings
from amc_tf.search.agents.random import RandomSearcher

SMALL = DdpgSettings(hidden_units=(16, 16), batch_size=8, warmup_episodes=2)


@pytest.fixture(autouse=True)
def agents_of_their_own(monkeypatch):
    """Starts agents as users do: other tests fork them."""
    monkeypatch.setattr(process, "subprocess", subprocess)


class Targets:
    """An environment whose optimum is known: each step's target is one of its features.

    The reward is 1 minus the weighted mean of the squared distances, 1 at the optimum.
    """

    num_features = 5

    def __init__(self, steps: int, seed: int):
        random = np.random.default_rng(seed)
        self._layers = random.random((steps, 3))
        self._targets = 0.1 + 0.8 * self._layers[:, 0]
        weights = random.uniform(0.5, 1.5, steps)
        self._weights = weights / weights.sum()

    def episode(self, searcher: Searcher) -> tuple[list[float], float]:
        actions = []
        for step, layer in enumerate(self._layers):
            last = actions[-1] if actions else 1.0
            state = np.array([step / len(self._layers), *layer, last], np.float32)
            actions.append(searcher.act(state))
        distances = (np.array(actions) - self._targets) ** 2
        reward = 1.0 - float(self._weights @ distances)
        searcher.finish(actions, reward)
        return actions, reward


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs code in a fresh interpreter that finds amc_tf."""
    root = str(pathlib.Path(amc_tf.__path__[0]).parent)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_ddpg_beats_random():
    episodes = 150
    settings = DdpgSettings().over(episodes)

    def rewards(seed: int, searcher: Searcher) -> np.ndarray:
        environment = Targets(steps=8, seed=seed + 10)
        return np.array([environment.episode(searcher)[1] for _ in range(episodes)])

    def learn(seed: int) -> np.ndarray:
        with DdpgSearcher(settings, Targets.num_features, seed) as searcher:
            return rewards(seed, searcher)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        curves = list(threads.map(learn, range(3)))
    for seed, learned in enumerate(curves):
        drawn = rewards(seed, RandomSearcher(seed))
        assert max(learned) > max(drawn)
        # The optimum is 1: the policy learned is less than half as far from it as chance.
        assert 1.0 - np.mean(learned[-20:]) < 0.5 * (1.0 - np.mean(drawn[-20:]))


@pytest.mark.slow
def test_same_seed_same_actions_in_fresh_processes():
    searchers = [DdpgSearcher(SMALL, Targets.num_features, seed=7) for _ in range(2)]
    runs = []
    for searcher in searchers:
        environment = Targets(steps=6, seed=0)
        with searcher:
            runs.append([environment.episode(searcher)[0] for _ in range(12)])
    assert runs[0] == runs[1]


def test_ctrl_c_is_ignored_and_a_killed_child_is_told():
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0)
    searcher.act(np.zeros(3, np.float32))
    os.kill(searcher.pid, signal.SIGINT)
    assert 0.0 <= searcher.act(np.zeros(3, np.float32)) <= 1.0
    os.kill(searcher.pid, signal.SIGKILL)
    with pytest.raises(AgentError, match="SIGKILL"):
        searcher.act(np.zeros(3, np.float32))
    assert issubclass(AgentError, AmcError)
    with pytest.raises(AgentError, match="closed"):
        searcher.act(np.zeros(3, np.float32))
    with pytest.raises(ProcessLookupError):  # Not even a zombie is left.
        os.kill(searcher.pid, 0)


def test_killed_child_before_it_is_up(tmp_path):
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0, log_path=tmp_path / "agent.log")
    os.kill(searcher.pid, signal.SIGKILL)
    with pytest.raises(AgentError, match="SIGKILL"):
        searcher.act(np.zeros(3, np.float32))


def test_exception_in_child_comes_with_its_traceback():
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0)
    with pytest.raises(
        AgentError, match=r"raised ValueError: Expected features in \[0, 1\].*nan"
    ) as e:
        searcher.act(np.array([0.0, np.nan, 0.0]))
    assert "Traceback" in str(e.value.__cause__) and "\n" not in str(e.value)


def test_exit_code_and_log_of_a_child_that_cannot_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(AgentError, match="exit code 1.*log is empty"):
        DdpgSearcher(SMALL, num_features=3, seed=0).act(np.zeros(3))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(AgentError, match="could not be started"):
        DdpgSearcher(SMALL, num_features=3, seed=0)


def test_import_error_in_child_is_told(tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('this one is broken')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AgentError, match=r"raised ImportError: this one is broken"):
        DdpgSearcher(SMALL, num_features=3, seed=0).act(np.zeros(3))


def test_start_timeout():
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0, start_timeout=0.05)
    with pytest.raises(AgentError, match="did not come up within 0.05 s"):
        searcher.act(np.zeros(3, np.float32))


def test_a_stopped_child_is_noticed_and_ended():
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0, reply_timeout=1.5)
    searcher.act(np.zeros(3, np.float32))
    os.kill(searcher.pid, signal.SIGSTOP)
    before = time.monotonic()
    with pytest.raises(AgentError, match="did not answer within 1.5 s, as it was stopped"):
        searcher.act(np.zeros(3, np.float32))
    assert 1.5 <= time.monotonic() - before < 10.0
    with pytest.raises(ProcessLookupError):
        os.kill(searcher.pid, 0)


def test_close_is_quick_and_leaves_nothing_behind():
    before = time.monotonic()
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0)
    searcher.close()
    searcher.close()
    forgotten = DdpgSearcher(SMALL, num_features=3, seed=0)
    pid = forgotten.pid
    del forgotten
    assert time.monotonic() - before < 10.0
    for number in (searcher.pid, pid):
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def _runs(pid: int) -> bool:
    # Where nobody reaps orphans, an ended one stays as a zombie.
    status = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_parent_keeps_keras_3_and_child_ends_with_its_parent():
    result = python(
        """
        import os, sys
        import amc_tf.search.agents.ddpg.process, amc_tf.search.agents.base
        assert not {"tensorflow", "keras", "tf_agents"} & set(sys.modules), "heavy import"
        import numpy as np
        from amc_tf.search.agents.ddpg.process import DdpgSearcher
        from amc_tf.search.agents.ddpg.settings import DdpgSettings
        searcher = DdpgSearcher(DdpgSettings(hidden_units=(4, 4)), 2, seed=0)
        searcher.act(np.zeros(2))
        searcher.finish([0.5], 1.0)
        import tensorflow as tf
        assert tf.keras.__version__.startswith("3."), tf.keras.__version__
        assert "tf_agents" not in sys.modules
        print(searcher.pid, flush=True)
        os._exit(0)  # Like a crash: nothing is closed.
        """
    )
    assert result.returncode == 0, result.stderr
    pid = int(result.stdout)
    deadline = time.monotonic() + 20.0
    while _runs(pid):
        assert time.monotonic() < deadline, "the agent outlived its parent"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def learner_facts() -> dict:
    """What the learner itself shows, looked at in a process where it can be imported."""
    result = python(
        """
        import json, numpy as np, tensorflow as tf
        from amc_tf.search.agents.ddpg.learner import DdpgLearner
        from amc_tf.search.agents.ddpg.settings import DdpgSettings

        def play(learner, decisions, rewards):
            random = np.random.default_rng(0)
            for reward in rewards:
                actions = [learner.act(random.random(3)) for _ in range(decisions)]
                yield learner.finish(actions, reward)

        facts = {}
        for name, settings in {
            "warming": DdpgSettings(hidden_units=(5, 4), batch_size=4, warmup_episodes=2),
            "filling": DdpgSettings(hidden_units=(5, 4), batch_size=15, warmup_episodes=0),
        }.items():
            learner = DdpgLearner(settings, num_features=3, seed=0)
            facts[name] = list(play(learner, 6, (0.5, 0.7, 0.3, 0.9)))

        learner.act(np.zeros(3))
        try:
            learner.finish([0.5, 0.5], 1.0)
        except ValueError as error:
            facts["error"] = str(error)

        settings = DdpgSettings(hidden_units=(5, 4), batch_size=16, gamma=0.9, warmup_episodes=9)
        learner = DdpgLearner(settings, num_features=3, seed=0)
        agent = learner.agent
        # Untrained outputs are all but alike; larger last layers make a wrong target visible.
        for network in (agent._actor_network, agent._critic_network):
            network.variables[-2].assign(network.variables[-2] * 300)
        agent.initialize()
        list(play(learner, 3, (0.5, 0.8)))
        batch = learner.sample(tf.constant(0.25))
        after = batch.next_time_step
        loss = agent.critic_loss(batch.time_step, batch.action_step.action, after)
        facts["batch"] = {
            "loss": float(loss),
            "state": batch.time_step.observation.numpy().tolist(),
            "action": batch.action_step.action.numpy().tolist(),
            "reward": after.reward.numpy().tolist(),
            "discount": after.discount.numpy().tolist(),
            "next_state": after.observation.numpy().tolist(),
            "actor": [v.numpy().tolist() for v in agent._target_actor_network.variables],
            "critic": [v.numpy().tolist() for v in agent._target_critic_network.variables],
        }

        small = dict(hidden_units=(5, 4), batch_size=64, warmup_episodes=2, sigma=0.01)
        for name, options in {
            "every": {}, "last": {"reward_every_step": False}, "plain": {"baseline": False},
            "centred": {"warmup_centre": 0.9},
        }.items():
            learner = DdpgLearner(DdpgSettings(**small, **options), num_features=3, seed=0)
            actions = []
            for reward in (0.5, 0.8, 0.5):
                actions.append([learner.act(np.full(3, 0.5)) for _ in range(3)])
                if reward != 0.5 or len(actions) == 1:
                    learner.finish(actions[-1], reward)
            batch = learner.sample(tf.constant(0.25)).next_time_step
            facts[name] = {
                "reward": batch.reward.numpy().tolist(),
                "discount": batch.discount.numpy().tolist(),
                "actions": actions,
            }
        learner = DdpgLearner(DdpgSettings(**small), num_features=3, seed=0)
        told = list(play(learner, 3, ([0.5, -0.25, 0.125],)))
        batch = learner.sample(tf.constant(told[0]["baseline"])).next_time_step
        facts["alone"] = {
            "reward": batch.reward.numpy().tolist(),
            "discount": batch.discount.numpy().tolist(),
        }
        learner.act(np.zeros(3))
        try:
            learner.finish([0.5], [1.0, 2.0])
        except ValueError as error:
            facts["parts"] = str(error)

        wild = DdpgSettings(
            hidden_units=(5, 4), batch_size=2, warmup_episodes=0, critic_learning_rate=1e38
        )
        learner = DdpgLearner(wild, num_features=3, seed=0)
        try:
            list(play(learner, 3, (0.5, 0.8) * 3))
        except ValueError as error:
            facts["diverged"] = str(error)
        print(json.dumps(facts))
        """,
        TF_USE_LEGACY_KERAS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


# Six decisions an episode: the first waits for the end of its two warm-up episodes, the second
# for a batch of 15 transitions.
@pytest.mark.parametrize("name", ["warming", "filling"])
def test_diagnostics_and_when_training_begins(learner_facts, name):
    reports = learner_facts[name]
    # The first reward stands for the empty average, later ones enter with weight 0.05.
    assert [r["baseline"] for r in reports] == pytest.approx([0.5, 0.5, 0.51, 0.4995])
    for loss in ("actor_loss", "critic_loss"):
        assert [np.isfinite(r[loss]) for r in reports] == [False, False, True, True]
    assert reports[0]["sigma"] == 0.5
    assert (reports[2]["sigma"] == 0.5) == (name == "warming")
    assert reports[3]["sigma"] < 0.5


def test_one_action_for_each_decision(learner_facts):
    assert "one action for each call of act, 1 " in learner_facts["error"]
    assert "shape (2,)" in learner_facts["error"]


def test_what_actions_earned_alone_is_all_that_is_learnt_of_them(learner_facts):
    facts = learner_facts["alone"]
    assert set(facts["reward"]) == {0.5, -0.25, 0.125}  # no baseline is subtracted
    assert set(facts["discount"]) == {0.0}
    assert "a finite reward, or 1 of them, received [1.0, 2.0]" in learner_facts["parts"]


def test_training_that_diverges_is_told(learner_facts):
    assert "training diverged; scale the rewards (this one is 0." in learner_facts["diverged"]


def test_critic_target_by_hand(learner_facts):
    """y = r - b + gamma * Q'(s', mu'(s')), with the networks computed in NumPy."""
    batch = learner_facts["batch"]
    actor = [np.array(value) for value in batch["actor"]]
    critic = [np.array(value) for value in batch["critic"]]
    state, action, reward, discount, next_state = (
        np.array(batch[key]) for key in ("state", "action", "reward", "discount", "next_state")
    )

    def hidden(x, weight, bias):
        return np.maximum(x @ weight + bias, 0.0)

    def mu(x):
        x = hidden(hidden(x, *actor[0:2]), *actor[2:4])
        return 1.0 / (1.0 + np.exp(-2.0 * (x @ actor[4] + actor[5])))

    def q(x, a):
        x = np.concatenate([hidden(x, *critic[0:2]), a], axis=1)
        return (hidden(x, *critic[2:4]) @ critic[4] + critic[5])[:, 0]

    assert set(np.round(reward, 6)) == {0.25, 0.55}  # 0.5 and 0.8, each less 0.25.
    assert set(discount) == {0.0, 1.0}
    target = reward + 0.9 * discount * q(next_state, mu(next_state))
    assert np.std(q(next_state, mu(next_state))) > 0.01
    assert batch["loss"] == pytest.approx(np.mean((target - q(state, action)) ** 2), rel=1e-4)


def test_reward_of_every_step_or_the_last_with_or_without_the_baseline(learner_facts):
    def rewards(name):
        batch = learner_facts[name]
        paid = np.round(batch["reward"], 6)
        return {d: set(paid[np.array(batch["discount"]) == d].tolist()) for d in (0.0, 1.0)}

    less = {0.25, 0.55}  # 0.5 and 0.8, each less 0.25
    assert rewards("every") == {0.0: less, 1.0: less}
    assert rewards("last") == {0.0: less, 1.0: {0.0}}
    assert rewards("plain") == {0.0: {0.5, 0.8}, 1.0: {0.5, 0.8}}


def test_exploration_is_centred_where_it_is_told_while_warming_up(learner_facts):
    actions = np.array(learner_facts["centred"]["actions"])
    np.testing.assert_allclose(actions[:2], 0.9, atol=0.05)
    assert np.abs(actions[2] - 0.9).min() > 0.1  # the actor's own, about 0.5
    np.testing.assert_allclose(learner_facts["every"]["actions"], actions[2].mean(), atol=0.1)


@pytest.mark.parametrize(("mean", "sigma"), [(0.5, 0.5), (0.0, 0.5), (0.9, 0.1), (1.0, 0.01)])
def test_truncated_normal(mean, sigma):
    random = np.random.default_rng(0)
    draws = np.array([truncated_normal(random, mean, sigma) for _ in range(20000)])
    truth = scipy.stats.truncnorm((0.0 - mean) / sigma, (1.0 - mean) / sigma, mean, sigma)
    assert draws.min() >= 0.0 and draws.max() <= 1.0
    assert draws.mean() == pytest.approx(truth.mean(), abs=4 * truth.std() / np.sqrt(len(draws)))
    assert draws.std() == pytest.approx(truth.std(), rel=0.03)


def test_sigma_schedule():
    settings = DdpgSettings()
    assert [settings.sigma_at(episode) for episode in (0, 99, 100)] == [0.5, 0.5, 0.5]
    # 0.5 to 0.01 is a factor of 50 over 200 episodes: half way, 0.5 / sqrt(50) = 0.0707107.
    assert settings.sigma_at(200) == pytest.approx(0.0707107, rel=1e-5)
    assert settings.sigma_at(300) == pytest.approx(0.01)
    assert settings.sigma_at(100000) == pytest.approx(0.01)


def test_phases_follow_the_searchs_length():
    short = DdpgSettings().over(40)
    assert [short.sigma_at(episode) for episode in (0, 10)] == [0.5, 0.5]
    assert short.sigma_at(20) == pytest.approx(0.0707107, rel=1e-5)
    assert short.sigma_at(30) == pytest.approx(0.01)
    assert DdpgSettings().over(1).phases() == (0, 1)
    # What is set stays; what is told once is not told again.
    assert DdpgSettings(warmup_episodes=7, decay_episodes=9).over(40).phases(400) == (7, 9)
    assert DdpgSettings(warmup_episodes=7).over(40).phases(400) == (7, 20)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_units", (300,)),
        ("hidden_units", [300, 300]),
        ("actor_learning_rate", 0.0),
        ("critic_learning_rate", float("nan")),
        ("target_update_tau", 1.5),
        ("batch_size", 0),
        ("replay_capacity", 63),
        ("gamma", -0.1),
        ("sigma", 0.0),
        ("warmup_episodes", -1),
        ("decay_episodes", 0),
        ("sigma_end", 0.6),
        ("baseline_decay", 1.0),
        ("warmup_centre", 1.5),
        ("updates_per_step", 1.0),
    ],
)
def test_settings_say_what_is_wrong(name, value):
    with pytest.raises(ValueError, match=f"DdpgSettings.{name} must be .*; received "):
        DdpgSettings(**{name: value})


def test_random_searcher():
    one, two = RandomSearcher(3), RandomSearcher(3)
    actions = [one.act(np.zeros(2)) for _ in range(100)]
    assert actions == [two.act(np.ones(2)) for _ in range(100)]
    assert 0.0 <= min(actions) < max(actions) <= 1.0
    assert one.finish(actions, 0.5) == {}
    assert isinstance(one, Searcher)


def test_missing_tf_agents_is_told_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AgentError, match="pip install --no-deps tf-agents==") as refused:
        DdpgSearcher(DdpgSettings(), 3, 0)
    version = importlib.metadata.version("tf-agents")
    assert str(refused.value).endswith(f"tf-agents=={version}")
