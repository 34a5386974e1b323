"""How far a TFLite file is from the model it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tflite_tools.intermediate import operation_path, tensor_values


@dataclass(frozen=True)
class OutputError:
    """One output of a file against the model's.

    Attributes:
        max_abs: greatest difference of a value.
        rms: root of the mean squared difference.
        span: greatest minus least value of the model's output, to judge these by.
        agreement: fraction of positions at which the greatest value along the last axis is the
            same (top-1 agreement); None where the last axis has a single position.
    """

    max_abs: float
    rms: float
    span: float
    agreement: float | None


@dataclass(frozen=True)
class TensorError:
    """A tensor inside a quantised file against the same in the float file.

    Attributes:
        name: of the operation that makes it, as a path of layer names.
        relative_rms: root of the mean squared difference, as a fraction of the root of the mean
            square of the float tensor.
    """

    name: str
    relative_rms: float


def compare_output(expected: np.ndarray, received: np.ndarray) -> OutputError:
    """Compares one output.

    Args:
        expected: the model's, of shape (N, ...), N at least 1.
        received: the file's, of the same shape.

    Raises:
        ValueError: the shapes differ, or a value of the file is not finite where the model's is.
    """
    if expected.shape != received.shape or not len(expected):
        raise ValueError(
            f"expected outputs of the shape {expected.shape}, at least one sample, from the file; "
            f"received {received.shape}."
        )
    a, b = expected.astype(np.float64), received.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        raise ValueError("the file gives NaN or infinity where the model gives a number.")
    # Where both are NaN, or the same infinity, they do not differ.
    difference = np.where(np.isfinite(a), a - b, 0.0)
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
    """The tensors of a quantised file that are farthest from the float file's.

    Errors of earlier operators are in those of later ones: the first of a chain tells more than
    its last.

    Args:
        content: the quantised file.
        float_content: the float32 file of the same model.
        samples: for each sample one float array of batch 1 for each input; a few suffice.
        count: how many to return.

    Returns:
        At most `count`, the worst first. Tensors are matched by name and shape, so that those of
        operators which only one of the files has are left out.
    """
    squares: dict[str, list[float]] = {}
    pairs = zip(tensor_values(content, samples), tensor_values(float_content, samples), strict=True)
    for quantised, reference in pairs:
        wanted = {operation_path(name): value for name, value in reference.items()}
        for name, value in quantised.items():
            target = wanted.get(operation_path(name))
            if target is None or target.shape != value.shape or target.dtype.kind != "f":
                continue
            total = squares.setdefault(operation_path(name), [0.0, 0.0])
            total[0] += float(np.sum((target.astype(np.float64) - value) ** 2))
            total[1] += float(np.sum(target.astype(np.float64) ** 2))
    errors = [
        TensorError(name, float(np.sqrt(error / square)))
        for name, (error, square) in squares.items()
        if square > 0 and np.isfinite(error / square)
    ]
    return sorted(errors, key=lambda e: -e.relative_rms)[:count]
