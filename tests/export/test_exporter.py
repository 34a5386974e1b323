"""Export: what is measured on a file, any Keras file by command, and what is refused."""

import io
import json

import blobs
import commands
import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
import tflite_tools
from amc_tf import files
from amc_tf.export import exporter as export
from amc_tf.export import formats, standalone
from amc_tf.graph import keras_structure
from amc_tf.report import export_table
from amc_tf.runs.result import ExportResult

FAST = {"latency_rounds": 1, "latency_runs": 3, "latency_min_secs": 0.01}
POST_TRAINING = tuple(name for name, f in formats.FORMATS.items() if not f.trained and not f.sparse)


@pytest.fixture(scope="module")
def net():
    return blobs.trained()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    settings = export.ExportSettings(labels=("nw", "ne", "sw", "se"), mean=0.5, std=2.0)
    exporter = export.Exporter(net, net, blobs.task(), settings)
    return folder, exporter, {f: exporter.write(f, folder / f) for f in POST_TRAINING}


def test_every_format_keeps_the_accuracy(exported):
    """At most half a point below Keras', on 200 test images: one of them."""
    _, exporter, found = exported
    for measured in found.values():
        assert exporter.score - measured.score <= 0.005 + 1e-6
        assert measured.within_tolerance and not measured.worst_tensors
    sizes = {name: measured.bytes for name, measured in found.items()}
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]


def test_what_is_told_is_true_of_the_file(exported, net):
    """Measured again with NumPy on Keras' and LiteRT's own outputs."""
    folder, _, found = exported
    x, y = blobs.task().test
    expected = net.predict(x, verbose=0)
    for name, told in found.items():
        content = (folder / name).read_bytes()
        received = tflite_tools.LiteRtModel(content).predict(x)
        (errors,) = told.outputs.values()
        assert told.bytes == len(content)
        assert told.score == pytest.approx(np.mean(received.argmax(-1) == y))
        same = np.mean(received.argmax(-1) == expected.argmax(-1))
        assert told.agreement == errors.agreement == pytest.approx(same)
        assert told.max_abs_error == pytest.approx(np.abs(received - expected).max(), rel=1e-3)
        assert errors.rms == pytest.approx(np.sqrt(np.mean((received - expected) ** 2)), rel=1e-3)
        assert errors.span == pytest.approx(np.ptp(expected))


def test_files_tell_an_app_what_to_do(exported, net):
    folder, _, found = exported
    for name in found:
        metadata = tflite_tools.read_metadata((folder / name).read_bytes())
        (output,) = metadata.labels
        assert metadata.labels[output] == ["nw", "ne", "sw", "se"]
        assert output == net.output_names[0]
        (normalization,) = metadata.normalization.values()
        assert normalization == tflite_tools.Normalization(0.5, 2.0)
        assert name in metadata.description


def test_a_file_that_is_worse_is_written_and_marked(net, tmp_path):
    settings = export.ExportSettings(tolerance=-0.5)
    measured = export.export_tflite(net, net, blobs.task(), "int8", tmp_path / "a", settings)
    assert not measured.within_tolerance and (tmp_path / "a").exists()
    errors = list(measured.worst_tensors.values())
    assert len(errors) == 5 and all(0 < error < 0.2 for error in errors)


@pytest.mark.parametrize(
    "metric, keras_score, file_score, within",
    [
        ({"metric": "error", "mode": "min"}, 100.0, 100.9, True),  # one hundredth is allowed
        ({"metric": "error", "mode": "min"}, 100.0, 101.1, False),
        ({"metric": "error", "mode": "min"}, 100.0, 50.0, True),  # better
        ({"metric": "gain", "mode": "max"}, -100.0, -100.9, True),
        ({"metric": "gain", "mode": "max"}, -100.0, -101.1, False),
        ({"metric": "gain", "mode": "max"}, 0.001, 0.0001, False),
        ({}, 0.9, 0.891, True),  # a fraction: the difference itself
        ({}, 0.9, 0.889, False),
    ],
)
def test_the_tolerance_is_in_the_metrics_own_direction_and_size(
    net, tmp_path, metric, keras_score, file_score, within
):
    scores = iter([keras_score, file_score])
    task = blobs.task(evaluate=lambda model, data: next(scores), test=None, **metric)
    exporter = export.Exporter(net, net, task, export.ExportSettings(tolerance=0.01))
    assert exporter.score == keras_score  # the first to be asked for
    told = exporter.write("float32", tmp_path / "a.tflite")
    assert (told.score, told.within_tolerance) == (file_score, within)
    assert exporter.metric.data == "validation"


def test_the_worst_tensor_is_the_one_that_was_spoilt(net):
    """A file whose calibration saw too small values clips; what clips is named."""
    x = blobs.data(8, 0)[0]
    samples = [x[i : i + 1] for i in range(8)]
    reference = tflite_tools.convert(net)
    good = tflite_tools.convert(net, "int8", samples)
    clipped = tflite_tools.convert(net, "int8", [s / 20 for s in samples])
    few = [[s] for s in samples]
    worst = tflite_tools.worst_tensors(clipped, reference, few)
    assert worst[0].relative_rms > 0.5
    assert tflite_tools.worst_tensors(good, reference, few)[0].relative_rms < 0.1


