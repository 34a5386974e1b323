"""All stages on a small task: files, result.json, and what may change between two calls."""

import dataclasses
import json
import shlex
import sys

import blobs
import keras
import numpy as np
import pytest

import amc_tf
import tflite_tools
from amc_tf.report import tables
from amc_tf.runs.result import RunResult

FAST = amc_tf.ExportSettings(latency_rounds=1, latency_runs=5, latency_min_secs=0.02)
BUDGET = amc_tf.Budget(macs=0.5)


def _settings(**changes):
    values = {
        "search": blobs.search_settings(episodes=5),
        "finetune": amc_tf.FineTuneSettings(compare=("uniform", "random")),
        "export": FAST,
    }
    return amc_tf.Settings(rehearse=False, **{**values, **changes})


@pytest.fixture(scope="module")
def net():
    return blobs.trained()


@pytest.fixture(scope="module")
def workdir(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    amc_tf.compress(net, blobs.task(), BUDGET, path, _settings())
    return path


@pytest.fixture(scope="module")
def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def test_a_run_leaves_the_files_it_promises(workdir):
    names = {p.name for p in workdir.iterdir()}
    assert names >= {
        "config.json",
        "episodes.jsonl",
        "plan.json",
        "pruned.keras",
        "finetuned.keras",
        "model_float32.tflite",
        "model_int8.tflite",
        "result.json",
        "report.html",
    }
    assert not [n for n in names if "partial" in n]


def test_result_sections(result):
    for section in ("dense", "pruned", "finetuned"):
        assert {"score", "macs", "params"} <= set(result[section])
    assert list(result["budget"]) == ["macs"]
    bound = result["budget"]["macs"]
    assert bound["reached"] == result["pruned"]["macs"] == result["finetuned"]["macs"]
    assert bound["dense"] == result["dense"]["macs"]
    assert bound["reached"] <= bound["bound"] == result["dense"]["macs"] // 2
    assert set(result["policies"]) == set(amc_tf.SearchSettings().policies)
    for policy in result["policies"].values():
        assert policy["macs"] <= bound["bound"]
    tied = result["choice"]["candidates"]
    assert max(c["score"] for c in tied) >= max(
        p["search_score"] for p in result["policies"].values()
    )
    assert tied[0]["score"] == result["policies"][result["chosen"]]["search_score"]
    for name in ("model_float32.tflite", "model_int8.tflite"):
        file = result["tflite"][name]
        assert {"score", "bytes", "latency_ms", "max_abs_error"} <= set(file)
        assert file["latency_ms_min"] <= file["latency_ms"] <= file["latency_ms_max"]
    assert result["episodes"] == 5 and result["seed"] == 0
    assert {"search", "finetune", "export"} <= set(result["seconds"])
    assert {"tensorflow", "keras", "tf-agents", "ai-edge-litert"} <= set(result["versions"])


def test_files_hold_what_result_says(net, workdir, result):
    """Measured again by other means: NumPy on Keras' and LiteRT's own outputs."""
    x, y = blobs.task().test
    for name, section in (("pruned.keras", "pruned"), ("finetuned.keras", "finetuned")):
        model = keras.models.load_model(workdir / name, compile=False)
        logits = model.predict(x, verbose=0)
        assert np.mean(logits.argmax(-1) == y) == pytest.approx(result[section]["score"])
        assert model.count_params() == result[section]["params"]
        graph = amc_tf.analyze(model)
        assert amc_tf.macs(graph) == result[section]["macs"]
    for name, bound in (("model_float32.tflite", 1e-4), ("model_int8.tflite", 2.0)):
        content = (workdir / name).read_bytes()
        told = result["tflite"][name]
        outputs = tflite_tools.LiteRtModel(content).predict(x)
        assert np.mean(outputs.argmax(-1) == y) == pytest.approx(told["score"])
        assert told["bytes"] == len(content)
        assert np.abs(outputs - logits).max() == pytest.approx(told["max_abs_error"], rel=1e-3)
        assert told["max_abs_error"] < bound
    plan = amc_tf.PruningPlan.load(workdir / "plan.json")
    assert amc_tf.macs(amc_tf.analyze(net), plan) == result["pruned"]["macs"]


def test_the_dense_model_is_left_as_it_was(net):
    again = blobs.trained()
    for a, b in zip(net.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_files_need_no_custom_objects_of_the_training_code(net, tmp_path):
    """A loss that nobody registered must not keep later stages, or users, from loading files."""
    base = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def own_loss(y_true, y_pred):
        return base(y_true, y_pred)

    def compile_own(model):
        model.compile("adam", own_loss, metrics=["accuracy"])

    settings = _settings(
        finetune=amc_tf.FineTuneSettings(),
        search=blobs.search_settings(episodes=1, policies=("amc",)),
        train_dense=True,
    )
    task = blobs.task(compile=compile_own, epochs=1)
    result = amc_tf.compress(blobs.model(), task, BUDGET, tmp_path, settings)
    assert result["tflite"]["model_float32.tflite"]["score"] > 0.3
    for name in ("dense.keras", "pruned.keras", "finetuned.keras"):
        assert not keras.models.load_model(tmp_path / name).compiled


def test_fine_tuning_helps(result):
    # Which of the two is kept is decided on the validation data; these are scores on 200 others.
    assert result["finetuned"]["score"] > result["pruned"]["score"] - 0.03
    assert result["finetuned"]["score"] > 0.85
    assert {"uniform", "random", result["chosen"]} <= {
        n for n, p in result["policies"].items() if "finetuned_score" in p
    }


def test_the_table_shows_the_numbers(result):
    text = tables.table(RunResult.from_json(result))
    assert f"{result['dense']['macs']:,}" in text
    assert f"{result['finetuned']['score']:.2%}" in text
    assert f"{result['tflite']['model_int8.tflite']['bytes']:,}" in text
    early = {k: v for k, v in result.items() if k not in ("tflite", "finetuned")}
    assert "uniform" in tables.table(RunResult.from_json(early))


def test_the_report_is_of_all_stages_and_says_how_to_repeat_them(workdir, result):
    page = (workdir / "report.html").read_text()
    assert f"{result['finetuned']['score']:.2%}" in page
    assert f"{result['tflite']['model_int8.tflite']['bytes']:,}" in page
    assert set(result["commands"]) == {"search", "finetune", "export"}
    (command,) = set(result["commands"].values())
    assert shlex.split(command)[1:] == sys.orig_argv[1:]
    layers = json.loads((workdir / "search.json").read_text())
    after = layers["plans"][result["chosen"]]
    assert sum(after["macs"]) == result["pruned"]["macs"]
    assert sum(after["params"]) == result["pruned"]["params"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "trainings"),
    [({}, 1), ({"steps": 2, "distill": 0.5, "distill_features": 0.5, "keep": "last"}, 2)],
)
def test_the_dense_network_is_trained_for_as_long(net, tmp_path, changes, trainings):
    trained = []
    default = blobs.task()

    def fine_tune(model):
        trained.append(model.count_params())
        model.fit(*default.train, epochs=2, verbose=0)

    settings = _settings(
        search=blobs.search_settings(episodes=1, policies=()),
        finetune=amc_tf.FineTuneSettings(compare=("dense_longer",), **changes),
        export=dataclasses.replace(FAST, formats=("float32",), latency_rounds=0),
    )
    weights = [weight.numpy() for weight in net.weights]
    found = amc_tf.compress(net, blobs.task(fine_tune=fine_tune), BUDGET, tmp_path, settings)
    assert len(trained) == 2 * trainings and trained[trainings - 1] == found.finetuned.params
    assert trained[trainings:] == [net.count_params()] * trainings
    longer = amc_tf.load_model(tmp_path / "plans/dense_longer_finetuned.keras")
    default.compiled(longer, net)
    assert found.dense.longer_score == pytest.approx(default.score(longer, default.test_data))
    (row,) = [line for line in str(found).splitlines() if line.startswith("dense ")]
    assert row.count("%") == 4  # before and after, each with its error
    assert "trained for longer" not in found.report.read_text()
    for before, weight in zip(weights, net.weights, strict=True):
        assert (before == weight.numpy()).all()
    kept = found["products"]["finetune"]["plans/dense_longer_finetuned.keras"]
    assert kept["of"]  # what it was made of, so that it is made again only if that changes


def test_the_returned_result_is_that_of_the_files(net, workdir, result, capsys):
    found = amc_tf.compress(net, blobs.task(), BUDGET, workdir, _settings())
    printed = capsys.readouterr().out
    assert "search: done before\nfinetune: done before\nexport: done before\n" in printed
    assert printed.endswith(f"{found}\n") and f"report: {workdir / 'report.html'}" in printed
    assert found.to_json() == result and found["finetuned"] == result["finetuned"]
    assert found.finetuned.score == result["finetuned"]["score"]
    assert found.model.count_params() == result["finetuned"]["params"]
    assert found.files == {n: workdir / f"model_{n}.tflite" for n in ("float32", "int8")}
    assert all(path.exists() for path in (*found.files.values(), found.report))
    page = found._repr_html_()
    assert page.count("<table>") == 2 and "model_int8.tflite" in page


def test_an_interruption_says_how_to_go_on(net, tmp_path):
    def evaluate(model, data):
        raise KeyboardInterrupt

    task = blobs.task(evaluate=evaluate, metric="own", mode="max")
    with pytest.raises(KeyboardInterrupt, match=rf"kept in {tmp_path}; the same call goes on"):
        amc_tf.compress(net, task, BUDGET, tmp_path, _settings())


def test_a_second_call_repeats_nothing(net, workdir, monkeypatch):
    def never(*_, **__):
        raise AssertionError("nothing may be trained again")

    monkeypatch.setattr(keras.Model, "fit", never)
    task = blobs.task()

    def times():
        found = [p for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"]
        return {p: p.stat().st_mtime_ns for p in found}

    before = times()
    amc_tf.compress(net, task, BUDGET, workdir, _settings())
    assert times() == before


def test_another_configuration_is_refused_and_names_the_difference(net, workdir):
    with pytest.raises(amc_tf.AmcError, match="search.episodes: 5 there, 9 now"):
        changed = _settings(search=blobs.search_settings(episodes=9))
        amc_tf.compress(net, blobs.task(), BUDGET, workdir, changed)
    with pytest.raises(amc_tf.AmcError, match="budget.macs: 0.5 there, 0.6 now"):
        amc_tf.compress(net, blobs.task(), amc_tf.Budget(macs=0.6), workdir, _settings())
    with pytest.raises(amc_tf.AmcError, match="other weights"):
        amc_tf.compress(blobs.trained(1), blobs.task(), BUDGET, workdir, _settings())


def test_changed_stages_are_made_again_and_earlier_ones_kept(net, workdir, result):
    trained = []
    default = blobs.task()

    def fit(model):
        trained.append(model.name)
        model.fit(*default.train, epochs=1, verbose=0)

    settings = _settings(finetune=amc_tf.FineTuneSettings(compare=()))
    episodes = (workdir / "episodes.jsonl").read_bytes()
    again = amc_tf.compress(net, blobs.task(fit=fit), BUDGET, workdir, settings)
    assert len(trained) == 1
    assert (workdir / "episodes.jsonl").read_bytes() == episodes
    assert again["pruned"] == result["pruned"]
    floats_only = dataclasses.replace(FAST, formats=("float32",), latency_rounds=0)
    again = amc_tf.compress(
        net, blobs.task(), BUDGET, workdir, dataclasses.replace(settings, export=floats_only)
    )
    assert "model_int8.tflite" not in again["tflite"]
    assert not (workdir / "model_int8.tflite").exists()  # it was of the network before
    assert "latency_ms" not in {**again["tflite"]["model_float32.tflite"], **again["finetuned"]}


def test_stages_need_the_ones_before(net, tmp_path):
    run = amc_tf.Compression(net, blobs.task(), BUDGET, tmp_path, _settings())
    with pytest.raises(amc_tf.AmcError, match="run amc-search first"):
        run.finetune()
    with pytest.raises(amc_tf.AmcError, match="run amc-finetune first"):
        run.export()


def test_training_the_dense_model_happens_once(tmp_path):
    settings = _settings(train_dense=True, search=blobs.search_settings(episodes=1))
    keras.utils.set_random_seed(1)
    first = amc_tf.Compression(blobs.model(), blobs.task(), BUDGET, tmp_path, settings)
    keras.utils.set_random_seed(1)
    again = amc_tf.Compression(blobs.model(), blobs.task(fit=None), BUDGET, tmp_path, settings)
    for a, b in zip(first.dense.weights, again.dense.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.task.score(first.task.compiled(first.dense, first.dense), first.task.test) > 0.5


def test_bad_input_is_refused_before_the_workdir_is_touched(net, tmp_path):
    x, y = blobs.data(20, 0)
    for task, message in (
        (blobs.task(validation=(x, y + 9)), "labels range"),
        (blobs.task(metric="auc"), "does not report"),
    ):
        with pytest.raises(amc_tf.AmcError, match=message):
            amc_tf.compress(net, task, BUDGET, tmp_path / "new", _settings())
        assert not (tmp_path / "new").exists()
    with pytest.raises(amc_tf.AmcError, match="smallest reachable"):
        settings = _settings(train_dense=True)  # refused before the training
        untrained = blobs.task(fit=None)
        amc_tf.compress(net, untrained, amc_tf.Budget(macs=0.001), tmp_path / "new", settings)
    assert not (tmp_path / "new").exists()
    with pytest.raises(amc_tf.AmcError, match="cannot be written"):
        (tmp_path / "file").touch()
        amc_tf.compress(net, blobs.task(), BUDGET, tmp_path / "file", _settings())
