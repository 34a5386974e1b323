"""Least squares with a ridge towards the old weights: the solver of `in_order`.

Everything works on blocks of rows or columns, several in parallel and each in one thread: numpy's
BLAS in several threads would compete with the rest of the refit for the processors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import scipy.linalg

from amc_tf.pruning.refit.linear_path import UNBOUNDED, Bounds
from amc_tf.pruning.refit.products import crossed, gram
from amc_tf.pruning.refit.statistics import factorised

# Maps the linear outputs (n, outputs) of some rows, and the slice of these rows, to the outputs
# wanted.
Goal = Callable[[np.ndarray, slice], np.ndarray]

_BLOCK_NUMBERS = 2**18
# Inputs that are all smaller are multiplied by a power of two.
_TINY = 2.0**-20


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
            # Sums: a choice by a mask takes four times as long.
            aim, below, above = np.clip(aim, low, high), aim <= low, aim >= high
            if low > -np.inf:
                aim += np.minimum(now - low, 0) * below
            if high < np.inf:
                aim += np.maximum(now - high, 0) * above
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
    # Products of tiny inputs would be subnormal, which processors multiply a hundred times slower.
    largest = max(x.max(initial=0), -x.min(initial=0))
    shift = max(0, -int(np.frexp(largest)[1])) if largest < _TINY else 0
    if shift:
        x, kernel = np.ldexp(x, shift, out=x), np.ldexp(kernel, -shift)
    rows = _Rows(x, pool, centred, max(kernel.shape))
    centre = constant + rows.mean @ kernel
    step = system = None
    for goal in goals:
        residual, centre = rows.residual(goal, kernel if step is None else kernel + step, centre)
        if system is None:
            primal = x.shape[1] <= x.shape[0]
            if mask is not None:
                system = _SparseRidge(rows.x, residual, pool, ridges, held, mask)
            elif primal:
                system = _Ridge(rows.x, residual, pool, ridges, held)
            else:
                system = _DualRidge(rows.x, residual, pool, ridges, held)
        step = system.solve(residual, step)
    kernel = kernel if step is None else kernel + step
    constant = centre - rows.mean @ kernel
    return np.ldexp(kernel, shift) if shift else kernel, constant


class _Rows:
    """The rows of a fit.

    Attributes:
        x: the inputs, less their mean if the intercept is free (rows, features).
        mean: what was subtracted from the inputs (features,).
    """

    def __init__(self, x: np.ndarray, pool: Executor, centred: bool, widest: int):
        self._pool, self._centred = pool, centred
        height = max(1, _BLOCK_NUMBERS // widest)
        self._blocks = [slice(i, i + height) for i in range(0, len(x), height)]
        self.mean = np.zeros_like(x[0])
        if centred:
            sums = list(pool.map(lambda block: x[block].sum(axis=0), self._blocks))
            self.mean = (np.sum(sums, axis=0, dtype=np.float64) / len(x)).astype(x.dtype)

            def centre(block: slice) -> None:
                x[block] -= self.mean

            list(pool.map(centre, self._blocks))
        self.x = x

    def residual(
        self, goal: Goal, kernel: np.ndarray, centre: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the outputs lack to reach a goal, and the intercept.

        Args:
            goal: the goal of this round.
            kernel: current weights (features, outputs).
            centre: current intercept for the inputs less their mean (outputs,).
        """
        result = np.empty((len(self.x), kernel.shape[1]), self.x.dtype)

        def aim(block: slice) -> np.ndarray:
            product = self.x[block] @ kernel
            wanted = goal(product + centre, block)
            total = wanted.sum(axis=0)
            np.subtract(wanted, product, out=result[block])
            return total

        sums = list(self._pool.map(aim, self._blocks))
        free = (np.sum(sums, axis=0, dtype=np.float64) / len(result)).astype(result.dtype)
        intercept = free if self._centred else centre

        def subtract(block: slice) -> None:
            result[block] -= intercept

        list(self._pool.map(subtract, self._blocks))
        return result, intercept


