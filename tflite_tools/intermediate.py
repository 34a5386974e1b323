"""The values of all tensors that a TFLite file computes, sample by sample.

They are those of the default kernels (XNNPACK), as in an app. These hide what lies between the
first and the last operator that they take over, so every tensor that is wanted becomes an output.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tflite_tools import flatbuffer
from tflite_tools.interpreter import allocated, dequantise_tensor, quantise_tensor

_NUMBER = re.compile(r"\d+$")


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
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    names = [flatbuffer.text(tensor.name) for tensor in graph.tensors]
    wanted = {i for i in computed(graph) if only is None or names[i] in only}
    graph.outputs = [*graph.outputs, *sorted(wanted.difference(graph.outputs))]
    interpreter = allocated(model_content=flatbuffer.write(model))
    inputs = interpreter.get_input_details()
    details = [d for d in interpreter.get_tensor_details() if d["index"] in wanted]
    for sample in samples:
        interpreter.reset_all_variables()  # of recurrent operators
        for detail, array in zip(inputs, sample, strict=True):
            interpreter.set_tensor(detail["index"], quantise_tensor(array, detail))
        interpreter.invoke()
        yield {d["name"]: dequantise_tensor(interpreter.get_tensor(d["index"]), d) for d in details}


def computed(graph: Any) -> set[int]:
    """Returns the tensors that depend on the inputs of a graph, and the inputs."""
    found = {int(i) for i in graph.inputs}
    for operator in graph.operators:  # in the order in which they run
        if found.intersection(operator.inputs):
            found.update(int(i) for i in operator.outputs)
    return found


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


def operations(names: Collection[str]) -> dict[str, str]:
    """Returns what tells the tensors of a file apart, by which those of two formats are matched.

    It is the operation that makes a tensor. Where a converter has folded an operation into several
    others (the gain of a normalisation into the kernels of queries, keys and values), these share
    its name; then it is all that was fused, and what still is not unique is left out.
    """
    found: dict[str, str] = {}
    for told in (operation_path, _fused):
        left = [name for name in names if name not in found]
        paths = Counter(map(told, left))
        found.update((name, told(name)) for name in left if paths[told(name)] == 1)
    return found


def _fused(name: str) -> str:
    return _NUMBER.sub("", name)
