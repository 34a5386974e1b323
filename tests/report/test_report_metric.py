"""Reports speak of the run's own metric, of the data it measures, and of how uncertain it is."""

import json

import made_up_run
import pytest

from amc_tf.report import charts, comparison, export_table, html, rows
from amc_tf.report.run import front, read_run
from amc_tf.report.tables import table
from amc_tf.runs.result import ExportResult
from amc_tf.training.metric import Metric

MAE = {
    **{"name": "mae", "mode": "min", "title": "MAE", "fraction": False, "per_sample": False},
    **{"signed": False, "data": "validation"},
}
UNCERTAINTY = {"samples": {"validation": 100}, "deviation": 0.4}  # 0.4 / sqrt(100) = 0.04


def _with_metric(folder, metric, uncertainty):
    for name in ("search.json", "result.json"):
        content = json.loads((folder / name).read_text())
        told = {"metric": metric, "uncertainty": uncertainty}
        (folder / name).write_text(json.dumps({**content, **told}))
    return folder


@pytest.fixture
def by_mae(tmp_path):
    return _with_metric(made_up_run.write(tmp_path / "by_mae"), MAE, UNCERTAINTY)


@pytest.fixture
def by_accuracy(tmp_path):
    known = {"samples": {"validation": 96, "test": 9996}, "deviation": None}
    folder = made_up_run.write(tmp_path / "by_accuracy")
    return _with_metric(folder, vars(Metric()), {**known, "deviation": 0.4})


def test_tables_of_an_error(by_mae):
    result = read_run(by_mae).result
    text = table(result)
    assert "accuracy" not in text and "network" in text
    assert f"{result.dense.score:.4g} ± 0.04" in text  # 0.979
    assert "MAE (lower is better) on the validation data, ± its standard error" in text
    assert "MAE of the file itself on the validation data" in text
    for line in text.splitlines():
        if line.startswith(("dense", "AMC", "uniform")):
            assert "%" not in line


def test_a_page_says_on_how_many_samples_episodes_were_scored(by_mae):
    said = "scored on 50 of 100 samples, the best plans then on all"
    for samples, told in ((50, True), (100, False), (None, False)):
        search = json.loads((by_mae / "search.json").read_text())
        (by_mae / "search.json").write_text(json.dumps({**search, "episode_samples": samples}))
        page = html.write_report([by_mae]).read_text()
        assert (said in page) == told
        # 0.4 / sqrt(50) = 0.057, 0.4 / sqrt(100) = 0.04.
        spread = read_run(by_mae).scores.spread(0.979)
        assert spread.startswith(f"standard error {'0.057' if told else '0.04'} of")
        assert spread.endswith(f"({50 if told else 100} samples)")
        assert spread.split(" of ")[0] in page


def test_tables_of_a_fraction(by_accuracy):
    result = read_run(by_accuracy).result
    text = table(result)
    # (0.979 * 9996 + 2) / 10000 = 0.97881, and sqrt(0.97881 * 0.02119 / 10000) = 0.00144.
    assert "97.90% ± 0.14%" in text
    assert "accuracy on the test data, ± its standard error" in text


def test_pages_of_an_error(by_mae):
    run = read_run(by_mae)
    page = html.run_page(run)
    body = page[page.index("<body>") : page.index("<script")]
    assert "accuracy" not in body.lower()
    for words in ("validation MAE", "MAE, lower is better", "standard error 0.04", "100 samples"):
        assert words in body, words
    assert "cannot be told apart" not in body  # 0.04 of 0.978 is 4.1 %
    made = {chart.name: chart for chart in charts.charts(run, rows.datasets(run))}
    drawn = json.dumps(made["score"].spec)
    assert '"title": "validation MAE (lower is better)"' in drawn
    assert "datum.score <= least" in drawn and "%" not in drawn.replace(".2%", "").replace("~p", "")
    worst = max(episode["score"] for episode in run.episodes)
    (least,) = [p for p in made["score"].spec["params"] if p["name"] == "least"]
    assert least["value"] == worst and least["bind"]["options"][1] < worst


def test_a_page_says_that_plans_cannot_be_told_apart(tmp_path):
    known = {"samples": {"validation": 10}, "deviation": 0.5}
    folder = _with_metric(made_up_run.write(tmp_path / "few"), MAE, known)
    assert "cannot be told apart" in html.run_page(read_run(folder))


def test_the_front_of_an_error_goes_down():
    points = [(0.1, 5.0), (0.2, 6.0), (0.3, 3.0), (0.3, 2.0), (0.4, 2.0), (0.5, 1.0)]
    episodes = [{"macs_share": share, "score": score} for share, score in points]
    found = [(e["macs_share"], e["score"]) for e in front(episodes, "macs", Metric(**MAE))]
    assert found == [(0.1, 5.0), (0.3, 2.0), (0.5, 1.0)]


def test_runs_of_different_metrics_are_not_compared(by_mae, by_accuracy):
    runs = [read_run(by_mae), read_run(by_accuracy)]
    results = comparison.tables(runs)[0]
    assert "different metrics" in results.note and results.header[3] == "score"
    assert results.rows[0][3].startswith("MAE 0.") and results.rows[1][3].startswith("accuracy ")
    assert comparison.charts(runs, comparison.datasets(runs)) == []
    same = [read_run(by_mae), read_run(by_mae)]
    results = comparison.tables(same)[0]
    assert results.header[3] == "MAE" and "MAE (lower is better)" in results.note
    assert "validation data" in results.note
    drawn = json.dumps([chart.spec for chart in comparison.charts(same, comparison.datasets(same))])
    assert "validation MAE (lower is better)" in drawn


def test_a_run_of_an_earlier_version_is_of_accuracies(tmp_path):
    run = read_run(made_up_run.write(tmp_path / "old"))
    assert run.scores.metric == Metric() and "97.90%" in table(run.result)
    assert "±" not in table(run.result)


def test_what_is_no_fraction_after_all_is_no_percentage(tmp_path):
    folder = _with_metric(made_up_run.write(tmp_path / "run"), vars(Metric()), UNCERTAINTY)
    path = folder / "episodes.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps({**r, "score": 100 * r["score"]}) + "\n" for r in records]
    path.write_text("".join(lines))
    assert read_run(folder).scores.form == ".4~g"


def test_the_table_of_files():
    file = {"score": 1.5, "bytes": 7, "max_abs_error": 0.1, "within_tolerance": False}
    content = {"keras": {"score": 1.25}, "tflite": {"a.tflite": file}, "metric": MAE}
    text = export_table.table(ExportResult.from_json(content), 0.01)
    assert "MAE" in text and "1.25" in text and "accuracy" not in text
    assert "a.tflite: MAE is worse than Keras' by more than 0.01 of it" in text
