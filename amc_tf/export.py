"""TFLite files of a model, each run on held-out data before it is called done."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tflite_tools
from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.task import Task
from tflite_tools.time_model import repeat

# File format to the quantisation of `tflite_tools.convert`.
FORMATS: Mapping[str, str | None] = {"float32": None, "int8": "int8"}


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """How files are made and measured.

    Attributes:
        formats: names of `FORMATS`.
        calibration_samples: inputs for the ranges of int8 activations.
        error_samples: held-out inputs on which outputs are compared with Keras'.
        latency_rounds: fresh processes in which each file is timed.
        latency_runs: least timed inferences in each.
        latency_min_secs: least seconds of them.
        num_threads: of the interpreter that is timed.
    """

    formats: tuple[str, ...] = ("float32", "int8")
    calibration_samples: int = 200
    error_samples: int = 256
    latency_rounds: int = 5
    latency_runs: int = 50
    latency_min_secs: float = 1.0
    num_threads: int = 1

    def __post_init__(self) -> None:
        unknown = [f for f in self.formats if f not in FORMATS]
        if unknown:
            raise AmcError(
                f"unknown export format {unknown[0]!r}; choose from {', '.join(map(repr, FORMATS))}"
            )


@dataclasses.dataclass(frozen=True)
class Exported:
    """A checked file.

    Attributes:
        accuracy: of the file itself, run by LiteRT, on the test data.
        bytes: its size.
        max_abs_error: greatest difference of an output from Keras' on held-out data.
    """

    accuracy: float
    bytes: int
    max_abs_error: float


class LiteRtKeras(keras.Model):
    """A TFLite file with the face of a Keras model.

    So the owner's own compile and evaluate measure the very file that ships.

    Args:
        content: the .tflite file.
        like: the Keras model it was made from, for the shapes of its outputs.
    """

    def __init__(self, content: bytes, like: keras.Model):
        super().__init__(name="litert")
        self.supports_jit = False  # a compiled graph cannot call the interpreter
        self._interpreter = tflite_tools.LiteRtModel(content)
        self._shapes = [(None, *t.shape[1:]) for t in like.outputs]
        self._dtypes = [t.dtype for t in like.outputs]
        self._names = [t.name for t in like.inputs]
        self._outputs_like = getattr(like, "_outputs_struct", None)

    def call(self, inputs: Any) -> Any:
        """Runs the file on a batch; outputs as the Keras model gives them."""
        if isinstance(inputs, dict):
            inputs = [inputs[name] for name in self._names]
        flat = keras.tree.flatten(inputs)
        outputs = tf.numpy_function(self._predict, flat, self._dtypes)
        shaped = [tf.ensure_shape(o, s) for o, s in zip(outputs, self._shapes, strict=True)]
        if self._outputs_like is None:
            return shaped if len(shaped) > 1 else shaped[0]
        return keras.tree.pack_sequence_as(self._outputs_like, shaped)

    def _predict(self, *inputs: np.ndarray) -> list[np.ndarray]:
        outputs = self._interpreter.predict(list(inputs) if len(inputs) > 1 else inputs[0])
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [o.astype(d) for o, d in zip(outputs, self._dtypes, strict=True)]


def export_tflite(
    model: keras.Model,
    dense: keras.Model,
    task: Task,
    format_name: str,
    path: pathlib.Path,
    settings: ExportSettings | None = None,
) -> Exported:
    """Converts a model, writes the file, and checks it with the LiteRT interpreter.

    Args:
        model: the Keras model.
        dense: the model it came from, for its compile settings.
        task: its data; calibration comes from the training part, checks from the test part.
        format_name: a name of `FORMATS`.
        path: where the file goes.
        settings: see `ExportSettings`.

    Returns:
        What was measured on the file.

    Raises:
        AmcError: the converter refuses the model.
    """
    settings = settings or ExportSettings()
    quantize = FORMATS[format_name]
    samples = None
    if quantize is not None:
        arrays = [a[: settings.calibration_samples] for a in task.calibration_inputs(model)]
        samples = [[a[i : i + 1].astype(np.float32) for a in arrays] for i in range(len(arrays[0]))]
    try:
        content = tflite_tools.convert(model, quantize=quantize, representative=samples)
    except ValueError as error:
        raise AmcError(f"{format_name} export: {error}") from error
    files.write_atomically(path, content)
    inputs = task.sample_inputs(task.test_data, model, settings.error_samples)
    arguments = inputs if len(inputs) > 1 else inputs[0]
    expected = keras.tree.flatten(model.predict(arguments, verbose=0))
    received = keras.tree.flatten(tflite_tools.LiteRtModel(content).predict(arguments))
    file_model = task.compiled(LiteRtKeras(content, model), dense)
    return Exported(
        accuracy=task.score(file_model, task.test_data),
        bytes=len(content),
        max_abs_error=max(
            float(np.max(np.abs(e - r))) for e, r in zip(expected, received, strict=True)
        ),
    )


def keras_latency(model: keras.Model, settings: ExportSettings) -> dict[str, float]:
    """Milliseconds of a Keras model's own forward pass, one sample, as a compiled graph.

    TensorFlow runs it with all its threads, so it stands beside the files' for
    orientation only.

    Args:
        model: the model.
        settings: how often it is run.

    Returns:
        `latency_ms` (median) with `latency_ms_min` and `latency_ms_max`, the range over rounds.
    """
    inputs = [tf.zeros((1, *t.shape[1:]), t.dtype) for t in model.inputs]
    forward = tf.function(lambda: model(inputs if len(inputs) > 1 else inputs[0], training=False))
    forward()
    medians = [
        1e3
        * statistics.median(
            repeat(
                lambda: keras.tree.map_structure(np.asarray, forward()),
                num_runs=settings.latency_runs,
                min_secs=settings.latency_min_secs,
                max_secs=150,
            )
        )
        for _ in range(settings.latency_rounds)
    ]
    return {
        "latency_ms": statistics.median(medians),
        "latency_ms_min": min(medians),
        "latency_ms_max": max(medians),
    }


def measure(paths: Mapping[str, pathlib.Path], settings: ExportSettings) -> dict[str, Any]:
    """Times files against each other on this host; name to `tflite_tools.Latency`."""
    return tflite_tools.measure_host(
        {name: path.read_bytes() for name, path in paths.items()},
        num_threads=settings.num_threads,
        rounds=settings.latency_rounds,
        num_runs=settings.latency_runs,
        min_secs=settings.latency_min_secs,
        warmup_min_secs=min(0.5, settings.latency_min_secs),
    )
