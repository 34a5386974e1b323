"""A search that is guided by the divergence from the dense network's outputs."""

import json
import math

import blobs
import pytest

import amc_tf
from amc_tf.runs.episode_log import EpisodeLog, read_log
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.agents.handcrafted import FixedSearcher
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.env.base import DecisionEnv, Outcome
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.merit import Merit
from amc_tf.search.told_reward import ToldReward
from amc_tf.search.used_reward import used_reward
from amc_tf.training.metric import ACCURACY, Metric
from amc_tf.training.score import Score

BUDGET = amc_tf.Budget(macs=0.5)


@pytest.fixture(scope="module")
def net():
    return blobs.trained()


@pytest.fixture(scope="module")
def graph():
    return amc_tf.analyze(blobs.model())


def _env(graph, reward="divergence"):
    problem = channel_problem(graph, rounding=1)
    return DecisionEnv(problem, BUDGET, reward=reward, fill_budget=False)


def _played(env, path, scores, **more):
    """Plays a plan for each score; returns the driver, and what each had to beat."""
    given, beats = iter(scores), []

    def score(plan, beat):
        beats.append(None if beat is None else (float(beat), beat.divergence))
        return next(given)

    driver = EpisodeDriver(EpisodeLog(path), env, score, **more)
    plans = [[0.25 + 0.125 * n] * len(env) for n in range(len(scores))]
    driver.run("uniform", FixedSearcher(plans), len(plans))
    return driver, beats


SCORES = [Score(0.5, 0.12), Score(0.5, 0.1), Score(0.75, 0.13), Score(0.875, 0.14, cut=True)]


def test_of_equal_scores_the_nearer_outputs_are_the_better(graph, tmp_path):
    driver, beats = _played(_env(graph), tmp_path / "log", SCORES)
    assert [o.divergence for o in driver.ranked["uniform"]] == [0.1, 0.12, 0.13, 0.14]
    # To beat is the best so far, by its divergence; never the better score.
    assert beats == [None, (0.5, 0.12), (0.5, 0.1), (0.5, 0.1)]
    log = read_log(tmp_path / "log")
    assert [r["reward"] for r in log] == [-0.12, -0.1, -0.13, -0.14]
    assert [r["divergence"] for r in log] == [0.12, 0.1, 0.13, 0.14]
    assert [r.get("cut") for r in log] == [None, None, None, True]
    # Among the best of them, the score chooses; the others follow by their divergence.
    found = [[o.divergence for o in driver.finalists("uniform", n)] for n in (1, 2, 3, 4)]
    first = [0.1, 0.12, 0.13, 0.14]
    assert found == [first, first, [0.13, 0.1, 0.12, 0.14], found[2]]


def test_what_a_policy_played_of_the_others_best_is_a_finalist_too(graph, tmp_path):
    """Else the agent, which begins with the plans of others, would end behind its own beginning."""
    driver, _ = _played(_env(graph), tmp_path / "log", SCORES[:3])
    second = driver.ranked["uniform"][2]  # by its reward the last of all
    driver.run("shallow", FixedSearcher([second.actions]), 1)
    assert [o.divergence for o in driver.best("uniform", 1)] == [0.1, 0.13]
    assert [o.divergence for o in driver.best("uniform", 2)] == [0.1, 0.12, 0.13]
    assert [o.divergence for o in driver.best("shallow", 1)] == [0.13]
    assert [o.score for o in driver.finalists("uniform", 1)] == [0.75, 0.5, 0.5]


