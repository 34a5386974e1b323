"""The verdict, the warnings and the figures: expected words are worked out by hand."""

import dataclasses
import re

import made_up_run
import pytest

from amc_tf.report import html, summary
from amc_tf.report.run import read_run
from amc_tf.runs.result_parts import Milliseconds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(made_up_run.write(tmp_path_factory.mktemp("run") / "whole"))


def changed(run, **sections):
    return dataclasses.replace(run, result=dataclasses.replace(run.result, **sections))


def files(run, **changes):
    """The run with other values of some files, by their formats."""
    tflite = dict(run.result.tflite)
    for known, values in changes.items():
        name = f"model_{known}.tflite"
        tflite[name] = dataclasses.replace(tflite[name], **values)
    return changed(run, tflite=tflite)


def test_the_verdict_is_of_the_fastest_file_within_the_tolerance(run):
    # Of 96,896 bytes 36,672: 2.64; of 0.034 ms 0.017: 2.0; float16 is beyond the tolerance.
    told = summary.verdict(run)
    start = "model_int8.tflite is 2.6x smaller and 2.0x faster than the dense float32 file"
    assert told.startswith(start)
    share = run.result.pruned.macs / run.result.dense.macs
    assert f"with {share:.0%} of the MACs" in told
    assert told.endswith("test accuracy 97.40%, 0.5 points below dense.")  # the file's own


def test_files_that_were_not_timed_are_not_the_fastest(run):
    untimed = files(run, float32={"latency": None, "bytes": 99_999_999})
    assert summary.verdict(untimed).startswith("model_int8.tflite")


def test_no_file_within_the_tolerance(run):
    bad = {"within_tolerance": False}
    told = summary.verdict(files(run, int8=bad, float32=bad, float16=bad))
    assert told.endswith("it has no file within the tolerance beside the dense network's.")


@pytest.mark.parametrize(
    ("dense", "score", "told"),
    [
        (0.979, 0.979, "equal to dense"),
        (0.979, 0.979 + 1e-9, "equal to dense"),
        (0.0, 1.0, "100.0 points above dense"),
        (0.979, 0.9787, "0.03 points below dense"),
        (0.979, float("nan"), "which cannot be compared with dense"),
        (2.0, 3.0, "50.0% above dense"),
        (-1.0, -0.5, "50.0% above dense"),
    ],
)
def test_scores_beside_the_dense_one(run, dense, score, told):
    of = changed(
        run,
        dense=dataclasses.replace(run.result.dense, score=dense),
        tflite={},
        finetuned=dataclasses.replace(run.result.finetuned, score=score),
    )
    assert told in summary.verdict(of) and told in summary.figures(of)[2].detail


def test_costs_of_nothing(run):
    nothing = changed(run, dense=dataclasses.replace(run.result.dense, macs=0))
    nothing = files(nothing, int8={"bytes": 0, "latency": Milliseconds(0.0, 0.0, 0.0)})
    assert "no MACs" in summary.verdict(nothing) and html.run_page(nothing)


def test_what_is_slower_is_marked(run):
    slow = Milliseconds(0.068, 0.067, 0.069)
    slower = files(run, int8={"latency": slow}, float32={"latency": slow})
    (fastest,) = [f for f in summary.figures(slower) if f.name.startswith("fastest")]
    assert fastest.value == "2.0x slower" and fastest.bad
    assert "and 2.0x slower than the dense" in summary.verdict(slower)
    assert 'class="bad"' in html.run_page(slower)


def test_warnings_come_first(run):
    told = summary.warnings(files(run, int8={"latency": Milliseconds(0.1, 0.09, 0.11)}))
    assert told[0] == "model_int8.tflite is 4.8 times as slow as float32 here"
    beyond = "lost more than its tolerance: 50.00% where Keras has 97.50%"
    assert told[1] == f"model_float16.tflite {beyond}"
    page = html.run_page(run)
    assert page.index('class="warnings"') < page.index('class="tiles"') < page.index("<table")


@pytest.mark.parametrize(
    ("score", "longer", "told"), [(0.985, None, True), (0.985, 0.99, False), (0.97, None, False)]
)
def test_a_gain_may_be_the_longer_training(run, score, longer, told):
    dense = dataclasses.replace(run.result.dense, longer_score=longer)
    finetuned = dataclasses.replace(run.result.finetuned, score=score)
    found = summary.warnings(changed(run, dense=dense, finetuned=finetuned))
    assert any("trained for longer" in sentence for sentence in found) == told


def test_scores_without_test_data(run):
    metric = dataclasses.replace(run.scores.metric, data="validation")
    validated = dataclasses.replace(run, scores=dataclasses.replace(run.scores, metric=metric))
    assert any("no test data" in sentence for sentence in summary.warnings(validated))


def test_a_run_on_its_way(tmp_path):
    searched = read_run(made_up_run.write(tmp_path / "search", stage="search"))
    assert "it is not fine-tuned yet" in summary.verdict(searched)
    playing = read_run(made_up_run.write(tmp_path / "cut", stage="episodes"))
    assert summary.verdict(playing) == "" and summary.figures(playing) == []


def test_links_and_contents_lead_somewhere(run, tmp_path):
    page = html.run_page(run, tmp_path)
    for address in re.findall(r"<nav.*?</nav>", page)[0].split('href="#')[1:]:
        assert f'<h2 id="{address.partition(chr(34))[0]}">' in page
    assert len(set(re.findall(r'<h2 id="([^"]+)"', page))) == page.count("<h2 ")
    for address in re.findall(r'<li><a href="([^"]+)"', page):
        assert (tmp_path / address).exists()
