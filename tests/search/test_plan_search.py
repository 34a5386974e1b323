"""A search can be stopped anywhere, and goes on as if it had not been."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import blobs
import events
import keras
import marks
import numpy as np
import pytest
from places import HELPERS

import amc_tf
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.scoring.tflite_scorer import LiteScorer
from amc_tf.search.agents.global_ranking import global_ranking
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.settings import GLOBAL_RANKINGS

BUDGET = amc_tf.Budget(macs=0.5)


@pytest.fixture(scope="module")
def net():
    return blobs.trained()


@pytest.fixture(scope="module")
def uninterrupted(net, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    found = amc_tf.search_plan(net, blobs.task(), BUDGET, workdir, blobs.search_settings())
    return workdir, found


def _records(workdir):
    lines = (workdir / "episodes.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_search_leaves_log_and_plans(uninterrupted):
    workdir, found = uninterrupted
    records = _records(workdir)
    episodes = {p: sum(r["policy"] == p for r in records) for p in found.best}
    plans = dict.fromkeys(("knapsack", "global_l2", "uniform", "shallow", "deep"), 1)
    assert episodes == {**plans, "amc": 6, "random": 6}
    assert all(r["macs"] <= found.bounds["macs"] for r in records)
    assert amc_tf.PruningPlan.load(workdir / "plan.json") == found.plan
    assert all(r["reward"] == -r["divergence"] for r in records)
    assert json.loads((workdir / "search.json").read_text())["reward"] == "divergence"
    assert found.reward == "divergence"
    whole = [r for r in records if "cut" not in r]
    best = max(r["score"] for r in whole)
    # The scores of the five least divergences of each policy choose.
    finalists = []
    for policy in found.best:
        mine = sorted((r for r in whole if r["policy"] == policy), key=lambda r: r["divergence"])
        distinct = list(dict.fromkeys((tuple(r["counts"]), r["score"]) for r in mine))
        finalists += [score for _, score in distinct[:5]]
    assert max(c.score for c in found.choice.candidates) == max(finalists)
    assert found.best[found.chosen].score == found.choice.candidates[0].score
    kept = json.loads((workdir / "best_plans.json").read_text())
    assert kept[0]["score"] == best
    told = [(k["score"], k["reward"]) for k in kept]
    assert told == sorted(told, reverse=True)
    assert amc_tf.macs(found.graph, amc_tf.PruningPlan(kept[-1]["keep"])) == kept[-1]["macs"]


def test_tensorboard_is_told_what_the_log_holds(net, uninterrupted):
    events.check(uninterrupted[0], net)


def test_the_score_of_a_plan_is_the_rebuilt_models(net, uninterrupted):
    _, found = uninterrupted
    task = blobs.task()
    for name in ("uniform", "random"):
        plan = found.best[name].plan
        rebuilt = amc_tf.rebuild(net, found.graph, plan, found.refitted(plan))
        blobs.compile_model(rebuilt)
        accuracy = rebuilt.evaluate(*task.validation, verbose=0, return_dict=True)["accuracy"]
        assert accuracy == pytest.approx(found.best[name].score, abs=1e-6)


@pytest.mark.parametrize("lines", marks.slow_but([0, 2, 7], [2]))
def test_resumed_search_ends_with_the_same_log(net, uninterrupted, tmp_path, monkeypatch, lines):
    """Cut after any number of episodes, the last one in the middle of its line."""
    workdir, found = uninterrupted
    whole = (workdir / "episodes.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "episodes.jsonl").write_text("".join(whole[:lines]) + whole[lines][:20])
    shutil.copy(workdir / "config.json", tmp_path)
    scored = []
    original = LiteScorer.__call__

    def counted(self, plan, beat=None):
        scored.append(plan)
        return original(self, plan, beat)

    monkeypatch.setattr(LiteScorer, "__call__", counted)
    again = amc_tf.search_plan(net, blobs.task(), BUDGET, tmp_path, blobs.search_settings())
    assert _records(tmp_path) == _records(workdir) and again.plan == found.plan
    different = {tuple(r["counts"]) for r in _records(workdir)}
    known = {tuple(json.loads(line)["counts"]) for line in whole[:lines]}
    assert len(scored) == len(different - known) + 1  # and the dense model


@pytest.fixture(scope="module")
def by_error(net, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("by_error")
    settings = blobs.search_settings(reward="err")
    return workdir, amc_tf.search_plan(net, blobs.task(), BUDGET, workdir, settings)


@pytest.mark.parametrize("lines", marks.slow_but([0, 2, 7], [2]))
def test_a_search_by_the_error_resumes_with_code_that_scores_the_same(
    net, by_error, tmp_path, lines
):
    workdir, found = by_error
    whole = (workdir / "episodes.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "episodes.jsonl").write_text("".join(whole[:lines]) + whole[lines][:20])
    shutil.copy(workdir / "config.json", tmp_path)
    scored = []
    task = blobs.task()

    def evaluate(model, data):
        scored.append(1)
        return task.score(model, data)

    again = amc_tf.search_plan(
        net, blobs.task(evaluate=evaluate), BUDGET, tmp_path, blobs.search_settings(reward="err")
    )
    assert _records(tmp_path) == _records(workdir)
    # By evaluate, no sample's answer is known: of the same plans, the score alone decides.
    assert again.choice.by == "score" and {*again.best} == {*found.best}
    assert again.best[again.chosen].reward == max(r["reward"] for r in _records(workdir))
    different = {tuple(r["counts"]) for r in _records(workdir)}
    known = {tuple(json.loads(line)["counts"]) for line in whole[:lines]}
    # And the dense model, and each constant answer.
    assert len(scored) == len(different - known) + 1 + 4


@pytest.mark.slow
def test_killed_process_resumes(net, uninterrupted, tmp_path):
    """The real thing: SIGKILL in the middle of the agent's episodes, then the same command."""
    workdir, found = uninterrupted
    script = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {str(HELPERS)!r})
        import blobs, amc_tf
        amc_tf.search_plan(blobs.trained(), blobs.task(), amc_tf.Budget(macs=0.5),
                           {str(tmp_path)!r}, blobs.search_settings())
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    log = tmp_path / "episodes.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_text().count("\n") >= 5:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert log.read_text().count("\n") >= 5
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert _records(tmp_path) == _records(workdir)
    assert amc_tf.PruningPlan.load(tmp_path / "plan.json") == found.plan
    events.check(tmp_path, net)


