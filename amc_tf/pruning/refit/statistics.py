"""Statistics of sampled rows, and the linear systems made from them."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_limits

from amc_tf.pruning.refit.products import gram


class Statistics(Protocol):
    """Second moments of a consumer's inputs, as a solve needs them."""

    @property
    def mean(self) -> np.ndarray:
        """Mean input, float64 (features,)."""
        ...

    @property
    def variances(self) -> np.ndarray:
        """Variance of each input, float64 (features,)."""
        ...

    def add(self, rows: np.ndarray, pool: Executor) -> None:
        """Adds sampled inputs.

        Args:
            rows: float32 (samples, features).
            pool: threads to work in.
        """
        ...

    def joined(self, other: Any) -> Statistics:
        """Returns the statistics of the inputs of both, which are of one kind."""
        ...

    def correction(
        self, kept: np.ndarray, pruned_weights: np.ndarray, ridge: float, centred: bool
    ) -> np.ndarray:
        """Returns D, what to add to the kept rows of a kernel (features_k, outputs).

        Args:
            kept: whether each feature is kept, boolean (features,).
            pruned_weights: the pruned rows of the kernel (features_p, outputs).
            ridge: ridge term, relative to the mean variance of the kept inputs.
            centred: whether the intercept is free.
        """
        ...

    def power(self, weights: np.ndarray, centred: bool) -> float:
        """Returns the mean square, over samples, of the outputs of weights, summed over these.

        Args:
            weights: (features, outputs).
            centred: whether inputs count about their mean.
        """
        ...


class Moments:
    """The covariance of the rows, for up to a few thousand features."""

    def __init__(self, features: int):
        self._count = 0
        self._shift = np.zeros(features, np.float32)
        self._sum = np.zeros(features)
        self._products = np.zeros((features, features), np.float32)

    def add(self, rows: np.ndarray, pool: Executor) -> None:
        """See `Statistics.add`."""
        if not self._count:
            # Products are taken about a point near the mean: about zero, float32 loses precision.
            self._shift = rows.mean(axis=0)
        rows = rows - self._shift
        self._count += len(rows)
        self._sum += rows.sum(axis=0, dtype=np.float64)
        self._products += gram(rows, pool)

    def joined(self, other: Moments) -> Moments:
        """Returns the moments of the rows of both."""
        result = Moments(len(self._sum))
        result._count, result._shift = self._count + other._count, self._shift
        away = other._shift.astype(np.float64) - self._shift
        result._sum = self._sum + other._sum + other._count * away
        across = np.outer(away, other._sum)
        moved = across + across.T + other._count * np.outer(away, away)
        result._products = self._products + other._products + moved.astype(np.float32)
        return result

    @property
    def mean(self) -> np.ndarray:
        """Mean input, float64 (features,)."""
        return self._shift + self._sum / self._count

    def correction(
        self, kept: np.ndarray, pruned_weights: np.ndarray, ridge: float, centred: bool
    ) -> np.ndarray:
        """See `Statistics.correction`: the primal solve."""
        kk = self._covariance(kept, kept, centred)
        kp = self._covariance(kept, ~kept, centred)
        kk[np.diag_indices_from(kk)] += ridge_term(np.diag(kk), ridge)
        return scipy.linalg.cho_solve(factorised(kk), kp @ pruned_weights, check_finite=False)

    def power(self, weights: np.ndarray, centred: bool) -> float:
        """See `Statistics.power`."""
        return float(np.sum(weights * (self.covariance(centred) @ weights)))

    @property
    def variances(self) -> np.ndarray:
        """Variance of each input, float64 (features,)."""
        return np.diag(self.covariance(centred=True))

    def covariance(self, centred: bool) -> np.ndarray:
        """Returns second moments (features, features), about the mean or about zero."""
        everything = np.ones(len(self._sum), bool)
        return self._covariance(everything, everything, centred)

    def _covariance(self, rows: np.ndarray, columns: np.ndarray, centred: bool) -> np.ndarray:
        block = self._products[np.ix_(rows, columns)] / self._count
        offset = self._sum / self._count
        block = block - np.outer(offset[rows], offset[columns])
        if not centred:
            block += np.outer(self.mean[rows], self.mean[columns])
        return block


class Samples:
    """The sampled rows themselves, for inputs too wide for a covariance (Dense after Flatten)."""

    def __init__(self) -> None:
        self._batches: list[np.ndarray] = []

    def add(self, rows: np.ndarray, pool: Executor) -> None:
        """See `Statistics.add`."""
        self._batches.append(rows)

    def joined(self, other: Samples) -> Samples:
        """Returns the rows of both."""
        result = Samples()
        result._batches = [*self._batches, *other._batches]
        return result

    @property
    def mean(self) -> np.ndarray:
        """Mean input, float64 (features,)."""
        return self._rows().mean(axis=0, dtype=np.float64)

    @property
    def variances(self) -> np.ndarray:
        """Variance of each input, float64 (features,)."""
        return self._rows().var(axis=0, dtype=np.float64)

    def _rows(self) -> np.ndarray:
        if len(self._batches) > 1:
            self._batches = [np.concatenate(self._batches)]
        return self._batches[0]

    def correction(
        self, kept: np.ndarray, pruned_weights: np.ndarray, ridge: float, centred: bool
    ) -> np.ndarray:
        """See `Statistics.correction`: the same solution, by the dual system (samples, samples)."""
        rows = self._rows()
        if centred:
            rows = rows - rows.mean(axis=0)
        x_kept, target = rows[:, kept], rows[:, ~kept] @ pruned_weights
        products = (x_kept @ x_kept.T).astype(np.float64)
        variances = np.square(x_kept).mean(axis=0, dtype=np.float64)
        products[np.diag_indices_from(products)] += len(rows) * ridge_term(variances, ridge)
        dual = scipy.linalg.cho_solve(factorised(products), target, check_finite=False)
        return x_kept.T @ dual

    def power(self, weights: np.ndarray, centred: bool) -> float:
        """See `Statistics.power`."""
        rows = self._rows()
        if centred:
            rows = rows - rows.mean(axis=0)
        outputs = rows @ weights.astype(rows.dtype)
        return float(np.square(outputs).sum(dtype=np.float64)) / len(rows)


def one_blas_thread() -> threadpool_limits:
    """Limits BLAS to one thread; returns a context for many small solves.

    The threads of BLAS wait actively for more work, and so compete with the
    backend's for the processors. With one thread, the solves of ResNet-56 take
    a third of the time.
    """
    return threadpool_limits(1, user_api="blas")


def factorised(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky factor of a symmetric positive definite matrix for `scipy.linalg.cho_solve`."""
    return scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)


def ridge_term(variances: np.ndarray, ridge: float) -> float:
    """Term added to the diagonal of a covariance: relative to its scale, enough for dead inputs."""
    return ridge * float(np.mean(variances)) + 1e-12
