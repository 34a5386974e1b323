"""Export of any Keras file: several formats at once, checked on the user's data."""

from __future__ import annotations

import logging
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError, first_line
from amc_tf.export import measures
from amc_tf.export.exporter import Exporter
from amc_tf.export.settings import ExportSettings
from amc_tf.export.timing import timed
from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.runs import layout
from amc_tf.runs.result import ExportResult
from amc_tf.runs.result_parts import Scored
from amc_tf.runs.workdir import Workdir
from amc_tf.training import directions
from amc_tf.training.checks import Check
from amc_tf.training.task import Task
from tflite_tools.tracing import signature_of

_LOG = logging.getLogger(__name__)
_BATCH = 128


def representative_task(model: keras.Model, path: str | pathlib.Path) -> Task:
    """Makes a task of a file of samples, for calibration and for checks.

    Args:
        model: the model that is exported.
        path: an .npz file with an array (samples, ...) for each input. The array of a single input
            may be named `x`; otherwise arrays are named as the inputs. Labels, if there are any,
            are named as the outputs; those of the first output may be named `y`.

    Returns:
        A task that measures the first metric that the model was compiled with (its loss, if there
        is none), where there are labels for it. If the model is not compiled, or only some outputs
        have labels, it measures the first output with labels (see
        `amc_tf.export.measures.measure_of`); without labels, how far outputs agree with those of
        `model`. The task's `metric` says which.

    Raises:
        AmcError: the file does not exist, is not an .npz file, or does not fit the model.
    """
    arrays = _load(pathlib.Path(path).expanduser())
    inputs = _inputs(model, path, arrays)
    check = Check(str(path), model)
    check.see(inputs)
    check.finish()
    x = _nested(model, "inputs", inputs)
    names = _output_names(model)
    found = {n: arrays[n] for n in names if n in arrays and n not in _input_names(model, arrays)}
    if "y" in arrays:
        found.setdefault(names[0], arrays["y"])
    unread = sorted(set(arrays) - {*_input_names(model, arrays), *found, "y"})
    if unread:
        _LOG.warning(
            "%s holds arrays that are named after no input or output, and are not read: %s "
            "(outputs are %s)",
            path,
            ", ".join(unread),
            ", ".join(names),
        )
    for labels in found.values():
        if len(labels) != len(inputs[0]):
            raise AmcError(f"{path} has {len(inputs[0])} inputs but {len(labels)} labels")
        if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all():
            raise AmcError(f"{path} has labels that are no finite numbers; clean it first")
    if len(found) == len(names) and model.compiled:
        labels = _nested(model, "outputs", [found[n] for n in names])
        return Task(train=(x, labels), validation=(x, labels), metric=_metric(model, x, labels))
    position = next((i for i, n in enumerate(names) if n in found), 0)
    outputs = _output(model, x, position)
    if found:
        labels = found[names[position]]
        measure = measures.measure_of(names[position], outputs, labels)
    else:
        measure, labels = measures.agreement(outputs)

    def evaluate(model: keras.Model, data: tuple[Any, np.ndarray]) -> float:
        return measure.of(_output(model, data[0], position), data[1])

    data = (x, labels)
    return Task(train=data, validation=data, evaluate=evaluate, metric=measure.name, mode="max")


def export_model(
    model: keras.Model, task: Task, out: str | pathlib.Path, settings: ExportSettings
) -> dict[str, Any]:
    """Writes every format of `settings.formats` into a folder, and `result.json`.

    Args:
        model: any Keras model, pruned here or not; compiled if `int8_qat` is wanted and the task
            has no `compile`.
        task: data for calibration and checks.
        out: folder for `model_FORMAT.tflite`.
        settings: see `ExportSettings`; with `latency_rounds=0` nothing is timed.

    Returns:
        The content of `result.json`: the Keras model's score, and the measurements of each
        file.

    Raises:
        AmcError: the folder cannot be written or is that of a run, or a format cannot be made; the
            files of the formats before it stay.
    """
    if "int8_qat" in settings.formats and not model.compiled and task.compile is None:
        raise AmcError(
            "int8_qat trains the model, which needs its loss and optimizer: give --config with a "
            "task that compiles, or a .keras file that was saved compiled"
        )
    folder = Workdir(out)
    if (folder / layout.CONFIG).exists():
        raise AmcError(
            f"{folder.path} is the folder of a run, whose {layout.RESULT} and files would be "
            "overwritten; write the files to another one (--out)"
        )
    exporter = Exporter(model, model, task, settings)
    exported = {}
    for format_name in settings.formats:
        name = layout.tflite_file(format_name)
        exported[name] = exporter.write(format_name, folder / name)
    if settings.latency_rounds:
        exported = timed(exported, folder.path, settings)
    result = ExportResult(Scored(exporter.score), exported, exporter.metric)
    result.write(folder.path)
    return result.to_json()


