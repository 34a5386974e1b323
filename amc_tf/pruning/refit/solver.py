"""Least squares with a ridge towards the old weights: the solver of `in_order`.

Matrix products are TensorFlow's. Its threads are those of the rest of the refit, while numpy's
BLAS has its own pool, which would compete for the processors; and on some processors its kernels
are twice as fast. Everything else works on blocks of rows that stay in a processor's cache,
several in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import scipy.linalg
import tensorflow as tf

from amc_tf.pruning.refit.linear_path import UNBOUNDED, Bounds
from amc_tf.pruning.refit.statistics import factorised

# Maps the linear outputs (n, outputs) of some rows, and the slice of these rows, to the outputs
# wanted.
Goal = Callable[[np.ndarray, slice], np.ndarray]

_BLOCK_NUMBERS = 2**18


def wanted(target: np.ndarray, slope: np.ndarray, base: np.ndarray, bounds: Bounds) -> Goal:
    """Makes the goal of a consumer: what its linear output should be, given what it is.

    Args:
        target: value wanted at the end of the path (rows, outputs).
        slope: the path's factor of each output (outputs,).
        base: value at the end of the path where the output is zero, (rows, outputs)
            or (1, outputs).
        bounds: range that the rectifier behind the path lets through.

    Returns:
        A function from linear outputs to linear outputs.
    """
    low, high = bounds
    # A path that ignores the output (a batch norm's gamma of zero) sets no goal.
    blind = np.abs(slope) <= 1e-6 * np.abs(slope).max(initial=0)
    slope = np.where(blind, 1, slope)

    def goal(output: np.ndarray, rows: slice) -> np.ndarray:
        aim, offset = target[rows], base[rows] if len(base) > 1 else base
        if bounds != UNBOUNDED:
            now = slope * output + offset
            aim = np.where(aim <= low, np.minimum(now, low), aim)
            aim = np.where(aim >= high, np.maximum(now, high), aim)
        aim = (aim - offset) / slope
        return np.where(blind, output, aim) if blind.any() else aim

    return goal


def fit(
    x: np.ndarray,
    kernel: np.ndarray,
    constant: np.ndarray,
    goals: Sequence[Goal],
    pool: Executor,
    *,
    ridges: Sequence[float],
    held: np.ndarray,
    centred: bool,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Solves least squares with a ridge towards the old weights.

    Args:
        x: inputs (rows, features); overwritten.
        kernel: old weights (features, outputs).
        constant: old intercept (outputs,).
        goals: the goal of each round.
        pool: threads to work in. The result does not depend on their number.
        ridges: ridge terms to choose from, relative to the mean variance of the inputs.
        held: held-out rows, on which the ridge term is chosen, boolean (rows,).
        centred: whether the intercept is free.
        mask: weights that may change, boolean (features, outputs); None for all.

    Returns:
        New weights and intercept.
    """
    rows = _Rows(x, kernel, pool, centred)
    centre = constant + rows.mean @ kernel
    step = system = None
    for goal in goals:
        residual, centre = rows.residual(goal, step, centre)
        if system is None:
            system = (
                _Ridge(rows.x, residual, pool, ridges, held)
                if mask is None
                else _SparseRidge(rows.x, residual, ridges, held, mask)
            )
        step = system.solve(residual)
    kernel = kernel if step is None else kernel + step
    return kernel, centre - rows.mean @ kernel


