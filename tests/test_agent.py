"""The searchers: that they learn, repeat themselves, fail in plain words and leave Keras alone."""

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
from amc_tf.agent import AgentError, DdpgSearcher, DdpgSettings, RandomSearcher, Searcher
from amc_tf.agent.exploration import truncated_normal
from amc_tf.errors import AmcError

SMALL = DdpgSettings(hidden_units=(16, 16), batch_size=8, warmup_episodes=2)


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


def test_ddpg_beats_random():
    episodes, seeds = 120, (0, 1, 2)
    settings = DdpgSettings(warmup_episodes=25)
    searchers = [DdpgSearcher(settings, Targets.num_features, seed) for seed in seeds]
    for seed, ddpg in zip(seeds, searchers, strict=True):
        environment = Targets(steps=10, seed=seed + 10)
        random = RandomSearcher(seed)
        with ddpg:
            learned = [environment.episode(ddpg)[1] for _ in range(episodes)]
        drawn = [environment.episode(random)[1] for _ in range(episodes)]
        assert max(learned) > max(drawn)
        assert np.mean(learned[-20:]) > np.mean(drawn[-20:]) + 0.05
        # Closer to the optimum, 1, than random draws by half at least.
        assert 1.0 - np.mean(learned[-20:]) < 0.5 * (1.0 - np.mean(drawn[-20:]))


def test_same_seed_same_actions_in_fresh_processes():
    searchers = [DdpgSearcher(SMALL, Targets.num_features, seed) for seed in (7, 7, 8)]
    runs = []
    for searcher in searchers:
        environment = Targets(steps=6, seed=0)
        with searcher:
            runs.append([environment.episode(searcher)[0] for _ in range(12)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_diagnostics_and_warm_up():
    state = np.full(3, 0.5, np.float32)
    with DdpgSearcher(SMALL, num_features=3, seed=0) as searcher:
        reports = []
        for reward in (0.5, 0.7, 0.3, 0.9):
            actions = [searcher.act(state) for _ in range(3)]
            assert all(0.0 <= action <= 1.0 for action in actions)
            reports.append(searcher.finish(actions, reward))
    # The first reward stands for the empty average, later ones enter with weight 0.05.
    assert [report["baseline"] for report in reports] == pytest.approx([0.5, 0.5, 0.51, 0.4995])
    assert [report["sigma"] for report in reports[:3]] == [0.5, 0.5, 0.5]
    assert reports[3]["sigma"] < 0.5
    # No training in the 2 warm-up episodes; after 3 of 3 decisions the replay holds a batch of 8.
    assert [np.isnan(report["critic_loss"]) for report in reports] == [True, True, False, False]
    assert np.isfinite(reports[3]["actor_loss"])


def test_no_training_before_the_replay_holds_a_batch():
    settings = DdpgSettings(hidden_units=(16, 16), batch_size=8, warmup_episodes=0)
    with DdpgSearcher(settings, num_features=3, seed=0) as searcher:
        losses = []
        for _ in range(3):
            actions = [searcher.act(np.zeros(3, np.float32)) for _ in range(3)]
            losses.append(searcher.finish(actions, 0.5)["critic_loss"])
    assert [np.isnan(loss) for loss in losses] == [True, True, False]


def test_killed_child():
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0)
    searcher.act(np.zeros(3, np.float32))
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
    with pytest.raises(AgentError, match=r"(?s)Traceback.*Expected features in \[0, 1\].*nan"):
        searcher.act(np.array([0.0, np.nan, 0.0]))


def test_wrong_number_of_actions():
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0)
    searcher.act(np.zeros(3, np.float32))
    with pytest.raises(AgentError, match=r"(?s)Traceback.*one action for each call of act, 1"):
        searcher.finish([0.5, 0.5], 1.0)


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
    with pytest.raises(AgentError, match=r"(?s)Traceback.*this one is broken"):
        DdpgSearcher(SMALL, num_features=3, seed=0).act(np.zeros(3))


def test_start_timeout():
    searcher = DdpgSearcher(SMALL, num_features=3, seed=0, start_timeout=0.05)
    with pytest.raises(AgentError, match="did not come up within 0.05 s"):
        searcher.act(np.zeros(3, np.float32))


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


