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
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import scipy.linalg
from keras import layers as kl

from amc_tf.channels import ChannelGraph, Site
from amc_tf.plan import PruningPlan
from amc_tf.surgery import mixing_weights, named_weight, numpy_of

_CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
_SEPARABLE = (kl.SeparableConv1D, kl.SeparableConv2D)
_REFITTED = (*_CONVOLUTIONS, *_SEPARABLE, kl.Dense)


class Statistics(Protocol):
    """Second moments of a consumer's inputs, as needed for a solve."""

    @property
    def mean(self) -> np.ndarray:
        """Mean input, float64 (features,)."""
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
        self._products += rows.T @ rows

    @property
    def mean(self) -> np.ndarray:
        """Mean input, float64 (features,)."""
        return self._shift + self._sum / self._count

    def correction(
        self, kept: np.ndarray, pruned_weights: np.ndarray, ridge: float, centred: bool
    ) -> np.ndarray:
        """See `Statistics.correction`: the primal solve."""
        k, p = np.flatnonzero(kept), np.flatnonzero(~kept)
        offset = self._sum / self._count
        kk = self._products[np.ix_(k, k)] / self._count - np.outer(offset[k], offset[k])
        kp = self._products[np.ix_(k, p)] / self._count - np.outer(offset[k], offset[p])
        if not centred:
            mean = self.mean
            kk += np.outer(mean[k], mean[k])
            kp += np.outer(mean[k], mean[p])
        kk[np.diag_indices_from(kk)] += _ridge_term(np.diag(kk), ridge)
        return scipy.linalg.solve(kk, kp @ pruned_weights, assume_a="pos", check_finite=False)


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
        products[np.diag_indices_from(products)] += len(rows) * _ridge_term(variances, ridge)
        dual = scipy.linalg.solve(products, target, assume_a="pos", check_finite=False)
        return x_kept.T @ dual


def _ridge_term(variances: np.ndarray, ridge: float) -> float:
    # Relative to the inputs' own scale; the tiny constant keeps dead inputs solvable.
    return ridge * float(np.mean(variances)) + 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class _Consumer:
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
    consumers: tuple[_Consumer, ...]

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
        for consumer in self.consumers:
            kept = keep[consumer.site.roles[consumer.site.rule.mixes[consumer.kernel]]]
            if kept.all():
                continue
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
            result[f"{consumer.site.name}/{consumer.kernel}"] = refitted.reshape(kernel.shape)
            if consumer.intercept is not None:
                owner, name, value, sign = consumer.intercept
                shift = consumer.statistics.mean @ (dense - refitted)
                result[f"{owner}/{name}"] = (value + sign * shift).astype(value.dtype)
        return result


def gather(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    *,
    batch_size: int = 64,
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
        batch_size: images a forward pass.
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
    kernels = {
        site.name: (site, weight)
        for site, weight, _ in mixing_weights(graph)
        if isinstance(site.call.operation, _REFITTED)
    }
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
        if key is not None:
            x = keras.tree.flatten((args, kwargs))[0]
            statistics[key].add(_inputs(call.operation, x, wanted[key], rng))
        return call.operation(*args, **kwargs)

    for start in range(0, total, batch_size):
        batch = [
            keras.ops.cast(array[start : start + batch_size], tensor.dtype)
            for array, tensor in zip(images, network.model.inputs, strict=True)
        ]
        network.run(batch, invoke)
    readers: dict[int, list] = {}
    for call in network.calls:
        for number in call.inputs:
            readers.setdefault(number, []).append(call)
    consumers = tuple(
        _Consumer(site, weight.name, statistics[key_of[name]], _intercept(graph, site, readers))
        for name, (site, weight) in kernels.items()
    )
    return Reconstruction(graph, ridge, consumers)


def _statistics_key(graph: ChannelGraph, site: Site) -> tuple:
    """Layers that read one tensor through the same window share their statistics."""
    layer = site.call.operation
    calls = sum(s.call.operation is layer for s in graph.sites)
    if calls > 1 or isinstance(layer, _SEPARABLE):
        return (site.name,)
    if isinstance(layer, kl.Dense):
        return (site.call.inputs[0],)
    window = (layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
    return (site.call.inputs[0], *window)


def _intercept(graph: ChannelGraph, site: Site, readers: Mapping[int, list]):
    """Where a change of the mean output can be absorbed.

    The layer's own bias, or the moving mean of a batch norm that alone reads
    it; the linear output is what counts, so an activation in between rules
    the latter out.
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


def _inputs(layer: Any, x: Any, per_image: int, rng: np.random.Generator) -> np.ndarray:
    """Sampled rows of a consumer's linear inputs, float32 (samples, features)."""
    if isinstance(layer, _SEPARABLE):
        x = keras.ops.depthwise_conv(
            x, layer.depthwise_kernel, layer.strides, layer.padding, None, layer.dilation_rate
        )
    x = np.asarray(keras.ops.convert_to_numpy(x), np.float32)
    if isinstance(layer, _CONVOLUTIONS):
        return windows(
            x, layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate, per_image, rng
        )
    rows = x.reshape(len(x), -1, x.shape[-1])
    chosen = _choose(rows.shape[1], len(x), per_image, rng)
    return rows[np.arange(len(x))[:, None], chosen].reshape(-1, x.shape[-1])


def windows(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    per_image: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The windows a convolution sees at randomly chosen output positions.

    Args:
        x: input (images, *spatial, channels).
        kernel: window size of each spatial axis.
        strides: steps, of each.
        padding: `valid`, `same` or `causal` (TensorFlow's rule for odd rests).
        dilation: spacing of the taps, of each.
        per_image: positions drawn from each image, without replacement; all if there are fewer.
        rng: generator that draws them.

    Returns:
        Float32 (images * positions, prod(kernel) * channels), channels innermost.
    """
    spatial = x.shape[1:-1]
    pads, outputs = [], []
    for size, k, s, d in zip(spatial, kernel, strides, dilation, strict=True):
        reach = (k - 1) * d
        if padding == "valid":
            pads.append((0, 0))
            outputs.append((size - reach - 1) // s + 1)
        elif padding == "causal":
            pads.append((reach, 0))
            outputs.append((size - 1) // s + 1)
        else:
            outputs.append(-(-size // s))
            needed = max(0, (outputs[-1] - 1) * s + reach + 1 - size)
            pads.append((needed // 2, needed - needed // 2))
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    chosen = _choose(math.prod(outputs), len(x), per_image, rng)
    rank = len(spatial)
    index: list[np.ndarray] = [np.arange(len(x)).reshape(-1, 1, *[1] * rank)]
    for axis, position in enumerate(np.unravel_index(chosen, outputs)):
        taps = (np.arange(kernel[axis]) * dilation[axis]).reshape(
            [-1 if i == axis else 1 for i in range(rank)]
        )
        index.append((position * strides[axis]).reshape(*chosen.shape, *[1] * rank) + taps)
    return padded[tuple(index)].reshape(chosen.size, -1)


def _choose(available: int, images: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct positions for each image, int (images, min(wanted, available))."""
    if wanted >= available:
        return np.tile(np.arange(available), (images, 1))
    return np.argsort(rng.random((images, available)), axis=1)[:, :wanted]
