"""Least-squares refit of the layers that read pruned channels.

A consumer computes y = x W on inputs x (for a convolution, the window under
its kernel). With only the columns k of x kept, the weights that best restore y
on the dense network's own activations are W_k + D with

    D = (C_kk + ridge)^-1 C_kp W_p,

where C is the covariance of x and p the pruned columns. So nothing but C and
the mean of x is needed, gathered once; each plan then costs one small solve a
consumer, and a plan that keeps everything gets the dense weights exactly.
(AMC, section 3.2, after He, Zhang and Sun, "Channel pruning", ICCV 2017.)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import scipy.linalg
from keras import layers as kl
from threadpoolctl import threadpool_limits

from amc_tf.graph.analysis import ChannelGraph, Site
from amc_tf.graph.network import Call, infer
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.refit.linear_path import readers_of
from amc_tf.pruning.refit.sampling import LINEAR, SEPARABLE, choose, linear_inputs
from amc_tf.pruning.surgery import mixing_weights, named_weight, numpy_of


class Statistics(Protocol):
    """Second moments of a consumer's inputs, as needed for a solve."""

    @property
    def mean(self) -> np.ndarray:
        """Mean input, float64 (features,)."""
        ...

    @property
    def variances(self) -> np.ndarray:
        """Variance of each input, float64 (features,)."""
        ...

    def add(self, rows: np.ndarray) -> None:
        """Takes in sampled inputs, float32 (samples, features)."""
        ...

    def correction(
        self, kept: np.ndarray, pruned_weights: np.ndarray, ridge: float, centred: bool
    ) -> np.ndarray:
        """D: what to add to the kept rows, given the pruned rows (features_p, outputs)."""
        ...


class Moments:
    """The covariance itself: for features up to a few thousand."""

    def __init__(self, features: int):
        self._count = 0
        self._shift = np.zeros(features, np.float32)
        self._sum = np.zeros(features)
        self._products = np.zeros((features, features), np.float32)

    def add(self, rows: np.ndarray) -> None:
        """See `Statistics.add`."""
        if not self._count:
            # Products are taken about a point near the mean, or float32 would cancel.
            self._shift = rows.mean(axis=0)
        rows = rows - self._shift
        self._count += len(rows)
        self._sum += rows.sum(axis=0, dtype=np.float64)
        # The backend's threads, not those of numpy's BLAS: two pools fight for the same cores.
        self._products += numpy_of(keras.ops.matmul(rows.T, rows))

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

    @property
    def variances(self) -> np.ndarray:
        """Variance of each input, float64 (features,)."""
        return np.diag(self.covariance(centred=True))

    def covariance(self, centred: bool) -> np.ndarray:
        """Second moments (features, features), about the mean or about zero."""
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

    def add(self, rows: np.ndarray) -> None:
        """See `Statistics.add`."""
        self._batches.append(rows)

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
        """See `Statistics.correction`: the same solution through its dual, samples squared."""
        rows = self._rows()
        if centred:
            rows = rows - rows.mean(axis=0)
        x_kept, target = rows[:, kept], rows[:, ~kept] @ pruned_weights
        products = (x_kept @ x_kept.T).astype(np.float64)
        variances = np.square(x_kept).mean(axis=0, dtype=np.float64)
        products[np.diag_indices_from(products)] += len(rows) * ridge_term(variances, ridge)
        dual = scipy.linalg.cho_solve(factorised(products), target, check_finite=False)
        return x_kept.T @ dual


def one_blas_thread() -> threadpool_limits:
    """A context for many small solves.

    BLAS's threads wait actively for more work and fight the backend's for the
    processors; ResNet-56's solves take a third of the time on one.
    """
    return threadpool_limits(1, user_api="blas")