def test_the_knapsack_is_one_plan_that_the_agent_begins_with(net, tmp_path):
    settings = blobs.search_settings(episodes=3, policies=("amc", "knapsack"))
    found = amc_tf.search_plan(net, blobs.task(), BUDGET, tmp_path, settings)
    records = _records(tmp_path)
    plans = {name: [r["counts"] for r in records if r["policy"] == name] for name in found.best}
    assert set(plans) == {"amc", "knapsack"} and len(plans["knapsack"]) == 1
    assert plans["amc"][0] == plans["knapsack"][0]
    rewards = {name: [r["reward"] for r in records if r["policy"] == name] for name in plans}
    assert max(rewards["amc"]) >= rewards["knapsack"][0]
    curves = json.loads((tmp_path / "curves.json").read_text())["curves"]
    assert list(curves) == list(found.graph.groups)
    before = (tmp_path / "curves.json").stat().st_mtime_ns
    again = amc_tf.search_plan(net, blobs.task(), BUDGET, tmp_path, settings)
    assert again.plan == found.plan and (tmp_path / "curves.json").stat().st_mtime_ns == before


def test_global_rankings_are_one_plan_each_that_no_resumption_changes(net, tmp_path):
    settings = blobs.search_settings(episodes=3, policies=("amc", *GLOBAL_RANKINGS))
    budget = amc_tf.Budget(macs=0.985)  # the hidden layer can meet it alone
    found = amc_tf.search_plan(net, blobs.task(), budget, tmp_path, settings)
    records = _records(tmp_path)
    plans = {p: [r["counts"] for r in records if r["policy"] == p] for p in GLOBAL_RANKINGS}
    graph = found.graph
    env = DecisionEnv(channel_problem(graph, rounding=1), budget)
    whole = list(graph.groups).index("stem")  # the sum of the stem and of the second convolution
    for name, criterion in GLOBAL_RANKINGS.items():
        content = json.loads((tmp_path / f"importance_{criterion}.json").read_text())
        scores = [np.array(content["scores"][group]) for group in graph.groups]
        ratios = global_ranking(env, scores, streams=[whole])
        assert plans[name] == [list(np.rint(np.array(ratios) * env.problem.dense))]
        assert plans[name][0][whole] == 8
    again = amc_tf.search_plan(net, blobs.task(), budget, tmp_path, settings)
    assert again.plan == found.plan and _records(tmp_path) == records