def test_of_plans_that_cannot_win_only_the_first_is_a_finalist(graph, tmp_path):
    driver, _ = _played(_env(graph), tmp_path / "log", SCORES)
    far = [Score(0.5, 0.16), Score(0.99, 0.2), Score(0.25, 0.11), Score(0.5, 0.12)]
    other, _ = _played(_env(graph), tmp_path / "other", far)
    other.ranked["shallow"] = driver.ranked["uniform"]  # 0.1 is the nearest of all
    assert [o.divergence for o in other.best("uniform", 4)] == [0.11, 0.12]
    other.ranked["shallow"] = other.ranked["uniform"][2:]
    assert [o.divergence for o in other.best("uniform", 4)] == [0.11, 0.12, 0.16]
    by_error, _ = _played(_env(graph, "err"), tmp_path / "by_error", far)
    assert len(by_error.best("uniform", 4)) == 4


def test_finalists_are_ranked_by_their_scores(graph, tmp_path):
    driver, beats = _played(_env(graph), tmp_path / "log", SCORES, final=True)
    assert [o.divergence for o in driver.ranked["uniform"]] == [0.13, 0.1, 0.12, 0.14]
    assert beats == [None, (0.5, None), (0.5, None), (0.75, None)]


def test_by_the_error_nothing_is_beaten_by_a_divergence(graph, tmp_path):
    _, beats = _played(_env(graph, "err"), tmp_path / "log", SCORES)
    assert beats == [None, (0.5, None), (0.5, None), (0.75, None)]


def test_known_scores_keep_their_divergence(graph, tmp_path):
    path = tmp_path / "log"
    first, _ = _played(_env(graph), path, SCORES)
    before = path.read_bytes()
    again, beats = _played(_env(graph), path, SCORES)
    assert not beats and path.read_bytes() == before
    for one, other in zip(first.ranked["uniform"], again.ranked["uniform"], strict=True):
        assert (one.counts, one.reward, one.cut) == (other.counts, other.reward, other.cut)
    log = EpisodeLog(path)
    counts = [o.counts for o in first.ranked["uniform"]]
    assert log.score(counts[0]).divergence == 0.1 and log.score(counts[3]) is None


def test_a_logged_score_without_a_divergence_is_refused(graph, tmp_path):
    _played(_env(graph, "err"), tmp_path / "log", [Score(0.5)])
    with pytest.raises(amc_tf.AmcError, match="episode 0 of 'uniform': .*received accuracy 50"):
        _played(_env(graph), tmp_path / "log", [Score(0.5, 0.1)])


def test_merit():
    def rank(score, reward, cut=False, metric=ACCURACY, priced=False):
        return Merit(metric, priced)(Outcome(None, (1,), (), score, reward, 1, 1, cut=cut))

    assert rank(0.75, -0.3) > rank(0.5, -0.1) > rank(0.5, -0.2) > rank(0.875, -0.1, cut=True)
    mae = Metric("mae", "min", "MAE", False, False)
    assert rank(0.5, -0.3, metric=mae) > rank(0.75, -0.1, metric=mae)
    assert rank(0.5, -0.1, priced=True) > rank(0.75, -0.3, priced=True)
    record = {"score": 0.5, "reward": -0.1, "cut": True}
    assert Merit(ACCURACY, False).of_record(record) == rank(0.5, -0.1, cut=True)


def test_what_searchers_are_told():
    told = ToldReward.of(ACCURACY, 0.0, [-0.25, -0.0625, 0.0], divergence=True)
    assert [told(r) for r in (0.0, -0.0625, -0.25, -6.25)] == [0, -1, -4, -100]
    assert told(-12.5) == pytest.approx(-100 * (1 + math.log(2)))
    assert ToldReward.of(ACCURACY, 0.0, [], divergence=True)(-0.5) == -0.5


class _Scorer:
    def __init__(self, reason):
        self._reason = reason

    def no_divergence(self):
        return self._reason