def test_comparison_of_outputs_by_hand():
    expected = np.array([[0.0, 3.0], [2.0, 1.0], [np.nan, 0.0], [4.0, 0.0]])
    received = np.array([[0.0, 2.0], [1.0, 1.5], [np.nan, 0.0], [4.0, 2.0]])
    found = tflite_tools.compare_output(expected, received)
    # Differences 1, 1, 0.5 and 2 in eight values; the second sample changes its class.
    assert found.max_abs == 2.0 and found.span == 4.0 and found.agreement == 0.75
    assert found.rms == pytest.approx(np.sqrt((1 + 1 + 0.25 + 4) / 8))
    with pytest.raises(ValueError, match="NaN and infinity"):
        tflite_tools.compare_output(np.zeros((1, 2)), np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match="shape"):
        tflite_tools.compare_output(np.zeros((0, 2)), np.zeros((0, 2)))
    inf, nan = np.inf, np.nan
    same = tflite_tools.compare_output(np.array([[inf, -inf, nan]]), np.array([[inf, -inf, nan]]))
    assert same.max_abs == same.rms == 0.0
    for wanted, given in ((inf, -inf), (inf, nan), (nan, -inf), (1.0, inf), (nan, 0.0)):
        told = rf"gives {given} where the model gives {wanted}, at \[0, 1\], the first of 1 "
        with pytest.raises(ValueError, match=told):
            tflite_tools.compare_output(np.array([[0.0, wanted]]), np.array([[0.0, given]]))


def test_a_part_of_the_test_data_may_score(net, tmp_path):
    settings = export.ExportSettings(score_samples=50)
    exporter = export.Exporter(net, net, blobs.task(), settings)
    x, y = blobs.task().test
    chosen = np.linspace(0, 199, 50).astype(int)
    by_hand = np.mean(net.predict(x[chosen], verbose=0).argmax(-1) == y[chosen])
    assert exporter.score == pytest.approx(by_hand)


# --- what cannot be exported -----------------------------------------------------------------


def _nan():
    model = blobs.model()
    model.layers[-1].bias.assign([0, np.nan, 0, 0])
    return model


def _open_shape():
    inputs = keras.Input((None, 8, 1))
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(inputs)))


def _unsupported():
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, kl.Dense(4)(kl.Flatten()(keras.ops.cumprod(inputs, axis=1))))