def _inputs(
    model: keras.Model, path: str | pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    given = _input_names(model, arrays)
    missing = [name for name in given if name not in arrays]
    if missing:
        wanted = "'x'" if len(given) == 1 else ", ".join(map(repr, given))
        raise AmcError(f"{path} has the arrays {', '.join(arrays)}; expected {wanted}")
    inputs = [np.asarray(arrays[n]) for n in given]
    for array, tensor in zip(inputs, model.inputs, strict=True):
        if array.shape[1:] != tuple(tensor.shape[1:]) or not len(array):
            raise AmcError(
                f"{path} holds inputs of the shape {array.shape}, but the model's input "
                f"{tensor.name!r} expects {tuple(tensor.shape)}, at least one sample"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise AmcError(f"{path} holds values that are not finite; clean it first")
    return [_cast(a, t, path) for a, t in zip(inputs, model.inputs, strict=True)]


def _cast(array: np.ndarray, tensor: keras.KerasTensor, path: str | pathlib.Path) -> np.ndarray:
    """Returns an array in the type of an input, whose integers must be able to hold its values."""
    with np.errstate(invalid="ignore"):
        found = array.astype(tensor.dtype)
    if np.dtype(tensor.dtype).kind in "biu" and not np.array_equal(found, array):
        wrong = array[found != array].flat[0]
        raise AmcError(
            f"{path} holds the value {wrong} for the model's input {tensor.name!r}, which is "
            f"{tensor.dtype} and cannot hold it; give inputs in that type, as in its training"
        )
    return found


def _input_names(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> list[str]:
    names = [t.name for t in model.inputs]
    return ["x"] if "x" in arrays and len(names) == 1 else names


def _output_names(model: keras.Model) -> list[str]:
    """Returns the names that the outputs have in the file."""
    try:
        return list(signature_of(model).output_names)
    except ValueError as error:
        raise AmcError(f"the model cannot be exported: {error}") from error


def _nested(model: keras.Model, side: str, arrays: list[Any]) -> Any:
    structure = nesting(model, side)
    if len(arrays) == 1 and not isinstance(structure, Mapping):
        return arrays[0]
    # A list would be taken for one array.
    return keras.tree.lists_to_tuples(pack(structure, arrays))


def _metric(model: keras.Model, x: Any, labels: Any) -> str:
    """Returns the first metric of the compile settings that is a number and better in a known way.

    It is the loss if there is none.
    """
    few = keras.tree.map_structure(lambda a: a[:_BATCH], (x, labels))
    try:
        model.evaluate(tf.data.Dataset.from_tensors(few), verbose=0)
    except Exception as error:
        said = first_line(error)
        raise AmcError(
            "the labels do not fit the loss and metrics that the model was compiled with "
            f"({said}); give labels as in its training, or none"
        ) from error
    found = model.get_metrics_result()
    metrics = [n for n in found if n != "loss" and not n.endswith("_loss")]
    numbers = [n for n in metrics if np.ndim(found[n]) == 0]
    known = [n for n in numbers if directions.reported(model, n) is not None]
    if numbers and numbers[:1] != known[:1]:
        _LOG.warning(
            "it is not known whether more of the metric %r is better: files are scored by %r",
            numbers[0],
            known[0] if known else "loss",
        )
    return known[0] if known else "loss"


def _output(model: keras.Model, x: Any, position: int) -> np.ndarray:
    """Returns one output of a model for all samples."""
    count = len(keras.tree.flatten(x)[0])
    parts = []
    for start in range(0, count, _BATCH):
        batch = keras.tree.map_structure(lambda a, i=start: a[i : i + _BATCH], x)
        try:
            outputs = keras.tree.flatten(model(batch, training=False))
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line and ".call()" not in line]
            raise AmcError(
                "the model cannot be computed on the samples "
                f"({lines[0] if lines else type(error).__name__}); give inputs as in its training"
            ) from error
        parts.append(keras.ops.convert_to_numpy(outputs[position]))
    return np.concatenate(parts)


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise AmcError(f"{path} is one array; expected an .npz file of named arrays")
        with archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise AmcError(f"there is no file {path}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        raise AmcError(f"{path} cannot be read as an .npz file; write it by numpy.savez") from None