def test_child_outlives_ctrl_c_but_not_its_parent():
    result = python(
        """
        import os, signal, numpy as np
        from amc_tf.agent import DdpgSearcher, DdpgSettings
        searcher = DdpgSearcher(DdpgSettings(hidden_units=(4, 4)), 2, seed=0)
        searcher.act(np.zeros(2))
        os.kill(searcher.pid, signal.SIGINT)
        assert 0 <= searcher.act(np.zeros(2)) <= 1
        print(searcher.pid, flush=True)
        os._exit(0)
        """
    )
    assert result.returncode == 0, result.stderr
    pid = int(result.stdout)
    deadline = time.monotonic() + 20.0
    while _runs(pid):
        assert time.monotonic() < deadline, "the agent outlived its parent"
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    # Where nobody reaps orphans, an ended one stays as a zombie.
    status = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_parent_keeps_keras_3():
    result = python(
        """
        import sys
        import amc_tf.agent
        assert not {"tensorflow", "keras", "tf_agents"} & set(sys.modules), "heavy import"
        import numpy as np
        from amc_tf.agent import DdpgSearcher, DdpgSettings
        with DdpgSearcher(DdpgSettings(hidden_units=(4, 4)), 2, seed=0) as searcher:
            searcher.act(np.zeros(2))
            searcher.finish([0.5], 1.0)
        import tensorflow as tf
        assert tf.keras.__version__.startswith("3."), tf.keras.__version__
        assert "tf_agents" not in sys.modules
        """
    )
    assert result.returncode == 0, result.stderr


def test_critic_target_by_hand():
    """y = r - b + gamma * Q'(s', mu'(s')), with the networks computed in NumPy."""
    result = python(
        """
        import json, numpy as np, tensorflow as tf
        from amc_tf.agent.ddpg import DdpgLearner
        from amc_tf.agent.settings import DdpgSettings
        settings = DdpgSettings(hidden_units=(5, 4), batch_size=16, gamma=0.9, warmup_episodes=9)
        learner = DdpgLearner(settings, num_features=3, seed=0)
        agent = learner.agent
        # Untrained outputs are all but alike; larger last layers make a wrong target visible.
        for network in (agent._actor_network, agent._critic_network):
            network.variables[-2].assign(network.variables[-2] * 300)
        agent.initialize()
        random = np.random.default_rng(0)
        for reward in (0.5, 0.8):
            actions = [learner.act(random.random(3)) for _ in range(3)]
            learner.finish(actions, reward)
        batch = learner.sample(tf.constant(0.25))
        loss = agent.critic_loss(batch.time_step, batch.action_step.action, batch.next_time_step)
        after = batch.next_time_step
        print(json.dumps({
            "loss": float(loss),
            "state": batch.time_step.observation.numpy().tolist(),
            "action": batch.action_step.action.numpy().tolist(),
            "reward": after.reward.numpy().tolist(),
            "discount": after.discount.numpy().tolist(),
            "next_state": after.observation.numpy().tolist(),
            "actor": [v.numpy().tolist() for v in agent._target_actor_network.variables],
            "critic": [v.numpy().tolist() for v in agent._target_critic_network.variables],
        }))
        """,
        TF_USE_LEGACY_KERAS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    assert result.returncode == 0, result.stderr
    batch = json.loads(result.stdout.splitlines()[-1])
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
    # 0.5 to 0.01 is a factor of 50 over 300 episodes: half way, 0.5 / sqrt(50) = 0.0707107.
    assert settings.sigma_at(250) == pytest.approx(0.0707107, rel=1e-5)
    assert settings.sigma_at(400) == pytest.approx(0.01)
    assert settings.sigma_at(100000) == pytest.approx(0.01)


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
        ("updates_per_step", 1.0),
    ],
)
def test_settings_say_what_is_wrong(name, value):
    with pytest.raises(ValueError, match=f"DdpgSettings.{name} must be .*; received "):
        DdpgSettings(**{name: value})


def test_random_searcher():
    with RandomSearcher(3) as one, RandomSearcher(3) as two:
        actions = [one.act(np.zeros(2)) for _ in range(100)]
        assert actions == [two.act(np.ones(2)) for _ in range(100)]
        assert 0.0 <= min(actions) < max(actions) <= 1.0
        assert one.finish(actions, 0.5) == {}
        assert isinstance(one, Searcher)
