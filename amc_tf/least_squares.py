"""Least squares with a ridge towards the old weights: the solver of `amc_tf.inorder`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import scipy.linalg

from amc_tf.paths import Bounds
from amc_tf.reconstruct import factorised
from amc_tf.surgery import numpy_of


def wanted(
    target: np.ndarray, slope: np.ndarray, base: np.ndarray, bounds: Bounds
) -> Callable[[np.ndarray], np.ndarray]:
    """What a consumer's linear output should be, given what it is.

    Args:
        target: value wanted at the end of the path (rows, outputs).
        slope: the path's factor of each output (outputs,).
        base: value at its end where the output is zero (rows, outputs) or (1, outputs).
        bounds: what the rectifier behind lets through.

    Returns:
        A function from linear outputs to linear outputs (rows, outputs).
    """
    low, high = bounds
    # A path that ignores the output (a batch norm's gamma of zero) asks for nothing.
    blind = np.abs(slope) <= 1e-6 * np.abs(slope).max(initial=0)
    slope = np.where(blind, 1, slope)

    def goal(output: np.ndarray) -> np.ndarray:
        now = slope * output + base
        aim = np.where(target <= low, np.minimum(now, low), target)
        aim = np.where(target >= high, np.maximum(now, high), aim)
        return np.where(blind, output, (aim - base) / slope).astype(output.dtype)

    return goal


def fit(
    x: np.ndarray,
    kernel: np.ndarray,
    constant: np.ndarray,
    goals: Sequence[Callable[[np.ndarray], np.ndarray]],
    *,
    ridges: Sequence[float],
    held: np.ndarray,
    centred: bool,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with a ridge towards the old weights.

    Args:
        x: inputs (rows, features).
        kernel: old weights (features, outputs).
        constant: old intercept (outputs,).
        goals: for each round, the outputs aimed at as a function of the
            present ones, both (rows, outputs).
        ridges: ridge terms, relative to the inputs' mean variance, to choose from.
        held: rows on which the ridge term is chosen, boolean (rows,).
        centred: whether the intercept is free.
        mask: weights that may change, boolean (features, outputs); None for all.

    Returns:
        New weights and intercept.
    """
    mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype) if centred else np.zeros_like(x[0])
    x = x - mean
    old = matmul(x, kernel)
    step, centre = np.zeros_like(kernel), constant + mean @ kernel
    system = None
    for goal in goals:
        aim = goal(old + matmul(x, step) + centre)
        centre = aim.mean(axis=0) if centred else centre
        residual = aim - centre - old
        if system is None:
            system = (
                _Ridge(x, residual, ridges, held)
                if mask is None
                else _SparseRidge(x, residual, ridges, held, mask)
            )
        step = system.solve(residual)
    return kernel + step, centre - mean @ (kernel + step)


class _Ridge:
    """R -> argmin |x D - R|^2 + penalty |D|^2, through the smaller of x'x and x x'.

    The penalty is the one that does best on held rows when fitted without them.
    """

    def __init__(
        self, x: np.ndarray, residual: np.ndarray, ridges: Sequence[float], held: np.ndarray
    ):
        self._x = x
        self._primal = x.shape[1] <= x.shape[0]
        products = matmul(x.T, x) if self._primal else matmul(x, x.T)
        scores = [0.0]
        if len(ridges) > 1:
            scores = self._scores(products, residual, ridges, held)
        self._factor = self._factorised(products, ridges[int(np.argmin(scores))])

    def solve(self, residual: np.ndarray) -> np.ndarray:
        """D for a residual (rows, outputs)."""
        if not self._primal:
            return matmul(self._x.T, _solve(self._factor, residual))
        return _solve(self._factor, matmul(self._x.T, residual))

    def _factorised(self, products: np.ndarray, ridge: float) -> Any:
        rows, features = self._x.shape
        products = products.astype(np.float64)
        trace = products.trace()
        # The second term is what float32 products are accurate to; the third serves dead inputs.
        penalty = ridge * trace / features + 1e-7 * trace + 1e-12 * rows
        products[np.diag_indices_from(products)] += penalty
        return factorised(products)

    def _scores(self, products, residual, ridges, held) -> list[float]:
        """Squared error on held rows for each ridge term."""
        x, target = self._x[held], residual[held]
        if self._primal:
            side = matmul(self._x.T, residual) - matmul(x.T, target)
            products = products - matmul(x.T, x)
        else:
            side, x = residual[~held], products[np.ix_(held, ~held)]
            products = products[np.ix_(~held, ~held)]
        return [
            float(np.square(target - matmul(x, _solve(factor, side))).sum(dtype=np.float64))
            for factor in (self._factorised(products, ridge) for ridge in ridges)
        ]


class _SparseRidge:
    """`_Ridge` of which each output may use some of the inputs only.

    Every output has a system of its own, small where few weights are kept.
    """

    def __init__(
        self,
        x: np.ndarray,
        residual: np.ndarray,
        ridges: Sequence[float],
        held: np.ndarray,
        mask: np.ndarray,
    ):
        self._x = x
        self._kept = [np.flatnonzero(column) for column in mask.T]
        products, side = matmul(x.T, x), matmul(x.T, residual)
        best = ridges[0]
        if len(ridges) > 1:
            few, target = x[held], residual[held]
            rest = products - matmul(few.T, few), side - matmul(few.T, target)
            errors = [
                np.square(target - matmul(few, self._step(self._factors(rest[0], r), rest[1])))
                for r in ridges
            ]
            best = ridges[int(np.argmin([e.sum(dtype=np.float64) for e in errors]))]
        self._chosen = self._factors(products, best)

    def solve(self, residual: np.ndarray) -> np.ndarray:
        """D for a residual (rows, outputs)."""
        return self._step(self._chosen, matmul(self._x.T, residual))

    def _factors(self, products: np.ndarray, ridge: float) -> list[Any]:
        trace, features = float(products.trace(dtype=np.float64)), len(products)
        # As in `_Ridge`.
        penalty = ridge * trace / features + 1e-7 * trace + 1e-12 * len(self._x)
        factors = []
        for kept in self._kept:
            system = products[np.ix_(kept, kept)].astype(np.float64)
            system[np.diag_indices_from(system)] += penalty
            factors.append(factorised(system) if len(kept) else None)
        return factors

    def _step(self, factors: Sequence[Any], side: np.ndarray) -> np.ndarray:
        step = np.zeros_like(side)
        for output, (kept, factor) in enumerate(zip(self._kept, factors, strict=True)):
            if factor is not None:
                step[kept, output] = _solve(factor, side[kept, output])
        return step


def _solve(factor: Any, side: np.ndarray) -> np.ndarray:
    return scipy.linalg.cho_solve(factor, side, check_finite=False).astype(side.dtype)


def matmul(a: Any, b: Any) -> np.ndarray:
    """A matrix product of the backend."""
    # The backend's threads, not those of numpy's BLAS: two pools fight for the same cores.
    return numpy_of(keras.ops.matmul(a, b))