def test_a_search_goes_on_with_the_reward_that_it_began_with(tmp_path, caplog):
    caplog.set_level("INFO", logger="amc_tf.search.used_reward")
    able, unable = _Scorer(None), _Scorer("of the moon")
    folder = Workdir(tmp_path / "able")
    assert used_reward("err", unable, folder, False) == "err"
    assert used_reward("flops", unable, folder, False) == "flops"
    assert used_reward("divergence", able, folder, False) == "divergence"
    assert used_reward("divergence", able, folder, True) == "divergence" and not caplog.text
    with pytest.raises(amc_tf.AmcError, match="cannot be measured now: of the moon; go back"):
        used_reward("divergence", unable, folder, True)
    other = Workdir(tmp_path / "unable")
    assert used_reward("divergence", unable, other, False) == "err"
    said = "is the error of the metric, not the divergence of the outputs: of the moon"
    assert said in caplog.text
    assert used_reward("divergence", able, other, True) == "err"
    assert "the outputs: the search began with it" in caplog.text


def test_with_an_evaluate_of_the_users_the_error_guides_it(net, tmp_path, caplog):
    caplog.set_level("INFO", logger="amc_tf.search.used_reward")
    task = blobs.task()
    own = blobs.task(evaluate=lambda model, data: task.score(model, data))
    settings = blobs.search_settings(episodes=2, policies=("uniform",))
    found = amc_tf.search_plan(net, own, BUDGET, tmp_path, settings)
    log = read_log(tmp_path / "episodes.jsonl")
    assert found.reward == "err" and all(r["reward"] == r["score"] - 1 for r in log)
    assert not any("divergence" in r for r in log)
    assert json.loads((tmp_path / "search.json").read_text())["reward"] == "err"
    assert caplog.text.count("the reward is the error of the metric, not the divergence") == 1


def test_hopeless_plans_are_those_that_are_far(net, tmp_path):
    """Their estimates are logged, and a resumed search takes them from there."""
    settings = blobs.search_settings(early_stop=0.5, policies=("uniform", "random"))
    task = blobs.task(batch_size=10)
    found = amc_tf.search_plan(net, task, BUDGET, tmp_path, settings)
    log = read_log(tmp_path / "episodes.jsonl")
    given_up = [r for r in log if r.get("cut")]
    assert given_up and all(r["reward"] == -r["divergence"] for r in log)
    for record in given_up:
        before = [r for r in log[: log.index(record)] if r["policy"] == record["policy"]]
        assert record["divergence"] > min(r["divergence"] for r in before)
    assert not found.best[found.chosen].cut
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines[:-3]) + "\n")
    again = amc_tf.search_plan(net, task, BUDGET, tmp_path, settings)
    told = [{k: v for k, v in r.items() if k != "seconds"} for r in log]
    now = read_log(tmp_path / "episodes.jsonl")
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in now] == told
    assert again.plan == found.plan


@pytest.mark.parametrize("final_refit", ["dense", "none"])
def test_episodes_may_be_scored_on_part_of_the_samples(net, tmp_path, final_refit):
    """The best plans are scored on all, even if the refit is the same."""
    settings = blobs.search_settings(
        episode_samples=50,
        early_stop=None,
        policies=("uniform", "random"),
        refit="dense",
        final_refit=final_refit,
        rerank=2,
    )
    task = blobs.task(batch_size=10)  # 200 samples
    found = amc_tf.search_plan(net, task, BUDGET, tmp_path, settings)
    episodes, finals = (read_log(tmp_path / f"{name}.jsonl") for name in ("episodes", "finals"))
    assert {round(r["score"] * 50, 3) % 1 for r in episodes} == {0}
    assert any(round(r["score"] * 50, 3) % 1 for r in finals)
    score = fastest_scorer(amc_tf.analyze(net), task, found.final)
    for outcome in found.best.values():
        assert outcome.score == pytest.approx(score(outcome.plan))
    assert json.loads((tmp_path / "search.json").read_text())["episode_samples"] == 50


def test_the_error_is_of_all_samples(net, tmp_path):
    settings = blobs.search_settings(episode_samples=50, reward="err", policies=("uniform",))
    amc_tf.search_plan(net, blobs.task(batch_size=10), BUDGET, tmp_path, settings)
    assert json.loads((tmp_path / "search.json").read_text())["episode_samples"] == 200
