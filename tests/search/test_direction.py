"""The plan that is chosen is the best of the log in the metric's own direction."""

import blobs
import keras
import marks
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.runs.episode_log import EpisodeLog, read_log
from amc_tf.search.agents.handcrafted import FixedSearcher
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.told_reward import ToldReward
from amc_tf.training.metric import ACCURACY, Metric

BUDGET = amc_tf.Budget(macs=0.5)
MAE = Metric("mae", "min", "MAE", False, False)
R2 = Metric("r2_score", "max", "R2", False, False)


def _data(count, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    return x, (x[:, :4].mean((1, 2, 3)) - x[:, 4:, :4].mean((1, 2, 3)))[:, None]


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1))
    for filters in (8, 10):
        x = kl.Conv2D(filters, 3, activation="relu")(x)
    model = keras.Model(inputs, kl.Dense(1)(kl.Dense(12, activation="relu")(kl.Flatten()(x))))
    model.compile(keras.optimizers.Adam(5e-3), "mse", metrics=["mae", keras.metrics.R2Score()])
    model.fit(*_data(300, 0), epochs=6, verbose=0)
    return model


def _searched(net, folder, settings=None, budget=BUDGET, **changes):
    task = amc_tf.Task(_data(300, 0), _data(80, 1), calibration_size=64, **changes)
    settings = settings or blobs.search_settings()
    return amc_tf.search_plan(net, task, budget, folder, settings), read_log(
        folder / "episodes.jsonl"
    )


def _absolute(scale):
    def evaluate(model, data):
        x, y = data
        return scale * float(np.abs(model.predict(x, verbose=0) - y).mean())

    return evaluate


@pytest.fixture(scope="module")
def by_mae(net, tmp_path_factory):
    return _searched(net, tmp_path_factory.mktemp("mae"), metric="mae")


@pytest.mark.parametrize("metric", marks.slow_but(["mae", "loss"], ["mae"]))
def test_the_best_of_the_log_is_chosen(net, by_mae, tmp_path, metric):
    found, log = by_mae if metric == "mae" else _searched(net, tmp_path, metric=metric)
    scores = [episode["score"] for episode in log]
    chosen = found.best[found.chosen]
    # The best score, or one within its standard error.
    first, *_ = found.choice.candidates
    assert min(c.score for c in found.choice.candidates) == min(scores) < max(scores)
    assert chosen.score == first.score and first.behind <= first.standard_error
    assert [e["reward"] for e in log] == [-score for score in scores]
    rebuilt = amc_tf.rebuild(net, found.graph, found.plan, found.refitted(found.plan))
    rebuilt.compile("sgd", "mse", metrics=["mae", keras.metrics.R2Score()])
    told = rebuilt.evaluate(*_data(80, 1), verbose=0, return_dict=True)[metric]
    assert told == pytest.approx(chosen.score, rel=1e-4)
    assert found.metric.data == "validation" and found.uncertainty.deviation > 0


@pytest.mark.slow
def test_the_size_of_a_metric_changes_no_decision(net, by_mae, tmp_path):
    """The agent learns from rewards a million times as large as it does from others."""
    scale = 1e6
    found, log = _searched(net, tmp_path, metric="error", mode="min", evaluate=_absolute(scale))
    expected, plain = by_mae
    assert [e["counts"] for e in log] == [e["counts"] for e in plain]
    assert [e["score"] for e in log] == pytest.approx([scale * e["score"] for e in plain], rel=1e-4)
    assert found.plan == expected.plan
    learnt = [(e["actor_loss"], e["critic_loss"]) for e in log if "critic_loss" in e]
    assert learnt and np.isfinite(learnt).all()


def test_hopeless_plans_are_those_of_large_errors(net, by_mae, tmp_path):
    settings = blobs.search_settings(early_stop=0.5)
    found, log = _searched(net, tmp_path, settings, metric="mae", batch_size=10)
    full = {tuple(e["counts"]): e["score"] for e in by_mae[1]}
    given_up = [e for e in log if e["score"] != pytest.approx(full[tuple(e["counts"])], rel=1e-4)]
    best = min(e["score"] for e in log)
    assert given_up and all(full[tuple(e["counts"])] > 0.99 * best for e in given_up)
    assert min(c.score for c in found.choice.candidates) == best


def test_the_lowest_error_of_three_is_chosen(tmp_path):
    """The case that was reported: 0.1109, 0.0633 and 0.0537 came out as 0.1109."""
    graph = amc_tf.analyze(blobs.model())
    env = DecisionEnv(channel_problem(graph, rounding=1), BUDGET, metric=MAE)
    scores = iter([0.1109, 0.0633, 0.0537])
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    driver = EpisodeDriver(log, env, lambda plan, beat: next(scores))
    plans = [[share] * len(env) for share in (0.3, 0.4, 0.5)]
    driver.run("uniform", FixedSearcher(plans), 3)
    assert [outcome.score for outcome in driver.ranked["uniform"]] == [0.0537, 0.0633, 0.1109]
    assert [record["score"] for record in log.best(3)] == [0.0537, 0.0633, 0.1109]
    assert driver.best("uniform", 1)[0].score == 0.0537


def test_rewards_that_price_a_cost():
    graph = amc_tf.analyze(blobs.model())
    problem = channel_problem(graph, rounding=1)

    def reward(metric, score):
        env = DecisionEnv(problem, None, reward="flops", metric=metric)
        return env.reward(score, {"macs": 1000, "params": 10})

    assert reward(MAE, 0.5) == pytest.approx(-0.5 * np.log(1000))
    assert reward(ACCURACY, 0.75) == pytest.approx(-0.25 * np.log(1000))
    with pytest.raises(amc_tf.AmcError, match=r"R2 \(higher is better\) is no error.*use the rew"):
        reward(R2, 0.5)
    with pytest.raises(amc_tf.AmcError, match="to be at most 1, received 93.4; use the reward"):
        reward(ACCURACY, 93.4)
    with pytest.raises(amc_tf.AmcError, match="'mae' to be of at least 0, received -1; use the"):
        reward(MAE, -1.0)


def test_a_reward_that_cannot_be_made_is_refused_before_work(net, tmp_path):
    settings = blobs.search_settings(reward="params", policies=("amc",))
    with pytest.raises(amc_tf.AmcError, match="is no error and no fraction"):
        _searched(net, tmp_path, settings, budget=None, metric="r2_score")
    assert not (tmp_path / "importance.json").exists()


def test_what_searchers_are_told():
    known = [-0.2, -0.15]
    told = ToldReward.of(MAE, -0.1, known)  # 0.1 of the dense network; 0.1 is the largest distance
    assert [told(r) for r in (-0.1, -0.15, -0.2)] == pytest.approx([0, -0.5, -1])
    assert told(-0.1 - 0.1 * np.e) == pytest.approx(-2)  # by its logarithm: 1 + log(e)
    far = [told(reward) for reward in (-1e30, -1e6, -1.0, 1.0, 1e6)]
    assert far == sorted(far) and -80 < far[0] < far[-1] < 20
    large = ToldReward.of(MAE, -1e5, [1e6 * r for r in known])
    assert large(-1.5e5) == pytest.approx(told(-0.15))
    exact = ToldReward.of(ACCURACY, -0.1, known)  # the paper's rewards stay as they are
    assert [exact(r) for r in (-0.9, 0.0, -16.1)] == [-0.9, 0.0, -16.1]
    assert ToldReward.of(MAE, 0.0, [])(-0.5) == -0.5
