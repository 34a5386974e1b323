"""A TFLite file as a function from float samples to float outputs."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tflite_tools import flatbuffer, greetings

# LiteRT greets once in a process.
_GREETED = threading.Event()


def allocated(**arguments: Any) -> Interpreter:
    """Returns an interpreter of LiteRT whose tensors are allocated; LiteRT's greeting is left out.

    Args:
        **arguments: those of ``Interpreter``.

    Raises:
        RuntimeError: LiteRT refuses the file.
        ValueError: it is no file of TFLite.
    """
    with contextlib.nullcontext() if _GREETED.is_set() else greetings.held_back():
        interpreter = Interpreter(**arguments)
        interpreter.allocate_tensors()
    _GREETED.set()
    return interpreter


def quantise(values: np.ndarray, scale: float, zero_point: int, dtype: np.dtype) -> np.ndarray:
    """Quantises by ``q = clip(round(values / scale) + zero_point)``.

    Halves are rounded away from zero, as TFLite's reference kernel does
    (``AffineQuantize`` in ``tensorflow/lite/kernels/internal/reference/quantize.h``).

    Args:
        values: Floats of any shape; infinities are clipped.
        scale: Real width of one integer step.
        zero_point: The integer that stands for 0.0.
        dtype: Integer type of the result; its range is the clipping range.

    Returns:
        Integers of the shape of ``values``.

    Raises:
        ValueError: If a value is NaN, which no integer can stand for.
    """
    # In float32, adding the half could round a value just below one half up to one.
    steps = np.asarray(values, dtype=np.float64) / scale
    if np.isnan(steps).any():
        raise ValueError("cannot quantise NaN; expected finite inputs: repair the data.")
    rounded = np.trunc(steps + np.copysign(0.5, steps)) + zero_point
    limits = np.iinfo(dtype)
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


def dequantise(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Returns ``scale * (values - zero_point)`` as float32 of the same shape."""
    # Without the wider type, int8 minus a zero point of -128 would wrap around.
    return ((values.astype(np.int64) - zero_point) * scale).astype(np.float32)