class _Ridge:
    """Solver of R -> argmin |x D - R|^2 + penalty |D|^2 by x'x.

    The penalty is the one that does best on the held-out rows when fitted without them.
    """

    def __init__(
        self,
        x: np.ndarray,
        residual: np.ndarray,
        pool: Executor,
        ridges: Sequence[float],
        held: np.ndarray,
    ):
        self._x, self._pool = x, pool
        self._products = gram(x, pool)
        best = ridges[0]
        if len(ridges) > 1:
            out, target = x[held], residual[held]
            products, side = gram(out, pool), crossed(out, target, pool)
            power = np.square(target).sum(dtype=np.float64)
            rest = self._products - products, crossed(x, residual, pool) - side

            def error(ridge: float) -> float:
                """Squared error on the held-out rows, expanded: a product of their number less."""
                step = _solve(_factorised(rest[0], ridge, len(x)), rest[1])
                return float(power + np.sum(step * (products @ step - 2 * side), dtype=np.float64))

            best = ridges[int(np.argmin(list(pool.map(error, ridges))))]
        self._factor = _factorised(self._products, best, len(x))

    def solve(self, residual: np.ndarray, step: np.ndarray | None) -> np.ndarray:
        """Returns D, given what is left of R with the current D (rows, outputs)."""
        side = crossed(self._x, residual, self._pool)
        if step is not None:
            side += self._products @ step
        return _solve(self._factor, side)


class _DualRidge:
    """A `_Ridge` by x x', which is smaller where there are fewer rows than features."""

    def __init__(
        self,
        x: np.ndarray,
        residual: np.ndarray,
        pool: Executor,
        ridges: Sequence[float],
        held: np.ndarray,
    ):
        self._x, self._pool = x, pool
        products = gram(x.T, pool)
        best = ridges[0]
        if len(ridges) > 1:
            rest, out = products[np.ix_(~held, ~held)], products[np.ix_(held, ~held)]

            def error(ridge: float) -> float:
                dual = _solve(_factorised(rest, ridge, *x.shape), residual[~held])
                return float(np.square(residual[held] - out @ dual).sum(dtype=np.float64))

            best = ridges[int(np.argmin(list(pool.map(error, ridges))))]
        self._factor = _factorised(products, best, *x.shape)

    def solve(self, residual: np.ndarray, step: np.ndarray | None) -> np.ndarray:
        """See `_Ridge.solve`."""
        if step is not None:
            residual = residual + self._x @ step
        return crossed(self._x, _solve(self._factor, residual), self._pool)


class _SparseRidge:
    """A `_Ridge` in which each output may use only some of the inputs.

    Every output has its own system, which is small where few weights are kept.
    """

    def __init__(
        self,
        x: np.ndarray,
        residual: np.ndarray,
        pool: Executor,
        ridges: Sequence[float],
        held: np.ndarray,
        mask: np.ndarray,
    ):
        self._x, self._pool = x, pool
        self._kept = [np.flatnonzero(column) for column in mask.T]
        self._products = gram(x, pool)
        best = ridges[0]
        if len(ridges) > 1:
            few, target = x[held], residual[held]
            rest = (
                self._products - gram(few, pool),
                crossed(x, residual, pool) - crossed(few, target, pool),
            )
            errors = [
                np.square(target - few @ self._step(self._factors(rest[0], r), rest[1]))
                for r in ridges
            ]
            best = ridges[int(np.argmin([e.sum(dtype=np.float64) for e in errors]))]
        self._chosen = self._factors(self._products, best)

    def solve(self, residual: np.ndarray, step: np.ndarray | None) -> np.ndarray:
        """See `_Ridge.solve`."""
        side = crossed(self._x, residual, self._pool)
        if step is not None:
            side += self._products @ step
        return self._step(self._chosen, side)

    def _factors(self, products: np.ndarray, ridge: float) -> list[Any]:
        penalty = _penalty(products, ridge, len(self._x), len(products))
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


def _penalty(products: np.ndarray, ridge: float, rows: int, features: int) -> float:
    trace = float(products.trace(dtype=np.float64))
    # The second term is the accuracy of float32 products; the third is for dead inputs.
    return ridge * trace / features + 1e-7 * trace + 1e-12 * rows


def _factorised(products: np.ndarray, ridge: float, rows: int, features: int | None = None) -> Any:
    """Returns the factor of x'x or x x' with a ridge; `features` if it is not the size."""
    system = products.astype(np.float64)
    penalty = _penalty(products, ridge, rows, features or len(products))
    system[np.diag_indices_from(system)] += penalty
    return factorised(system)


def _solve(factor: Any, side: np.ndarray) -> np.ndarray:
    return scipy.linalg.cho_solve(factor, side, check_finite=False).astype(side.dtype)
