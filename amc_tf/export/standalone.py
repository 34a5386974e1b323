"""Export of any Keras file: several formats at once, checked on the user's data."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.export.exporter import Exporter
from amc_tf.export.settings import ExportSettings
from amc_tf.export.timing import timed
from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.runs import layout
from amc_tf.runs.result import ExportResult
from amc_tf.runs.result_parts import Scored
from amc_tf.runs.workdir import Workdir
from amc_tf.training.task import Task


def representative_task(model: keras.Model, path: str | pathlib.Path) -> Task:
    """Makes a task of a file of samples, for calibration and for checks.

    Args:
        model: the model that is exported.
        path: an .npz file with an array (samples, ...) for each input. The array of a single input
            may be named `x`; otherwise arrays are named as the inputs. If there are labels, the
            array `y` holds the class indices of the first output.

    Returns:
        A task whose `evaluate` is the top-1 accuracy on `y`. Without `y` it is the fraction of
        samples for which a model predicts the same class as `model`. For an output without classes
        it is the fraction of the variance that is explained.

    Raises:
        AmcError: the file does not exist, is not an .npz file, or does not fit the model.
    """
    arrays = _load(pathlib.Path(path).expanduser())
    names = [t.name for t in model.inputs]
    given = ["x"] if "x" in arrays and len(names) == 1 else names
    missing = [name for name in given if name not in arrays]
    if missing:
        wanted = "'x'" if len(names) == 1 else ", ".join(map(repr, names))
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
    x: Any = [a.astype(t.dtype) for a, t in zip(inputs, model.inputs, strict=True)]
    structure = nesting(model, "inputs")
    if isinstance(structure, Mapping):
        x = pack(structure, x)
    elif len(x) == 1:
        x = x[0]
    labels = arrays.get("y")
    if labels is not None and len(labels) != len(inputs[0]):
        raise AmcError(f"{path} has {len(inputs[0])} inputs but {len(labels)} labels")
    if labels is None:
        labels = _first_output(model, x)
        labels = labels.argmax(-1) if labels.shape[-1] > 1 else labels
    return Task(train=(x, labels), validation=(x, labels), evaluate=_agreement)


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
        AmcError: the folder cannot be written, or a format cannot be made; the files of the formats
            before it stay.
    """
    if "int8_qat" in settings.formats and not model.compiled and task.compile is None:
        raise AmcError(
            "int8_qat trains the model, which needs its loss and optimizer: give --config with a "
            "task that compiles, or a .keras file that was saved compiled"
        )
    folder = Workdir(out)
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


def _agreement(model: keras.Model, data: tuple[Any, np.ndarray]) -> float:
    x, wanted = data
    outputs = _first_output(model, x)
    if outputs.shape[-1] > 1:
        return float(np.mean(outputs.argmax(-1) == np.reshape(wanted, outputs.shape[:-1])))
    variance = np.var(wanted)
    error = np.mean((outputs.reshape(wanted.shape) - wanted) ** 2)
    return 1.0 - float(error / variance) if variance > 0 else float(error == 0)


def _first_output(model: keras.Model, x: Any) -> np.ndarray:
    count = len(keras.tree.flatten(x)[0])
    parts = []
    for start in range(0, count, 128):
        batch = keras.tree.map_structure(lambda a, i=start: a[i : i + 128], x)
        outputs = keras.tree.flatten(model(batch, training=False))
        parts.append(keras.ops.convert_to_numpy(outputs[0]))
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
