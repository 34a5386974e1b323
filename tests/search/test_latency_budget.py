"""Budgets of latency in the environment and in a search."""

import itertools
import json

import blobs
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl
from made_up_device import MadeUpDevice

import amc_tf
from amc_tf.graph.plan import PruningPlan
from amc_tf.latency.table import LatencyTable
from amc_tf.report.rows import datasets
from amc_tf.report.run import read_run
from amc_tf.search import latency_budget as latency_search
from amc_tf.search.agents.handcrafted import profile
from amc_tf.search.env.base import DecisionEnv, Outcome
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.env.rewards import REWARDS
from amc_tf.search.latency_choice import Chooser, Measured
from amc_tf.training.metric import Metric


@pytest.fixture(scope="module")
def graph():
    x = inputs = keras.Input((16, 16, 3))
    for i, filters in enumerate((32, 24, 40)):
        x = kl.Conv2D(filters, 3, strides=1 + i % 2, padding="same", name=f"conv{i}")(x)
    return amc_tf.analyze(keras.Model(inputs, kl.Dense(7)(kl.GlobalAveragePooling2D()(x))))


def staircase(counts):
    """Milliseconds that go down by a tenth where a width is a multiple of 16, and up behind it."""
    counts = np.asarray(counts)
    tiles = -(-counts // 16)
    return float((tiles * np.where(counts % 16, 1.1, 1.0) * (3, 2, 1)).sum())


DENSE = (32, 24, 40)  # staircase: 6 + 4.4 + 3.3 = 13.7 ms


def _episode(env, actions):
    env.reset()
    for action in actions:
        env.step(action)
    return env.outcome(env.finish(), 0.75)


def _env(graph, budget, latency=staircase, **changes):
    problem = channel_problem(graph, rounding=4)
    if latency is not None:
        problem = problem.with_latency(latency)
    return DecisionEnv(problem, budget, **changes)


@settings(max_examples=60, deadline=None)
@given(
    latency=st.floats(7.0, 14.0),
    macs=st.one_of(st.none(), st.floats(0.2, 1.0)),
    actions=st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    fill=st.booleans(),
)
def test_no_bound_is_exceeded_though_latency_is_a_staircase(graph, latency, macs, actions, fill):
    env = _env(graph, amc_tf.Budget(latency_ms=latency, macs=macs), fill_budget=fill)
    outcome = _episode(env, actions)
    assert outcome.latency_ms == staircase(outcome.counts) <= latency
    if macs is not None:
        assert outcome.macs <= macs * amc_tf.macs(graph)
    if not fill:
        # Each count is the largest, up to the one wanted, that leaves room for the least later.
        for t, choices in enumerate(env.choices):
            wanted = choices[np.argmin(np.abs(choices - actions[t] * DENSE[t]))]
            later = [c[0] for c in env.choices[t + 1 :]]
            fits = [c for c in choices if env.meets([*outcome.counts[:t], c, *later])]
            assert outcome.counts[t] == max(c for c in fits if c <= wanted)


def test_a_fraction_is_of_the_dense_models_latency(graph):
    env = _env(graph, amc_tf.Budget(latency=0.75))
    assert env.bounds == {"latency": pytest.approx(0.75 * 13.7)}
    both = _env(graph, amc_tf.Budget(macs=0.5, latency_ms=9.0))
    assert both.bounds == {"macs": amc_tf.macs(graph) // 2, "latency": 9.0}


def test_a_count_that_is_larger_and_faster_is_found(graph):
    """All at one ratio: at 0.75 (24, 16 or 20, 28 or 32) it takes more than at 1 for the first."""
    env = _env(graph, amc_tf.Budget(latency_ms=13.0))
    counts = np.rint(np.array(env.fitted(profile("uniform", 3).tolist())) * DENSE)
    assert staircase(counts) <= 13.0
    # 32 channels (6.0 ms) are faster than 20 to 28 (6.6 ms), though there are more of them.
    assert counts[0] == 32
    best = max(
        (sum(c) for c in itertools.product(*env.choices) if staircase(c) <= 13.0),
    )
    assert counts.sum() >= 0.9 * best


def test_a_latency_that_cannot_be_reached(graph):
    with pytest.raises(amc_tf.AmcError, match=r"budget of 2 ms .* smallest reachable is 6\.6 ms"):
        _env(graph, amc_tf.Budget(latency_ms=2.0))
    with pytest.raises(amc_tf.AmcError, match="needs a device"):
        _env(graph, amc_tf.Budget(latency=0.5), latency=None)
    with pytest.raises(amc_tf.AmcError, match="needs a device"):
        _env(graph, None, latency=None, reward="latency")


def test_reward_of_latency(graph):
    env = _env(graph, None, reward="latency")
    outcome = _episode(env, [0.5, 0.5, 0.5])
    assert outcome.reward == pytest.approx(-0.25 * np.log(1e6 * staircase(outcome.counts)))
    slower = REWARDS["latency"](Metric(), 0.75, {"latency": 2 * staircase(outcome.counts)})
    assert slower < outcome.reward < 0


# --- choosing by measurement --------------------------------------------------------------------


class Foreseen:
    """A latency cost of one group: a millisecond a channel, times what a correction says."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, counts):
        return self.factor * counts[0]

    def corrected(self, measured):
        ratios = [ms / counts[0] for counts, ms in measured.items()]
        return Foreseen(np.mean(ratios)) if ratios else self


def _outcomes(*counts):
    """Their rewards in descending order."""
    return [
        Outcome(PruningPlan({"a": range(n)}), (n,), (n / 20,), 0.5, -i / 100, n, n, float(n))
        for i, n in enumerate(counts)
    ]


def _chosen(budget, ranked, really, finalists=1, known=None):
    asked = []

    def measure(outcomes):
        asked.extend(o.counts[0] for o in outcomes)
        return [Measured(really(o.counts[0]), really(20)) for o in outcomes]

    chooser = Chooser(budget, (20,), measure, finalists)
    return chooser(ranked, Foreseen(), {} if known is None else known), asked


def test_the_best_plan_that_is_measured_to_fit_is_chosen():
    ranked = {"amc": _outcomes(10, 9, 8)}
    best, asked = _chosen(amc_tf.Budget(latency_ms=10.0), ranked, lambda n: 1.0 * n)
    assert best["amc"].counts == (10,) and best["amc"].latency_ms == 10.0 and asked == [10]


def test_a_plan_that_breaks_the_budget_is_rejected_and_corrects_the_table():
    # Really a fifth slower than foreseen: after 10, it is known unmeasured that 9 is too slow.
    ranked = {"amc": _outcomes(10, 9, 8, 7), "random": _outcomes(10, 9, 6)}
    known = {}
    budget = amc_tf.Budget(latency_ms=10.0)
    best, asked = _chosen(budget, ranked, lambda n: 1.2 * n, known=known)
    assert best["amc"].counts == (8,) and best["amc"].latency_ms == pytest.approx(9.6)
    assert best["random"].counts == (6,)
    assert asked == [10, 8, 6]
    # Nothing is measured again.
    again, asked = _chosen(budget, ranked, lambda n: 1.2 * n, known=known)
    assert asked == [] and {n: o.counts for n, o in again.items()} == {"amc": (8,), "random": (6,)}


def test_a_fraction_is_of_the_dense_model_measured_beside():
    """Everything takes twice as long as it did: a fraction does not mind, milliseconds do."""
    ranked = {"amc": _outcomes(10, 4)}
    best, _ = _chosen(amc_tf.Budget(latency=0.5), ranked, lambda n: 2.0 * n)
    assert best["amc"].counts == (10,)
    best, _ = _chosen(amc_tf.Budget(latency_ms=10.0), ranked, lambda n: 2.0 * n)
    assert best["amc"].counts == (4,)


def test_policies_without_a_plan_within_the_budget_are_left_out():
    ranked = {"uniform": _outcomes(10), "amc": _outcomes(10, 5)}
    best, asked = _chosen(amc_tf.Budget(latency_ms=10.0), ranked, lambda n: 1.2 * n, finalists=2)
    assert {name: o.counts for name, o in best.items()} == {"amc": (5,)}
    assert asked == [10, 5]


# --- a search -----------------------------------------------------------------------------------


def test_search_by_latency(tmp_path, monkeypatch):
    device = MadeUpDevice()

    def opened(settings):
        return LatencyTable(tmp_path / "t.sqlite", device)

    monkeypatch.setattr(latency_search, "open_table", opened)
    net = blobs.trained(epochs=2)
    budget = amc_tf.Budget(latency=0.7, params=0.9)
    search = blobs.search_settings(
        episodes=2, refit="none", final_refit="none", policies=("amc", "uniform")
    )
    workdir = tmp_path / "run"
    workdir.mkdir()
    found = amc_tf.search_plan(net, blobs.task(), budget, workdir, search)
    kept = json.loads((workdir / "latency.json").read_text())
    measured = {tuple(m["counts"]): m for m in kept["measured"]}
    for outcome in found.best.values():
        m = measured[outcome.counts]
        assert outcome.latency_ms == m["ms"] <= 0.7 * m["dense_ms"]
        assert outcome.params <= 0.9 * amc_tf.params(found.graph)
    assert set(found.bounds) == {"latency", "params"}
    records = [json.loads(line) for line in (workdir / "episodes.jsonl").read_text().splitlines()]
    assert all(r["latency_ms"] <= found.bounds["latency"] for r in records)
    # The report shows what was foreseen of the networks that were measured.
    foreseen = {tuple(r["counts"]): r["latency_ms"] for r in records}
    shown = datasets(read_run(workdir))["latency"]
    finalists = [row for row in shown if row["kind"] == "finalist"]
    assert [(row["foreseen"], row["measured"]) for row in finalists] == [
        (foreseen[counts], m["ms"]) for counts, m in measured.items()
    ]
    assert len(shown) - len(finalists) == len(kept["examples"]) > 1


@pytest.mark.slow
def test_plans_that_all_break_the_budget_a_little_are_made_smaller(tmp_path, monkeypatch):
    device = MadeUpDevice()
    table = LatencyTable(tmp_path / "t.sqlite", device)
    monkeypatch.setattr(latency_search, "open_table", lambda settings: table)
    foreseeing = latency_search.SearchLatency.choose

    def slower(self, *arguments):
        device.pruned = 1.04
        return foreseeing(self, *arguments)

    monkeypatch.setattr(latency_search.SearchLatency, "choose", slower)
    net = blobs.trained(epochs=2)
    search = blobs.search_settings(
        episodes=2, refit="none", final_refit="none", policies=("amc", "uniform")
    )
    for folder in ("run", "run"):  # the second time resumed, from what was measured
        device.pruned, timed = 1.0, len(device.timed)
        found = amc_tf.search_plan(
            net, blobs.task(), amc_tf.Budget(latency=0.7), tmp_path / folder, search
        )
        kept = json.loads((tmp_path / folder / "latency.json").read_text())
        measured = {tuple(m["counts"]): m for m in kept["measured"]}
        # What was foreseen to fill the budget broke it by 4 %, for both policies.
        assert any(m["ms"] > 0.7 * m["dense_ms"] for m in measured.values())
        assert set(found.best) == {"amc", "uniform"}
        for outcome in found.best.values():
            m = measured[outcome.counts]
            assert 0.5 * m["dense_ms"] < outcome.latency_ms == m["ms"] <= 0.7 * m["dense_ms"]
        m = measured[found.best[found.chosen].counts]
        assert found.measured == Measured(m["ms"], m["dense_ms"])
    assert len(device.timed) == timed


def test_a_device_on_which_nothing_fits(graph, tmp_path):
    """Told with what was measured; the next search foresees it."""
    device = MadeUpDevice()
    table = LatencyTable(tmp_path / "t.sqlite", device)
    choices = [np.arange(8, dense + 1, 8) for dense in DENSE]
    arguments = (graph, amc_tf.Budget(latency_ms=0.5), choices)
    settings_ = latency_search.LatencySettings(calibration_plans=3)
    latency = latency_search.SearchLatency(*arguments, tmp_path, settings_, table=table)
    env = DecisionEnv(channel_problem(graph).with_latency(latency.cost), arguments[1])
    outcome = _episode(env, [0.5, 0.5, 0.5])
    assert outcome.latency_ms <= 0.5
    device.whole = 3.0
    with pytest.raises(amc_tf.AmcError, match="none of 1 plans measured is within the budget"):
        latency.choose({"amc": [outcome]})
    assert latency.measured(outcome.counts).ms > 0.5
    # A search that is resumed goes on as it began, another one knows better.
    resumed = latency_search.SearchLatency(*arguments, tmp_path, settings_, table=table)
    assert resumed.cost(outcome.counts) == latency.cost(outcome.counts)
    timed = len(device.timed)
    with pytest.raises(amc_tf.AmcError, match="none of 1 plans"):
        resumed.choose({"amc": [outcome]})
    assert len(device.timed) == timed
    other = tmp_path / "other"
    other.mkdir()
    corrected = latency_search.SearchLatency(*arguments, other, settings_, table=table)
    assert corrected.cost(outcome.counts) > 1.2 * latency.cost(outcome.counts)
