"""Work directories of version 0.1.0 are resumed, left as they are, and shown.

`data/old_workdirs.tar.gz` holds a model of blobs.py and two runs on it: `finished`, and
`interrupted` after eight episodes.
"""

import json
import tarfile

import blobs
import keras
import pytest
from places import DATA

import amc_tf
from amc_tf.report.html import write_report
from amc_tf.report.run import read_run
from amc_tf.runs.episode_log import read_log

ARCHIVE = DATA / "old_workdirs.tar.gz"
BUDGET = amc_tf.Budget(macs=0.5)
# The defaults of that version.
FORMER = {
    "reward": "err",
    "policies": ("amc", "random", "uniform", "shallow", "deep"),
    "importance": "consumer_magnitude",
    "sensitivity": False,
    "episode_samples": None,
    "min_preserve": 0.2,
    "early_stop": None,
}
SETTINGS = amc_tf.Settings(
    rehearse=False,
    search=blobs.search_settings(**FORMER),
    export=amc_tf.ExportSettings(latency_rounds=1, latency_min_secs=0.02),
)


@pytest.fixture
def old(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def net(old):
    return keras.models.load_model(old / "model.keras")


def _lines(workdir):
    return (workdir / "episodes.jsonl").read_text().splitlines()


def _told(workdir):
    """The episodes of a log without what differs between any two runs."""
    records = read_log(workdir / "episodes.jsonl")
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def test_an_interrupted_search_goes_on(old, net):
    workdir, whole = old / "interrupted", old / "finished"
    before = _lines(workdir)
    assert len(before) == 8
    found = amc_tf.Compression(net, blobs.task(), BUDGET, workdir, SETTINGS).search()
    assert _lines(workdir)[:8] == before
    after, expected = _told(workdir), _told(whole)
    assert [record.keys() for record in after] == [record.keys() for record in expected]
    for record, other in zip(after, expected, strict=True):
        assert (record["policy"], record["episode"]) == (other["policy"], other["episode"])
        # These policies do not learn, so that no last digit of a score leads them elsewhere.
        if record["policy"] != "amc":
            assert record["counts"] == other["counts"]
    assert found.plan == amc_tf.PruningPlan.load(workdir / "plan.json")
    # On another processor, the agent may learn something else in the last digits, and one image
    # in two hundred may change its class. Where neither happens, all else is the same, too.
    if after == expected:
        told = json.loads((whole / "search.json").read_text().replace('"accuracy"', '"score"'))
        now = json.loads((workdir / "search.json").read_text())
        # That version chose by the score alone; this one builds another plan of the chosen
        # policy where scores do not tell its plans apart.
        assert found.choice.by == "KL divergence"
        best = max(record["score"] for record in after)
        assert max(c.score for c in found.choice.candidates) == best
        for content in (told, now):
            del content["plans"][found.chosen]
        assert {key: now[key] for key in told} == told
        assert now["metric"]["title"] == "accuracy" and now["uncertainty"]


def test_a_finished_run_repeats_no_stage(old, net):
    workdir = old / "finished"
    stamps = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in workdir.rglob("*") if p.is_file()}
    result = amc_tf.compress(net, blobs.task(), BUDGET, workdir, SETTINGS)
    # The file is as it was; what is returned has the format and the names of this version.
    text = (workdir / "result.json").read_text()
    assert result.to_json() == {"format": 2, **json.loads(text.replace('accuracy"', 'score"'))}
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in stamps} == stamps


def test_a_search_that_began_without_sensitivity_does_not_go_on_with_it(old, net):
    search = blobs.search_settings(**{**FORMER, "sensitivity": True})
    settings = amc_tf.Settings(rehearse=False, search=search)
    before = (old / "interrupted" / "episodes.jsonl").read_bytes()
    with pytest.raises(amc_tf.AmcError, match="search.sensitivity: False there, True now"):
        amc_tf.Compression(net, blobs.task(), BUDGET, old / "interrupted", settings).search()
    assert (old / "interrupted" / "episodes.jsonl").read_bytes() == before


def test_a_finished_run_is_shown(old):
    run = read_run(old / "finished")
    assert len(run.episodes) == 15 and run.policies[0] == "amc"
    assert run.result.chosen == "amc" and set(run.files) == {
        "model_float32.tflite",
        "model_int8.tflite",
    }
    page = write_report([old / "finished"])
    assert page == old / "finished/report.html" and "int8" in page.read_text()
