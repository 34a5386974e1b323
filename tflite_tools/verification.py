"""How far a TFLite file is from the model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tflite_tools import flatbuffer
from tflite_tools.intermediate import computed, operations, tensor_values


@dataclass(frozen=True)
class OutputError:
    """The error of one output of a file against the model's output.

    Attributes:
        max_abs: greatest absolute difference of a value.
        rms: root of the mean squared difference.
        span: greatest minus least value of the model's output, the scale for `max_abs` and `rms`.
        agreement: fraction of positions at which both have the greatest value along the last axis
            at the same index (top-1 agreement); None where the last axis has a single position.
    """

    max_abs: float
    rms: float
    span: float
    agreement: float | None


@dataclass(frozen=True)
class TensorError:
    """The error of a tensor inside a quantised file against the same tensor of the float file.

    Attributes:
        name: operation that makes the tensor, as a path of layer names.
        relative_rms: root of the mean squared difference, as a fraction of the root of the mean
            square of the float tensor.
        channel_rms: mean of the same over channels (last axis), each relative to itself and at
            most 1. Where a few channels are far larger than the others, it shows what is lost in
            these.
        added: by how much `channel_rms` is larger than that of any tensor that is read.
    """

    name: str
    relative_rms: float
    channel_rms: float
    added: float


def compare_output(expected: np.ndarray, received: np.ndarray) -> OutputError:
    """Compares one output of a file with the model's.

    Args:
        expected: the model's output, of shape (N, ...), N at least 1.
        received: the file's output, of the same shape.

    Raises:
        ValueError: the shapes differ; or at a position where one output is NaN or infinite, the
            other is not the same.
    """
    if expected.shape != received.shape or not len(expected):
        raise ValueError(
            f"expected an output of shape {expected.shape} with at least one sample from the file; "
            f"received shape {received.shape}."
        )
    a, b = expected.astype(np.float64), received.astype(np.float64)
    finite_positions = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # the same infinity, or both NaN
    differing = ~finite_positions & ~same
    if differing.any():
        place = tuple(int(i) for i in np.argwhere(differing)[0])
        raise ValueError(
            f"the file gives {b[place]} where the model gives {a[place]}, at {list(place)}, the "
            f"first of {int(differing.sum())} such positions; NaN and infinity must be the same in "
            "both."
        )
    difference = np.subtract(a, b, out=np.zeros_like(a), where=finite_positions)
    finite = a[np.isfinite(a)]
    agreement = None
    if a.ndim > 1 and a.shape[-1] > 1:
        agreement = float(np.mean(a.argmax(-1) == b.argmax(-1)))
    return OutputError(
        max_abs=float(np.abs(difference).max()),
        rms=float(np.sqrt(np.mean(difference**2))),
        span=float(np.ptp(finite)) if finite.size else 0.0,
        agreement=agreement,
    )


def worst_tensors(
    content: bytes, float_content: bytes, samples: Sequence[Sequence[np.ndarray]], count: int = 5
) -> list[TensorError]:
    """Finds the tensors of a quantised file at which most of its error arises.

    The error of an operator contains the errors of the operators before it. So tensors are ordered
    by what they add, in their channels: the cause comes before its consequences.

    Args:
        content: the quantised file.
        float_content: the float32 file of the same model.
        samples: for each sample, a float array of batch 1 for each input; a few samples suffice.
        count: greatest number of tensors to return.

    Returns:
        At most `count` tensors, the one that adds most first. Tensors are matched by name and
        shape; those that only one of the files has are left out.
    """
    sums: dict[str, np.ndarray] = {}  # squared errors and squared values of each channel
    pairs = zip(tensor_values(content, samples), tensor_values(float_content, samples), strict=True)
    for quantised, reference in pairs:
        told = operations(reference)
        wanted = {told[name]: value for name, value in reference.items() if name in told}
        own = operations(quantised)
        for name, value in quantised.items():
            path = own.get(name, "")
            target = wanted.get(path)
            if target is None or target.shape != value.shape or target.dtype.kind != "f":
                continue
            rows = target.reshape(-1, target.shape[-1] if target.ndim else 1).astype(np.float64)
            found = np.stack([(rows - value.reshape(rows.shape)) ** 2, rows**2]).sum(axis=1)
            sums[path] = sums[path] + found if path in sums else found
    whole, channels = {}, {}
    for name, (error, square) in sums.items():
        if square.sum() > 0 and np.isfinite(error).all() and np.isfinite(square).all():
            live = square > 0
            whole[name] = float(np.sqrt(error.sum() / square.sum()))
            channels[name] = float(np.minimum(np.sqrt(error[live] / square[live]), 1.0).mean())
    read = _read_by(content)
    errors = []
    for name, relative in whole.items():
        before = max((channels.get(x, 0.0) for x in read.get(name, ())), default=0.0)
        added = channels[name] - before
        errors.append(TensorError(name, relative, channels[name], added))
    return sorted(errors, key=lambda e: (-e.added, -e.relative_rms))[:count]


def _read_by(content: bytes) -> dict[str, list[str]]:
    """Returns, for each operation of a file, those that make its inputs."""
    found: dict[str, list[str]] = {}
    for graph in flatbuffer.read(content).subgraphs:
        names = [flatbuffer.text(t.name) for t in graph.tensors]
        told = operations([names[i] for i in sorted(computed(graph))])
        paths = [told.get(name, name) for name in names]
        for operator in graph.operators or ():
            for output in operator.outputs:
                inputs = [paths[i] for i in operator.inputs if i >= 0]
                found.setdefault(paths[output], []).extend(x for x in inputs if x != paths[output])
    return found