@pytest.mark.parametrize(
    ("make", "format_name", "changes", "message"),
    [
        (_nan, "float32", {}, "every weight must be finite.*bias"),
        (_open_shape, "int8", {}, "every other dimension fixed"),
        (_unsupported, "float16", {}, "operators Cumprod"),
        (blobs.model, "int8", {"calibration": np.zeros((0, 8, 8, 1))}, "is empty"),
        (blobs.model, "int8", {"calibration": np.zeros((3, 4, 4, 1))}, "sample 0 has the shapes"),
        (blobs.model, "int8", {"calibration": np.full((3, 8, 8, 1), np.inf)}, "not finite"),
        (blobs.model, "int8", {"calibration": np.zeros((3, 8, 8, 1))}, "the value 0 and no other"),
        (blobs.model, "int8", {"calibration": np.full((3, 8, 8, 1), "a")}, "must be numbers.*<U1"),
    ],
)
def test_one_error_and_no_half_written_file(make, format_name, changes, message, tmp_path):
    model = make()
    exporter = export.Exporter(model, model, blobs.task(**changes), export.ExportSettings())
    with pytest.raises(amc_tf.AmcError, match=f"^({format_name} export: )?.*{message}"):
        exporter.write(format_name, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(net, tmp_path):
    exporter = export.Exporter(net, net, blobs.task(), export.ExportSettings())
    with pytest.raises(amc_tf.AmcError, match="absent/model.tflite cannot be written: No such"):
        exporter.write("float32", tmp_path / "absent" / "model.tflite")
    with pytest.raises(amc_tf.AmcError, match="is a folder"):
        exporter.write("float32", tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(amc_tf.AmcError, match="file/model.tflite cannot be written: Not a dir"):
        exporter.write("float32", tmp_path / "file" / "model.tflite")
    with pytest.raises(amc_tf.AmcError, match="file"):
        standalone.export_model(net, blobs.task(), tmp_path / "file", export.ExportSettings())
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_leaves_the_old_file(net, tmp_path, monkeypatch):
    (tmp_path / "model.tflite").write_bytes(b"old")

    def full(path, data):
        with files.replacing(path) as partial:
            partial.write_bytes(data[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_atomically", full)
    exporter = export.Exporter(net, net, blobs.task(), export.ExportSettings())
    with pytest.raises(amc_tf.AmcError, match="No space left"):
        exporter.write("float32", tmp_path / "model.tflite")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_settings_that_do_not_fit(net, tmp_path):
    with pytest.raises(
        amc_tf.AmcError, match="unknown export format 'int4'; choose from 'float32'"
    ):
        export.ExportSettings(formats=("int4",))
    for changes, message in (
        ({"labels": ("a", "b")}, "2 labels were given, but the outputs have 4"),
        ({"mean": (1.0, 2.0)}, "1 channels, so mean and std"),
        ({"std": 0.0}, "positive"),
        ({"keep_float": ("tail",)}, "no such layer"),
    ):
        exporter = export.Exporter(net, net, blobs.task(), export.ExportSettings(**changes))
        with pytest.raises(amc_tf.AmcError, match=message):
            exporter.write("int8", tmp_path / "model.tflite")


# --- any Keras file --------------------------------------------------------------------------


def _saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_any_keras_file_by_command(net, tmp_path):
    net.save(tmp_path / "net.keras")
    x, y = blobs.data(60, 4)
    data = _saved(tmp_path / "samples.npz", x=x, y=y)
    printed = commands.run(
        [
            "amc-export",
            f"--model={tmp_path / 'net.keras'}",
            f"--representative={data}",
            "--formats=float32,int8",
            f"--out={tmp_path / 'out'}",
        ],
        tmp_path,
    )
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(result["tflite"]) == {"model_float32.tflite", "model_int8.tflite"}
    by_hand = np.mean(net.predict(x, verbose=0).argmax(-1) == y)
    assert result["keras"]["score"] == pytest.approx(by_hand)
    for name, told in result["tflite"].items():
        assert f"{told['bytes']:,}" in printed and name in printed
        assert (tmp_path / "out" / name).stat().st_size == told["bytes"]
        assert told["latency_ms"] > 0


def test_samples_without_labels_measure_agreement(net, tmp_path):
    data = _saved(tmp_path / "samples.npz", x=blobs.data(40, 4)[0])
    task = standalone.representative_task(net, data)
    settings = export.ExportSettings(formats=("int8",), **(FAST | {"latency_rounds": 0}))
    result = standalone.export_model(net, task, tmp_path / "out", settings)
    (told,) = result["tflite"].values()
    assert result["keras"]["score"] == 1.0
    assert told["score"] == told["agreement"]
    assert "latency_ms" not in told
    assert "WORSE" not in export_table.table(ExportResult.from_json(result), settings.tolerance)
    told.update(within_tolerance=False, worst_tensors={"dense/BiasAdd": 0.25})
    told.update(float_operators=[f"ELU ({i})" for i in range(7)])
    text = export_table.table(ExportResult.from_json(result), settings.tolerance)
    assert "WORSE" in text and "dense/BiasAdd (25.0%)" in text and "ELU (4) and 2 more" in text


def test_several_inputs_by_name_and_outputs_without_classes(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"a": a, "b": b}, kl.Dense(1)(kl.Add()([a, b])))
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(50, 3)) for name in "ab"}
    task = standalone.representative_task(model, _saved(tmp_path / "s.npz", **arrays))
    settings = export.ExportSettings(formats=("float32", "int8"), latency_rounds=0)
    result = standalone.export_model(model, task, tmp_path, settings)
    for told in result["tflite"].values():
        # The part of the variance that is explained; rounding to 8 bits leaves 99.9 %.
        assert 0.999 < told["score"] <= 1.0 and told["agreement"] is None


def test_samples_that_cannot_be_used(net, tmp_path):
    x, y = blobs.data(4, 0)
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    array = tmp_path / "array.npz"
    with io.BytesIO() as buffer:
        np.save(buffer, x)
        array.write_bytes(buffer.getvalue())
    for path, message in (
        (tmp_path / "absent.npz", "there is no file"),
        (text, "cannot be read as an .npz file"),
        (array, "one array"),
        (_saved(tmp_path / "1.npz", images=x), "has the arrays images; expected 'x'"),
        (_saved(tmp_path / "2.npz", x=x[:, :4]), r"shape \(4, 4, 8, 1\)"),
        (_saved(tmp_path / "3.npz", x=x[:0]), "at least one sample"),
        (_saved(tmp_path / "4.npz", x=x * np.nan), "not finite"),
        (_saved(tmp_path / "5.npz", x=x, y=y[:2]), "4 inputs but 2 labels"),
    ):
        with pytest.raises(amc_tf.AmcError, match=message):
            standalone.representative_task(net, path)


def test_training_needs_a_loss(net, tmp_path):
    task = standalone.representative_task(net, _saved(tmp_path / "s.npz", x=blobs.data(4, 0)[0]))
    bare = keras_structure.uncompiled(net)
    settings = export.ExportSettings(formats=("int8_qat",))
    with pytest.raises(amc_tf.AmcError, match="needs its loss and optimizer"):
        standalone.export_model(bare, task, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_what_no_integer_kernel_computes_stays_float_and_is_named(tmp_path):
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, kl.Dense(4)(kl.LayerNormalization()(kl.Flatten()(inputs))))
    told = export.export_tflite(model, model, blobs.task(), "int16x8", tmp_path / "a.tflite")
    assert any("SQUARED_DIFFERENCE" in o for o in told.float_operators)
    assert not any("FULLY_CONNECTED" in o for o in told.float_operators)
