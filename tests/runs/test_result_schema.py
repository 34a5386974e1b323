"""The schema of result.json: what this version and earlier ones wrote is read."""

from __future__ import annotations

import copy
import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import pytest
from places import DATA

import amc_tf
from amc_tf.report import tables
from amc_tf.runs import layout
from amc_tf.runs.choice import Candidate, Choice
from amc_tf.runs.result import FORMAT, ExportResult, RunResult, SparseResult
from amc_tf.runs.result_parts import (
    Bound,
    DenseNetwork,
    Exported,
    FinetunedNetwork,
    Measures,
    Milliseconds,
    PolicyNetwork,
    Scored,
    SparseRound,
)
from tflite_tools.verification import OutputError

# Written before there was a format: by the stages search, finetune and export.
_TEXT = (DATA / "result_without_format.json").read_text()
OLD = json.loads(_TEXT)
# What this version writes of it: the same in the same order, but for the names of scores.
NOW = json.loads(_TEXT.replace('accuracy"', 'score"'))

NUMBERS = st.floats(0, 1e9)
COUNTS = st.integers(0, 10**12)
NAMES = st.text(min_size=1, max_size=8)


def _some(values):
    return st.dictionaries(NAMES, values, max_size=3)


LATENCIES = st.builds(Milliseconds, NUMBERS, NUMBERS, NUMBERS)
ERRORS = st.builds(OutputError, NUMBERS, NUMBERS, NUMBERS, st.none() | NUMBERS)
TEXTS = st.lists(NAMES, max_size=2).map(tuple)
EXPORTED = st.builds(
    Exported,
    *(NUMBERS, COUNTS, NUMBERS, st.none() | NUMBERS),
    *(_some(ERRORS), TEXTS, TEXTS, TEXTS, st.booleans(), _some(NUMBERS), _some(NUMBERS)),
    st.none() | LATENCIES,
)
# Keys that a later version might add within the same format.
OTHERS = st.dictionaries(st.sampled_from(["note", "hardware"]), NUMBERS, max_size=2)
ROUNDS = st.builds(SparseRound, NUMBERS, COUNTS, COUNTS, NUMBERS, NUMBERS, NUMBERS)
SPARSE = st.builds(
    SparseResult,
    dense=st.none() | st.builds(Scored, NUMBERS),
    rounds=st.lists(ROUNDS, max_size=3).map(tuple),
    others=OTHERS,
)
STANDALONE = st.builds(
    ExportResult,
    keras=st.none() | st.builds(Scored, NUMBERS),
    tflite=_some(EXPORTED),
    others=OTHERS,
)
POLICIES = st.builds(PolicyNetwork, NUMBERS, COUNTS, COUNTS, NUMBERS, NUMBERS, st.none() | NUMBERS)
FINETUNED = st.builds(
    FinetunedNetwork, NUMBERS, COUNTS, COUNTS, st.none() | COUNTS, st.none() | LATENCIES
)
CANDIDATES = st.builds(Candidate, NAMES, NUMBERS, NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS)
CHOICES = st.builds(
    Choice, NAMES, st.lists(CANDIDATES, min_size=1, max_size=3).map(tuple), st.none() | COUNTS
)
RUNS = st.builds(
    RunResult,
    seconds=_some(NUMBERS),
    commands=_some(NAMES),
    dense=st.none() | st.builds(DenseNetwork, NUMBERS, COUNTS, COUNTS, NUMBERS),
    pruned=st.none() | st.builds(Measures, NUMBERS, COUNTS, COUNTS),
    budget=st.none() | _some(st.builds(Bound, NUMBERS, NUMBERS, NUMBERS)),
    policies=_some(POLICIES),
    chosen=st.none() | NAMES,
    choice=st.none() | CHOICES,
    reward=st.none() | NAMES,
    episodes=st.none() | COUNTS,
    seed=st.none() | COUNTS,
    versions=_some(NAMES),
    finetuned=st.none() | FINETUNED,
    tflite=_some(EXPORTED),
    sparse=st.none() | SPARSE,
    others=OTHERS,
)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(RUNS | SPARSE | STANDALONE)
def test_what_is_written_is_read(result):
    content = result.to_json()
    assert content["format"] == FORMAT
    assert type(result).from_json(json.loads(json.dumps(content))) == result


