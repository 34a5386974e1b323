"""A run without training data: recovery takes the place of fine-tuning."""

import json

import blobs
import keras
import numpy as np
import pytest

import amc_tf
from amc_tf.runs.result import RunResult

BUDGET = amc_tf.Budget(macs=0.4)
IMAGES = blobs.data(120, 3)[0]


def _settings(**changes):
    values = {
        "search": blobs.search_settings(episodes=3, policies=("amc", "uniform")),
        "recovery": amc_tf.RecoverySettings(views=1500, batch_size=16),
        "export": amc_tf.ExportSettings(
            formats=("float32",), latency_rounds=1, latency_runs=2, latency_min_secs=0.01
        ),
    }
    return amc_tf.Settings(**{"rehearse": False, **values, **changes})


def _task(**changes):
    return blobs.task(**{"train": None, "calibration": IMAGES, **changes})


@pytest.fixture(scope="module")
def net():
    return blobs.trained()


@pytest.fixture(scope="module")
def workdir(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    settings = _settings(finetune=amc_tf.FineTuneSettings(compare=("uniform",)), rehearse=True)
    amc_tf.compress(net, _task(), BUDGET, path, settings)
    return path


def test_a_run_without_labels_for_training_ends_with_the_recovered_network(net, workdir):
    result = RunResult.read(workdir)
    chosen = result.chosen
    assert set(result.recoveries) == {chosen, "uniform"}
    told = result.recoveries[chosen]
    assert (told.images, told.held_out, told.measure) == (120, 200, "KL divergence")
    assert told.after < told.before and told.kept > 0 and told.seconds > 0
    models = [
        keras.models.load_model(workdir / f"{name}.keras", compile=False)
        for name in ("pruned", "recovered", "finetuned")
    ]
    x = blobs.data(50, 5)[0]
    pruned, recovered, final = (m.predict(x, verbose=0) for m in models)
    np.testing.assert_array_equal(recovered, final)
    dense = net.predict(x, verbose=0)
    assert np.square(final - dense).mean() < np.square(pruned - dense).mean()
    assert result.finetuned is not None and not result.finetuned.trained
    assert (workdir / "plans" / "uniform_recovered.keras").exists()
    assert not list((workdir / "plans").glob("*.npz"))
    assert "one step of recovery" in result.rehearsal
    assert "one step of training" not in result.rehearsal


def test_tables_and_report_say_what_was_done(workdir):
    from amc_tf.report import tables

    result = RunResult.read(workdir)
    told = tables.table(result)
    assert "recovered" in told and "fine-tuned" not in told
    page = (workdir / "report.html").read_text()
    assert "120 calibration images, without labels; that after epoch" in page
    assert "before recovery" in page


def test_what_is_recovered_is_not_recovered_again(net, workdir, monkeypatch):
    from amc_tf.pipeline import recovery_stage

    monkeypatch.setattr(recovery_stage, "recover", lambda *args: pytest.fail("again"))
    settings = _settings(finetune=amc_tf.FineTuneSettings(compare=("uniform",)))
    run = amc_tf.Compression(net, _task(), BUDGET, workdir, settings)
    run.finetune()
    assert RunResult.read(workdir).recoveries


def test_other_settings_of_the_recovery_make_it_anew_and_drop_what_came_of_it(net, tmp_path):
    amc_tf.compress(net, _task(), BUDGET, tmp_path, _settings())
    first = RunResult.read(tmp_path)
    other = _settings(recovery=amc_tf.RecoverySettings(views=3000, batch_size=16))
    amc_tf.compress(net, _task(), BUDGET, tmp_path, other)
    second = RunResult.read(tmp_path)
    (a,), (b,) = first.recoveries.values(), second.recoveries.values()
    assert b.epochs > a.epochs or b.kept != a.kept
    assert first.seconds["search"] == second.seconds["search"]
    assert first.tflite != second.tflite


@pytest.mark.slow
def test_with_training_data_it_runs_only_if_it_is_asked_for(net, tmp_path):
    search = {"search": blobs.search_settings(episodes=2, policies=("amc",))}
    task = blobs.task(calibration=IMAGES)
    amc_tf.compress(net, task, BUDGET, tmp_path / "a", _settings(**search))
    assert not RunResult.read(tmp_path / "a").recoveries
    always = amc_tf.RecoverySettings(when="always", views=300, batch_size=16)
    amc_tf.compress(net, task, BUDGET, tmp_path / "b", _settings(**search, recovery=always))
    result = RunResult.read(tmp_path / "b")
    assert list(result.recoveries) == [result.chosen]
    assert result.finetuned is not None and result.finetuned.trained
    assert result.finetuned.validation_after is not None


def test_without_recovery_the_pruned_network_is_exported_and_that_is_told(net, tmp_path, caplog):
    never = _settings(recovery=amc_tf.RecoverySettings(when="never"))
    amc_tf.compress(net, _task(), BUDGET, tmp_path, _settings())
    amc_tf.compress(net, _task(), BUDGET, tmp_path, never)
    assert "there is nothing to train pruned networks with" in caplog.text
    assert not RunResult.read(tmp_path).recoveries  # of the settings before
    page = (tmp_path / "report.html").read_text()
    assert "without labels" not in page and "recovered" not in page
    pruned, final = (
        keras.models.load_model(tmp_path / f"{name}.keras", compile=False)
        for name in ("pruned", "finetuned")
    )
    for a, b in zip(pruned.weights, final.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_user_s_own_code_fine_tunes_without_training_data(net, tmp_path):
    trained = []
    task = _task(fine_tune=lambda model: trained.append(model.count_params()))
    amc_tf.compress(net, task, BUDGET, tmp_path, _settings())
    assert trained and not RunResult.read(tmp_path).recoveries


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_dense": True}, "train_dense.*no training data"),
        ({"export": amc_tf.ExportSettings(formats=("int8_qat",))}, "int8_qat needs training data"),
        ({"search": amc_tf.SearchSettings(importance="taylor")}, "needs labelled training data"),
    ],
)
def test_what_needs_training_data_is_refused_before_work(net, tmp_path, settings, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        amc_tf.compress(net, _task(), BUDGET, tmp_path / "run", _settings(**settings))
    assert not (tmp_path / "run").exists()


def test_without_training_data_calibration_inputs_are_needed():
    with pytest.raises(amc_tf.AmcError, match=r"give Task\(calibration=...\), unlabelled inputs"):
        blobs.task(train=None)
    task = _task()
    with pytest.raises(amc_tf.AmcError, match=r"no training data; give Task\(train=...\)"):
        _ = task.training_data
    with pytest.raises(amc_tf.AmcError, match=r"no training data; give Task\(train=...\)"):
        task.train_pruned(blobs.model())


def test_a_damaged_recovered_network_is_made_again(net, workdir):
    path = workdir / "recovered.keras"
    path.write_bytes(path.read_bytes()[:1000])
    settings = _settings(finetune=amc_tf.FineTuneSettings(compare=("uniform",)))
    amc_tf.Compression(net, _task(), BUDGET, workdir, settings).finetune()
    keras.models.load_model(path, compile=False)
    assert json.loads((workdir / "result.json").read_text())["recoveries"]


@pytest.mark.slow
def test_an_undone_fine_tuning_stays_told_where_a_recovery_came_before(net, tmp_path):
    def ruin(model):
        model.set_weights([np.zeros_like(w) for w in model.get_weights()])

    always = amc_tf.RecoverySettings(when="always", views=300, batch_size=16)
    settings = _settings(recovery=always)
    for seed in (2, 6):
        task = blobs.task(calibration=IMAGES, fine_tune=ruin, test=blobs.data(100, seed))
        amc_tf.compress(net, task, BUDGET, tmp_path, settings)
        finetuned = RunResult.read(tmp_path).finetuned
        assert finetuned is not None and finetuned.undone
