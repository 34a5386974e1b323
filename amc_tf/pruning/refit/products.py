"""Products of rows: each in pieces that several threads multiply, with one thread of BLAS each."""

from __future__ import annotations

import itertools
from concurrent.futures import Executor

import numpy as np

# A product of columns is shared among threads in pieces of at least this many columns.
_LEAST_COLUMNS, _PIECES = 64, 4


def gram(x: np.ndarray, pool: Executor) -> np.ndarray:
    """Returns x'x (columns, columns)."""
    width = x.shape[1]
    pieces = _pieces(width)
    result = np.empty((width, width), x.dtype)

    def multiply(pair: tuple[slice, slice]) -> None:
        a, b = pair
        product = x[:, a].T @ x[:, b]
        result[a, b] = product
        result[b, a] = product.T

    list(pool.map(multiply, itertools.combinations_with_replacement(pieces, 2)))
    return result


def crossed(x: np.ndarray, y: np.ndarray, pool: Executor) -> np.ndarray:
    """Returns x'y (columns of x, columns of y)."""
    result = np.empty((x.shape[1], y.shape[1]), x.dtype)

    def multiply(piece: slice) -> None:
        np.matmul(x.T, y[:, piece], out=result[:, piece])

    list(pool.map(multiply, _pieces(y.shape[1])))
    return result


def _pieces(width: int) -> list[slice]:
    size = max(_LEAST_COLUMNS, -(-width // _PIECES))
    return [slice(i, min(i + size, width)) for i in range(0, width, size)]