class _Rows:
    """The rows of a fit, and the outputs that the old weights give for them.

    Attributes:
        x: the inputs, less their mean if the intercept is free (rows, features).
        mean: what was subtracted from the inputs (features,).
    """

    def __init__(self, x: np.ndarray, kernel: np.ndarray, pool: Executor, centred: bool):
        self._pool, self._centred = pool, centred
        height = max(1, _BLOCK_NUMBERS // max(kernel.shape))
        self._blocks = [slice(i, i + height) for i in range(0, len(x), height)]
        self.mean = np.zeros_like(x[0])
        if centred:
            self.mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype)

        def centre(block: slice) -> None:
            x[block] -= self.mean

        list(pool.map(centre, self._blocks))
        self.x = tf.constant(x)
        self._old = matmul(self.x, kernel)

    def residual(
        self, goal: Goal, step: np.ndarray | None, centre: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the old weights' outputs lack to reach a goal, and the intercept.

        Args:
            goal: the goal of this round.
            step: what has been added to the old weights; None for nothing.
            centre: current intercept for the inputs less their mean (outputs,).
        """
        result = np.empty_like(self._old) if step is None else matmul(self.x, step)

        def aim(block: slice) -> np.ndarray:
            output = self._old[block] + centre
            if step is not None:
                output += result[block]
            result[block] = goal(output, block)
            return result[block].sum(axis=0, dtype=np.float64)

        sums = list(self._pool.map(aim, self._blocks))
        free = (np.sum(sums, axis=0) / len(result)).astype(result.dtype)
        intercept = free if self._centred else centre

        def subtract(block: slice) -> None:
            result[block] -= intercept
            result[block] -= self._old[block]

        list(self._pool.map(subtract, self._blocks))
        return result, intercept


class _Ridge:
    """Solver of R -> argmin |x D - R|^2 + penalty |D|^2, by the smaller of x'x and x x'.

    The penalty is the one that does best on the held-out rows when fitted without them.
    """

    def __init__(
        self,
        x: tf.Tensor,
        residual: np.ndarray,
        pool: Executor,
        ridges: Sequence[float],
        held: np.ndarray,
    ):
        self._x, self._pool = x, pool
        self._primal = x.shape[1] <= x.shape[0]
        products = matmul(x, x, transposed=True) if self._primal else matmul(x, tf.transpose(x))
        scores = [0.0]
        if len(ridges) > 1:
            scores = self._scores(products, residual, ridges, held)
        self._factor = self._factorised(products, ridges[int(np.argmin(scores))])

    def solve(self, residual: np.ndarray) -> np.ndarray:
        """Returns D for a residual (rows, outputs)."""
        if not self._primal:
            return matmul(self._x, _solve(self._factor, residual), transposed=True)
        return _solve(self._factor, matmul(self._x, residual, transposed=True))

    def _factorised(self, products: np.ndarray, ridge: float) -> Any:
        rows, features = self._x.shape
        products = products.astype(np.float64)
        trace = products.trace()
        # The second term is the accuracy of float32 products; the third is for dead inputs.
        penalty = ridge * trace / features + 1e-7 * trace + 1e-12 * rows
        products[np.diag_indices_from(products)] += penalty
        return factorised(products)

    def _scores(self, products, residual, ridges, held) -> list[float]:
        """Returns the squared error on the held-out rows for each ridge term."""
        x, target = tf.boolean_mask(self._x, held), residual[held]
        if self._primal:
            side = matmul(self._x, residual, transposed=True) - matmul(x, target, transposed=True)
            products = products - matmul(x, x, transposed=True)
        else:
            side, x = residual[~held], products[np.ix_(held, ~held)]
            products = products[np.ix_(~held, ~held)]

        def score(ridge: float) -> float:
            step = _solve(self._factorised(products, ridge), side)
            return float(np.square(target - matmul(x, step)).sum(dtype=np.float64))

        return list(self._pool.map(score, ridges))


class _SparseRidge:
    """A `_Ridge` in which each output may use only some of the inputs.

    Every output has its own system, which is small where few weights are kept.
    """

    def __init__(
        self,
        x: tf.Tensor,
        residual: np.ndarray,
        ridges: Sequence[float],
        held: np.ndarray,
        mask: np.ndarray,
    ):
        self._x = x
        self._kept = [np.flatnonzero(column) for column in mask.T]
        products, side = matmul(x, x, transposed=True), matmul(x, residual, transposed=True)
        best = ridges[0]
        if len(ridges) > 1:
            few, target = tf.boolean_mask(x, held), residual[held]
            rest = (
                products - matmul(few, few, transposed=True),
                side - matmul(few, target, transposed=True),
            )
            errors = [
                np.square(target - matmul(few, self._step(self._factors(rest[0], r), rest[1])))
                for r in ridges
            ]
            best = ridges[int(np.argmin([e.sum(dtype=np.float64) for e in errors]))]
        self._chosen = self._factors(products, best)

    def solve(self, residual: np.ndarray) -> np.ndarray:
        """Returns D for a residual (rows, outputs)."""
        return self._step(self._chosen, matmul(self._x, residual, transposed=True))

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


def matmul(
    a: np.ndarray | tf.Tensor, b: np.ndarray | tf.Tensor, *, transposed: bool = False
) -> np.ndarray:
    """Multiplies two matrices; `transposed` transposes the first one."""
    return tf.linalg.matmul(a, b, transpose_a=transposed).numpy()