def factorised(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky factor of a symmetric positive definite matrix, for `scipy.linalg.cho_solve`."""
    return scipy.linalg.cho_factor(matrix, overwrite_a=True, check_finite=False)


def ridge_term(variances: np.ndarray, ridge: float) -> float:
    """What is added to a covariance: relative to its scale, and enough for dead inputs."""
    return ridge * float(np.mean(variances)) + 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Consumer:
    """One refitted kernel: where its statistics and its intercept live."""

    site: Site
    kernel: str
    statistics: Statistics
    intercept: tuple[str, str, np.ndarray, float] | None  # layer, weight, value, sign


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """Refits a dense network's consumers for any plan. Made by `gather`."""

    graph: ChannelGraph
    ridge: float
    consumers: tuple[Consumer, ...]

    def refit(self, plan: PruningPlan) -> dict[str, np.ndarray]:
        """Refitted weights for `rebuild` and `mask`.

        Args:
            plan: what is kept.

        Returns:
            `layer/weight` to an array of the dense shape (pruned rows zero);
            only weights that the plan changes.
        """
        keep = self.graph.keep_mask(plan)
        result: dict[str, np.ndarray] = {}
        with one_blas_thread():
            for consumer in self.consumers:
                result |= self._refitted(consumer, keep)
        return result

    def _refitted(self, consumer: Consumer, keep: np.ndarray) -> dict[str, np.ndarray]:
        kept = keep[consumer.site.roles[consumer.site.rule.mixes[consumer.kernel]]]
        if kept.all():
            return {}
        layer = consumer.site.call.operation
        kernel = numpy_of(named_weight(layer, consumer.kernel))
        dense = kernel.reshape(-1, kernel.shape[-1])
        # Windows are laid out as the kernel is: positions first, channels innermost.
        columns = np.tile(kept, len(dense) // len(kept))
        correction = consumer.statistics.correction(
            columns, dense[~columns], self.ridge, consumer.intercept is not None
        )
        refitted = np.zeros_like(dense)
        refitted[columns] = dense[columns] + correction
        result = {f"{consumer.site.name}/{consumer.kernel}": refitted.reshape(kernel.shape)}
        if consumer.intercept is not None:
            owner, name, value, sign = consumer.intercept
            shift = consumer.statistics.mean @ (dense - refitted)
            result[f"{owner}/{name}"] = (value + sign * shift).astype(value.dtype)
        return result


def gather(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    *,
    batch_size: int = 16,
    rows: int = 8192,
    rows_per_feature: int = 8,
    ridge: float = 1e-3,
    max_features: int = 6144,
    seed: int = 0,
) -> Reconstruction:
    """Runs the dense network once over calibration images and gathers statistics.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input; unlabelled.
        batch_size: images a forward pass; few, as their activations lie in memory together.
        rows: sampled inputs (positions of a convolution) a consumer, at least.
        rows_per_feature: the same, for each input feature.
        ridge: ridge term, relative to the mean variance of the kept inputs.
        max_features: wider inputs than this keep `rows` samples instead of a covariance.
        seed: of the positions sampled.

    Returns:
        The `Reconstruction`.
    """
    network = graph.network
    rng = np.random.default_rng(seed)
    total = len(images[0])
    kernels = {site.name: (site, weight) for site, weight in refittable(graph)}
    key_of = {name: _statistics_key(graph, site) for name, (site, _) in kernels.items()}
    statistics: dict[tuple, Statistics] = {}
    sampled_at: dict[int, tuple] = {}
    wanted: dict[tuple, int] = {}
    for site in graph.sites:
        key = key_of.get(site.name)
        if key is None or (key in statistics and key[0] != site.name):
            continue
        sampled_at[id(site.call)] = key
        features = math.prod(kernels[site.name][1].shape[:-1])
        wide = features > max_features
        if key not in statistics:
            statistics[key] = Samples() if wide else Moments(features)
        wanted[key] = math.ceil((rows if wide else max(rows, rows_per_feature * features)) / total)

    def invoke(call, args, kwargs):
        key = sampled_at.get(id(call))
        output = infer(call.operation, args, kwargs)
        if key is not None:
            x = keras.tree.flatten((args, kwargs))[0]
            chosen = choose(math.prod(output.shape[1:-1]), len(x), wanted[key], rng)
            statistics[key].add(linear_inputs(call.operation, x, chosen))
        return output

    for start in range(0, total, batch_size):
        batch = [
            keras.ops.cast(array[start : start + batch_size], tensor.dtype)
            for array, tensor in zip(images, network.model.inputs, strict=True)
        ]
        network.run(batch, invoke)
    readers = readers_of(network)
    consumers = tuple(
        Consumer(site, weight.name, statistics[key_of[name]], intercept(graph, site, readers))
        for name, (site, weight) in kernels.items()
    )
    return Reconstruction(graph, ridge, consumers)


def refittable(graph: ChannelGraph) -> Iterator[tuple[Site, Any]]:
    """The layers that least squares can refit (their first call), and their kernels.

    Grouped convolutions are left out, and so is what could not be analysed.
    """
    refused = {refusal.operation for refusal in graph.refused}
    for site, weight, _ in mixing_weights(graph):
        layer = site.call.operation
        whole = getattr(layer, "groups", 1) == 1 and site.name not in refused
        if isinstance(layer, LINEAR) and whole:
            yield site, weight


def _statistics_key(graph: ChannelGraph, site: Site) -> tuple:
    """Layers that read one tensor through the same window share their statistics."""
    layer = site.call.operation
    calls = sum(s.call.operation is layer for s in graph.sites)
    if calls > 1 or isinstance(layer, SEPARABLE):
        return (site.name,)
    if isinstance(layer, kl.Dense):
        return (site.call.inputs[0],)
    window = (layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
    return (site.call.inputs[0], *window)


def intercept(graph: ChannelGraph, site: Site, readers: Mapping[int, list[Call]]):
    """Where a change of the mean output can be absorbed.

    The layer's own bias, or the moving mean of a batch norm that alone reads
    it; the linear output is what counts, so an activation in between rules
    the latter out.

    Returns:
        (layer's name, weight's name, value, sign of its effect); None if there is no such place.
    """
    layer = site.call.operation
    if layer.use_bias:
        return site.name, "bias", numpy_of(named_weight(layer, "bias")), 1.0
    after = readers.get(site.call.outputs[0], [])
    linear = layer.activation is keras.activations.linear
    is_output = site.call.outputs[0] in graph.network.outputs
    if len(after) == 1 and linear and not is_output:
        norm = after[0].operation
        calls = [c for c in graph.network.calls if c.operation is norm]
        producers = [s for s in graph.sites if s.call.operation is layer]
        if type(norm) is kl.BatchNormalization and len(calls) == len(producers) == 1:
            mean = numpy_of(norm.moving_mean)
            return graph.network.name(norm), "moving_mean", mean, -1.0
    return None
