"""The values of all tensors that a TFLite file computes, sample by sample."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tflite_tools.interpreter import dequantise_tensor, quantise_tensor


def tensor_values(
    content: bytes,
    samples: Iterable[Sequence[np.ndarray]],
    only: Collection[str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Runs a file on samples and yields the values that it computed, quantised ones as floats.

    Args:
        content: the file.
        samples: for each sample, a float array of batch 1 for each input.
        only: names of the tensors that are wanted; None for all.

    Yields:
        For each sample, the value of each computed tensor by its name, without constants.
    """
    with warnings.catch_warnings():
        # The interpreter warns of the memory that keeping every tensor takes; here it is wanted.
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            # A delegate would hide the tensors between its first and its last operator.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    interpreter.allocate_tensors()
    inputs = interpreter.get_input_details()
    computed = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    computed |= {detail["index"] for detail in inputs}
    details = [
        d
        for d in interpreter.get_tensor_details()
        if d["index"] in computed and (only is None or d["name"] in only)
    ]
    for sample in samples:
        interpreter.reset_all_variables()  # of recurrent operators
        for detail, array in zip(inputs, sample, strict=True):
            interpreter.set_tensor(detail["index"], quantise_tensor(array, detail))
        interpreter.invoke()
        yield {d["name"]: dequantise_tensor(interpreter.get_tensor(d["index"]), d) for d in details}


def ranges(
    content: bytes, samples: Iterable[Sequence[np.ndarray]]
) -> dict[str, tuple[float, float]]:
    """Finds the least and greatest value of every float tensor over all samples, by its name."""
    found: dict[str, tuple[float, float]] = {}
    for values in tensor_values(content, samples):
        for name, array in values.items():
            if array.dtype.kind != "f" or not array.size:
                continue
            low, high = float(array.min()), float(array.max())
            if name in found:
                low, high = min(low, found[name][0]), max(high, found[name][1])
            found[name] = (low, high)
    return found


def operation_path(name: str) -> str:
    """Returns the operation that makes a tensor; tensors of different formats are matched by it.

    The converter appends the names of what it fused, and a number that differs between formats.
    """
    return name.split(";")[0]