@dataclass(frozen=True)
class FileSignature:
    """The names of a file's inputs and outputs.

    Attributes:
        inputs: Names in the order of `LiteRtModel.input_details`.
        outputs: Names in the order of `LiteRtModel.output_details`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class LiteRtModel:
    """A TFLite file of batch 1 that runs on the CPU, in LiteRT's interpreter.

    Attributes:
        input_details: The interpreter's description of each input (name, shape, dtype,
            quantization), in the order of the file. For a file made by
            :func:`tflite_tools.conversion.convert` this is the order of ``model.inputs``.
        output_details: The same for each output, in the order that :meth:`predict` returns.
    """

    def __init__(self, model_bytes: bytes, num_threads: int = 1) -> None:
        """Loads the file.

        Args:
            model_bytes: Contents of a ``.tflite`` file.
            num_threads: Threads of the interpreter, at least 1.

        Raises:
            ValueError: If the bytes are not a TFLite file, its batch is not 1, or ``num_threads``
                is less than 1.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1; received {num_threads}.")
        self._interpreter = allocated(model_content=model_bytes, num_threads=num_threads)
        # A recurrent operator keeps its state in such a tensor from one run to the next.
        graphs = flatbuffer.read(model_bytes).subgraphs
        self._has_state = any(tensor.isVariable for graph in graphs for tensor in graph.tensors)
        self.input_details = self._interpreter.get_input_details()
        self.output_details = _ordered_outputs(self._interpreter)
        for detail in [*self.input_details, *self.output_details]:
            shape = tuple(int(size) for size in detail["shape"])
            if shape[:1] != (1,):
                raise ValueError(
                    f"expected a file with batch 1, but tensor {detail['name']!r} has shape "
                    f"{shape}; convert the model with a batch dimension of 1."
                )

    @property
    def signature(self) -> FileSignature:
        """Names of the file's signature, or of its tensors if it has no signature."""
        found = []
        for details, kind in ((self.input_details, "input"), (self.output_details, "output")):
            names = {d["index"]: d["name"] for d in details}
            for key in self._interpreter.get_signature_list():
                runner = self._interpreter.get_signature_runner(key)
                named = getattr(runner, f"get_{kind}_details")()
                names.update({d["index"]: name for name, d in named.items()})
            found.append(tuple(names[d["index"]] for d in details))
        return FileSignature(*found)

    def predict(self, x: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Runs a batch of samples, one at a time, as the file's batch is 1.

        Each sample begins with the state that the file begins with, if it is a recurrent one.

        Values of an integer tensor with a scale are quantised on the way in and dequantised on the
        way out. Without a scale (token indices, for example) they are passed as they are.

        Args:
            x: For one input, an array of shape ``(N, ...)``; for several, a list of such arrays in
                the order of ``input_details``.

        Returns:
            An array of shape ``(N, ...)``, float32 unless the output is an integer without scale;
            for several outputs, a list of arrays in the order of the Keras model's outputs.

        Raises:
            ValueError: If the number of arrays, a shape or the batch sizes do not fit, or an input
                to be quantised holds NaN.
        """
        arrays = [
            quantise_tensor(array, detail)
            for array, detail in zip(self._checked(x), self.input_details, strict=True)
        ]
        count = len(arrays[0])
        results = [
            np.empty((count, *detail["shape"][1:]), detail["dtype"])
            for detail in self.output_details
        ]
        interpreter = self._interpreter
        inputs = _by_index(self.input_details, arrays)
        outputs = _by_index(self.output_details, results)
        for row in range(count):
            if self._has_state:
                interpreter.reset_all_variables()
            for index, array in inputs:
                interpreter.set_tensor(index, array[row : row + 1])
            interpreter.invoke()
            for index, array in outputs:
                array[row] = interpreter.get_tensor(index)[0]
        floats = [
            dequantise_tensor(array, detail)
            for array, detail in zip(results, self.output_details, strict=True)
        ]
        return floats[0] if len(floats) == 1 else floats

    def _checked(self, x: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        given = list(x) if isinstance(x, (list, tuple)) else [x]
        if len(given) != len(self.input_details):
            names = [detail["name"] for detail in self.input_details]
            raise ValueError(
                f"expected {len(names)} input arrays ({', '.join(names)}); received {len(given)}. "
                "Give one array for one input, a list of arrays for several."
            )
        arrays = [np.asarray(array) for array in given]
        for array, detail in zip(arrays, self.input_details, strict=True):
            sample = tuple(int(size) for size in detail["shape"][1:])
            if array.ndim != len(sample) + 1 or array.shape[1:] != sample:
                raise ValueError(
                    f"input {detail['name']!r} must have shape (N, "
                    f"{', '.join(map(str, sample))}); received {array.shape}. A single sample "
                    "needs a batch dimension of 1."
                )
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(
                "every input must have the same number of samples; received "
                f"{[len(array) for array in arrays]}."
            )
        return arrays


def _ordered_outputs(interpreter: Interpreter) -> list[dict]:
    """Returns the outputs in the order of the Keras model.

    A file of :func:`tflite_tools.convert` lists them in that order. A file converted from a saved
    model, which the names of its tensors show, lists them in another order. Its signature names
    them ``output_0``, ``output_1``, ..., in alphabetical order: ``output_10`` comes before
    ``output_2``.
    """
    signatures = list(interpreter.get_signature_list())
    details = interpreter.get_output_details()
    saved = all(d["name"].startswith("StatefulPartitionedCall") for d in details)
    if len(signatures) != 1 or not saved:
        return details
    named = interpreter.get_signature_runner(signatures[0]).get_output_details()
    if not all(re.fullmatch(r"output_\d+", name) for name in named):
        return details
    return [named[name] for name in sorted(named, key=lambda name: int(name.split("_")[1]))]


def _by_index(details: list[dict], arrays: list[np.ndarray]) -> list[tuple[int, np.ndarray]]:
    return [(detail["index"], array) for detail, array in zip(details, arrays, strict=True)]


def quantise_tensor(array: np.ndarray, detail: dict) -> np.ndarray:
    """Converts floats to what a file's tensor takes: quantised, or cast if it has no scale."""
    scale, zero_point = detail["quantization"]
    if scale and np.issubdtype(detail["dtype"], np.integer):
        return quantise(array, scale, zero_point, detail["dtype"])
    return np.ascontiguousarray(array, dtype=detail["dtype"])


def dequantise_tensor(array: np.ndarray, detail: dict) -> np.ndarray:
    """Inverts `quantise_tensor`; an integer without a scale stays an integer."""
    scale, zero_point = detail["quantization"]
    if scale and np.issubdtype(detail["dtype"], np.integer):
        return dequantise(array, scale, zero_point)
    return array