def test_a_folder_keeps_it(tmp_path):
    assert RunResult.read(tmp_path) == RunResult()
    result = RunResult.from_json(OLD)
    result.write(tmp_path)
    assert RunResult.read(tmp_path) == result
    assert json.loads((tmp_path / layout.RESULT).read_text()) == {"format": FORMAT, **NOW}


def test_what_an_earlier_version_wrote_keeps_its_keys_and_their_order():
    found = RunResult.from_json(OLD).to_json()
    assert found == {"format": FORMAT, **NOW}
    for name in ("policies", "tflite", "finetuned", "seconds"):
        assert json.dumps(found[name]) == json.dumps(NOW[name])


def test_results_of_some_stages():
    searched = {k: v for k, v in NOW.items() if k not in ("finetuned", "tflite")}
    result = RunResult.from_json(searched)
    assert result.finetuned is None and not result.tflite
    assert result.to_json() == {"format": FORMAT, **searched}
    assert RunResult.from_json(OLD).without("finetuned", "tflite") == result
    assert "uniform" in tables.table(result) and "finetuned.keras" not in tables.table(result)
    assert RunResult().to_json() == {"format": FORMAT}


def test_the_tables_say_which_plans_cannot_be_told_apart():
    choice = Choice(
        "KL divergence",
        (Candidate("amc", 0.9, 0.0, 0.0, 0.02), Candidate("random", 0.9, 0.0, 0.01, 0.03)),
        634,
    )
    result = dataclasses.replace(RunResult.from_json(OLD), choice=choice)
    told = (
        "the best plans (1 of AMC, 1 of random) cannot be told apart by accuracy on 634 validation "
        "samples; one of AMC was chosen, whose outputs are nearest the dense network's (KL "
        "divergence 0.02)"
    )
    assert told in tables.table(result) and told not in tables.table(RunResult.from_json(OLD))


def test_a_search_without_a_budget_says_so():
    priced = {**OLD, "budget": None}
    result = RunResult.from_json(priced)
    assert result.budget == {} and result.to_json()["budget"] is None
    assert "budget" not in RunResult.from_json({"seconds": {"train_dense": 1.0}}).to_json()


def test_a_stage_adds_to_mappings_and_replaces_the_rest():
    result = RunResult.from_json(OLD)
    dense = dataclasses.replace(result.dense, score=0.5)
    found = result.updated(seconds={"search": 1.0, "sparsify": 2.0}, dense=dense)
    assert list(found.seconds.items())[0] == ("search", 1.0)
    assert found.seconds == {**OLD["seconds"], "search": 1.0, "sparsify": 2.0}
    assert found.dense.score == 0.5 and found.tflite == result.tflite


def test_unknown_keys():
    """Those of the top level stay in the file; within a section they are left out."""
    content = copy.deepcopy(OLD)
    content["note"] = "mine"
    content["dense"]["colour"] = "red"
    assert RunResult.from_json(content).to_json() == {"format": FORMAT, **NOW, "note": "mine"}


@pytest.mark.parametrize("kind", [RunResult, SparseResult, ExportResult])
@pytest.mark.parametrize("number", [FORMAT + 1, "amc_tf.Result/1", -1, None])
def test_another_format_is_refused(tmp_path, kind, number):
    (tmp_path / layout.RESULT).write_text(json.dumps({"format": number}))
    message = f"result.json cannot be read: the format {number!r} .* formats up to {FORMAT}: use"
    with pytest.raises(amc_tf.AmcError, match=message):
        kind.read(tmp_path)


def test_a_part_that_lacks_a_key_is_refused(tmp_path):
    content = {**OLD, "dense": {"score": 0.9, "params": 3}}
    (tmp_path / layout.RESULT).write_text(json.dumps(content))
    with pytest.raises(amc_tf.AmcError, match="a DenseNetwork without macs and search_score"):
        RunResult.read(tmp_path)


def test_the_folder_of_fine_grained_pruning_is_a_run_of_that_alone():
    round_ = SparseRound(0.5, macs=10, params=5, search_score=0.8, before=0.7, score=0.85)
    found = SparseResult(dense=Scored(0.9), rounds=(round_,))
    run = RunResult.from_json(found.to_json())
    assert run.sparse == found and run.dense is None