@pytest.mark.parametrize("setting", [{"policies": ("global_taylor",)}, {"importance": "taylor"}])
def test_a_ranking_by_the_loss_without_a_loss_is_refused_before_work(net, tmp_path, setting):
    settings, task = blobs.search_settings(**setting), blobs.task()
    bare = blobs.task(compile=lambda model: None, evaluate=task.score)
    with pytest.raises(amc_tf.AmcError, match="'taylor' needs the loss .*; give Task.compile="):
        amc_tf.search_plan(blobs.model(), bare, BUDGET, tmp_path, settings)
    assert not any(path.name.startswith("importance") for path in tmp_path.iterdir())


def test_without_a_budget_plans_for_one_are_left_out_and_that_is_said(net, tmp_path, caplog):
    policies = ("amc", "cmaes", "random")
    asked = (*policies, "knapsack", "global_l2", "deep")
    settings = blobs.search_settings(reward="params", episodes=3, policies=asked)
    found = amc_tf.search_plan(net, blobs.task(), None, tmp_path, settings)
    assert set(found.best) == set(policies) and found.bounds == {}
    told = "knapsack, global L2, deep not played: they are plans for a budget, and there is none"
    assert told in caplog.text


def test_nan_from_evaluate_stops_the_search_and_loses_nothing(net, tmp_path):
    calls = []
    good = blobs.task()

    def evaluate(model, data):
        calls.append(1)
        return float("nan") if len(calls) == 10 else good.score(model, data)

    task = blobs.task(evaluate=evaluate)
    with pytest.raises(amc_tf.AmcError, match="evaluate returned nan"):
        amc_tf.search_plan(net, task, BUDGET, tmp_path, blobs.search_settings())
    done = _records(tmp_path)
    assert len(done) >= 4
    amc_tf.search_plan(net, blobs.task(), BUDGET, tmp_path, blobs.search_settings())
    assert _records(tmp_path)[: len(done)] == done


def test_damaged_log(tmp_path):
    path = tmp_path / "episodes.jsonl"
    good = {"policy": "amc", "episode": 0, "counts": [1], "score": 0.5, "reward": -0.5}
    path.write_text("{broken\n" + json.dumps(good) + "\n")
    with pytest.raises(amc_tf.AmcError, match="line 1 .* delete that line"):
        EpisodeLog(path)


def test_log_replaces_what_another_machine_decided(tmp_path):
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path)

    def record(episode, count, policy="amc"):
        return {
            "policy": policy,
            "episode": episode,
            "counts": [count],
            "score": count / 10,
            "reward": count / 10 - 1,
        }

    for r in (record(0, 1, "random"), record(0, 1), record(1, 2), record(2, 3)):
        log.add(r)
    log.add(record(1, 5))
    again = EpisodeLog(path)
    assert [json.loads(line)["counts"] for line in path.read_text().splitlines()] == [[1], [1], [5]]
    assert again.score([5]) == 0.5
    assert [r["counts"] for r in again.best(2)] == [[5], [1]]


def test_settings_are_checked():
    with pytest.raises(amc_tf.AmcError, match="unknown policy 'best'"):
        amc_tf.SearchSettings(policies=("amc", "best"))
    with pytest.raises(amc_tf.AmcError, match="response_share in"):
        amc_tf.SearchSettings(response_share=1.5)
    with pytest.raises(amc_tf.AmcError, match="early_stop as None or a positive number"):
        amc_tf.SearchSettings(early_stop=-1.0)
    with pytest.raises(amc_tf.AmcError, match="'knapsack' needs .*sensitivity=True"):
        amc_tf.SearchSettings(sensitivity=False)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("episodes", value) for value in (0, 1.5, True, "3", None)),
        *(("episode_samples", value) for value in (0, 1.5, float("nan"), True, "100")),
        *(("rerank", 0), ("imagined_episodes", -1), ("keep_best", -1), ("rounding", 0)),
    ],
)
def test_numbers_of_things_are_whole(name, value):
    with pytest.raises(amc_tf.AmcError, match=f"expected {name} as a whole number, at least"):
        amc_tf.SearchSettings(**{name: value})


def test_numpys_numbers_are_written_as_ours():
    settings = amc_tf.SearchSettings(episodes=np.int64(3), episode_samples=None, seed=np.uint8(2))
    assert json.dumps([settings.episodes, settings.seed]) == "[3, 2]"


def test_strict_rounding_needs_no_policy_beside_the_agent(tmp_path):
    """Counts that a model of the reward scatters are of the allowed ones, too."""
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for _ in range(3):
        x = keras.layers.Conv2D(12, 3, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 8, 8, 3)).astype("float32"), np.arange(64) % 4
    settings = blobs.search_settings(policies=("amc",), rounding=8, rounding_strict=True)
    found = amc_tf.search_plan(
        model, amc_tf.Task(data, data), amc_tf.Budget(macs=0.6), tmp_path, settings
    )
    assert set(found.best["amc"].counts) == {8}


@pytest.mark.slow
def test_what_is_built_may_be_refitted_in_another_way(net, uninterrupted, tmp_path):
    workdir, found = uninterrupted
    settings = blobs.search_settings(final_refit="in_order")
    again = amc_tf.search_plan(net, blobs.task(), BUDGET, tmp_path / "run", settings)
    assert _records(tmp_path / "run") == _records(workdir)
    dense, in_order = found.refitted(found.plan), again.refitted(found.plan)
    assert dense and in_order
    assert any(not np.allclose(dense[key], in_order[key]) for key in dense.keys() & in_order.keys())
    with pytest.raises(amc_tf.AmcError, match="unknown refit 'denes'; choose one of 'none'"):
        blobs.search_settings(refit="denes")


def test_the_best_plans_are_scored_again_as_they_will_be_built(net, uninterrupted, tmp_path):
    workdir, _ = uninterrupted
    settings = blobs.search_settings(final_refit="in_order", rerank=2)
    task = blobs.task()
    found = amc_tf.search_plan(net, task, BUDGET, tmp_path / "run", settings)
    lines = (tmp_path / "run" / "finals.jsonl").read_text().splitlines()
    finals = [json.loads(line) for line in lines]
    distinct = {}
    for record in sorted(_records(workdir), key=lambda r: -r["reward"]):
        distinct.setdefault(record["policy"], {})[tuple(record["counts"])] = True
    for name, outcome in found.best.items():
        others = [c for other, seen in distinct.items() if other != name for c in list(seen)[:2]]
        own = list(distinct[name])
        scored = {tuple(r["counts"]): r["score"] for r in finals if r["policy"] == name}
        assert list(scored) == own[:2] + [c for c in own[2:] if c in others]
        assert outcome.score == scored[outcome.counts]
        assert outcome.score == max(scored.values()) or name == found.chosen
        rebuilt = amc_tf.rebuild(net, found.graph, outcome.plan, found.refitted(outcome.plan))
        blobs.compile_model(rebuilt)
        accuracy = rebuilt.evaluate(*task.validation, verbose=0, return_dict=True)["accuracy"]
        assert accuracy == pytest.approx(outcome.score, abs=1e-6)
    best = max(r["score"] for r in finals)
    assert max(c.score for c in found.choice.candidates) == best
    own = [c for c in found.choice.candidates if c.policy == found.chosen]
    assert found.best[found.chosen].score == own[0].score
    again = amc_tf.search_plan(net, task, BUDGET, tmp_path / "run", settings)
    assert again.plan == found.plan
    assert (tmp_path / "run" / "finals.jsonl").read_text().splitlines() == lines
