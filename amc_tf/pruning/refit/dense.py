"""Least-squares refit of the layers that read pruned channels.

A consumer computes y = x W on inputs x (for a convolution, the window under
its kernel). With only the columns k of x kept, the weights that best restore y
on the dense network's own activations are W_k + D with

    D = (C_kk + ridge)^-1 C_kp W_p,

where C is the covariance of x and p the pruned columns. So only C and the mean
of x are needed, and they are gathered once. Each plan then costs one small
solve for each consumer, and a plan that keeps everything gets exactly the dense
weights. (AMC, section 3.2, after He, Zhang and Sun, "Channel pruning", ICCV 2017.)
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.network import Call, Value
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.traced import traced, watched
from amc_tf.pruning.refit.refittable import intercept, refittable
from amc_tf.pruning.refit.sampling import choose, linear_inputs
from amc_tf.pruning.refit.soundness import Soundness, check_samples
from amc_tf.pruning.refit.statistics import Moments, Samples, Statistics, one_blas_thread
from amc_tf.pruning.weights import classes_read, named_weight, numpy_of


@dataclasses.dataclass(frozen=True, eq=False)
class Consumer:
    """A kernel to refit, with its statistics and the weight that takes its intercept."""

    site: Site
    kernel: str
    statistics: Statistics
    intercept: tuple[str, str, np.ndarray, float] | None  # layer, weight, value, sign


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """Refits a dense network's consumers for any plan. Made by `gather`.

    Attributes:
        graph: the analysed model.
        ridge: ridge term, relative to the mean variance of the kept inputs.
        consumers: the layers, with the statistics of their inputs.
        powers: for each value that a call reads together with others, its variance, summed over
            channels.
    """

    graph: ChannelGraph
    ridge: float
    consumers: tuple[Consumer, ...]
    powers: Mapping[int, float]
    _soundness: Soundness = dataclasses.field(default_factory=Soundness)

    def refit(self, plan: PruningPlan) -> dict[str, np.ndarray]:
        """Returns refitted weights for `rebuild` and `mask`.

        Args:
            plan: the plan.

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
        kept = keep[classes_read(consumer.site, consumer.kernel)]
        if kept.all():
            return {}
        layer = consumer.site.call.operation
        kernel = numpy_of(named_weight(layer, consumer.kernel))
        dense = kernel.reshape(-1, kernel.shape[-1])
        # Windows have the order of the kernel: positions first, channels innermost.
        columns = np.tile(kept, len(dense) // len(kept))
        name = consumer.site.name
        try:
            correction = consumer.statistics.correction(
                columns, dense[~columns], self.ridge, consumer.intercept is not None
            )
        except np.linalg.LinAlgError as error:
            self._soundness.report(name, f"no solution ({error})")
            return {}
        refitted = np.zeros_like(dense)
        refitted[columns] = dense[columns] + correction
        if not self._soundness.holds(name, refitted, kernel):
            return {}
        result = {f"{name}/{consumer.kernel}": refitted.reshape(kernel.shape)}
        if consumer.intercept is not None:
            holder, weight, value, sign = consumer.intercept
            shifted = value + sign * (consumer.statistics.mean @ (dense - refitted))
            if not self._soundness.holds(name, shifted, value):
                return {}
            result[f"{holder}/{weight}"] = shifted.astype(value.dtype)
        return result


def gather(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    *,
    batch_bytes: int = 2**24,
    rows: int = 8192,
    rows_per_feature: int = 8,
    ridge: float = 1e-3,
    max_features: int = 6144,
    seed: int = 0,
) -> Reconstruction:
    """Runs the dense network once over calibration images and gathers statistics.

    `gather_parts` does so for several parts of the images at once.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input; unlabelled.
        batch_bytes: largest size of an activation in a forward pass, in bytes. Many small passes
            take longer, and so do large ones: beyond 32 MiB, glibc hands every array back to the
            system, and the next one is paid for page by page.
        rows: least number of sampled inputs (positions of a convolution) for each consumer.
        rows_per_feature: the same, for each input feature.
        ridge: ridge term, relative to the mean variance of the kept inputs.
        max_features: number of input features above which `rows` samples are kept instead of
            a covariance.
        seed: seed of the sampled positions.

    Returns:
        The `Reconstruction`.

    Raises:
        AmcError: one of the images outweighs all others.
    """
    (found,) = gather_parts(
        graph,
        images,
        1,
        batch_bytes=batch_bytes,
        rows=rows,
        rows_per_feature=rows_per_feature,
        ridge=ridge,
        max_features=max_features,
        seed=seed,
    )
    return found


def gather_parts(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    parts: int,
    *,
    batch_bytes: int = 2**24,
    rows: int = 8192,
    rows_per_feature: int = 8,
    ridge: float = 1e-3,
    max_features: int = 6144,
    seed: int = 0,
) -> tuple[Reconstruction, ...]:
    """Gathers statistics of every `parts`-th image, from each of the first ones on.

    Args, Raises: as `gather`. `rows` are those of all parts together.

    Returns:
        A `Reconstruction` for each part.
    """
    check_samples(images, graph.network.model)
    network = graph.network
    rng = np.random.default_rng(seed)
    total = len(images[0])
    kernels = {site.name: (site, weight) for site, weight in refittable(graph)}
    key_of = {name: _statistics_key(graph, site) for name, (site, _) in kernels.items()}
    gathered: dict[tuple, list[_Gathered]] = {}
    sampled_at: dict[int, tuple] = {}
    wanted: dict[tuple, int] = {}
    for site in graph.sites:
        key = key_of.get(site.name)
        if key is None or (key in gathered and key[0] != site.name):
            continue
        sampled_at[id(site.call)] = key
        features = math.prod(kernels[site.name][1].shape[:-1])
        wide = features > max_features
        if key not in gathered:
            gathered[key] = [
                _Gathered(Samples() if wide else Moments(features), features) for _ in range(parts)
            ]
        wanted[key] = math.ceil((rows if wide else max(rows, rows_per_feature * features)) / total)

    powers: dict[int, list[float]] = {}

    def sample(call: Call, x: np.ndarray, positions: np.ndarray) -> None:
        key = sampled_at[id(call)]
        chosen = choose(int(positions), len(x), wanted[key], rng)
        rows = linear_inputs(call.operation, x, chosen)
        rows = rows.reshape(*chosen.shape, rows.shape[-1])
        for part, found in enumerate(gathered[key]):
            if len(of_part := rows[part::parts]):
                found.add(of_part.reshape(-1, rows.shape[-1]), pool)

    def keep_power(number: int, power: np.ndarray) -> None:
        powers.setdefault(number, []).append(float(power))

    def run(*inputs: Any) -> None:
        told: set[int] = set()

        def invoke(call, args, kwargs):
            output = infer(call.operation, args, kwargs)
            if len(set(call.inputs)) > 1:
                read, tensors = map(keras.tree.flatten, ((call.args, call.kwargs), (args, kwargs)))
                for x, tensor in zip(read, tensors, strict=True):
                    if isinstance(x, Value) and x.number not in told:
                        told.add(x.number)
                        keep = functools.partial(keep_power, x.number)
                        output = watched(output, keep, _power(tensor))
            if id(call) in sampled_at:
                x = keras.tree.flatten((args, kwargs))[0]
                positions = tf.reduce_prod(tf.shape(output)[1:-1])
                output = watched(output, functools.partial(sample, call), x, positions)
            return output

        network.run(inputs, invoke)

    forward = traced(network, run)
    # A multiple, so that the parts are the same in every batch.
    batch_size = parts * max(1, batch_bytes // (4 * max(graph.trace.sizes) * parts))
    with one_blas_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, total, batch_size):
            batch = (
                keras.ops.cast(array[start : start + batch_size], tensor.dtype)
                for array, tensor in zip(images, network.model.inputs, strict=True)
            )
            forward(*batch)
        for found in itertools.chain(*gathered.values()):
            found.take(pool)
    means = {number: float(np.mean(found)) for number, found in powers.items()}
    intercepts = {name: intercept(graph, site) for name, (site, _) in kernels.items()}

    def of_part(part: int) -> Reconstruction:
        consumers = (
            Consumer(site, weight.name, gathered[key_of[name]][part].statistics, intercepts[name])
            for name, (site, weight) in kernels.items()
        )
        return Reconstruction(graph, ridge, tuple(consumers), means)

    return tuple(map(of_part, range(parts)))


class _Gathered:
    """Statistics, and rows that wait until there are enough of them.

    A product of as many rows as features costs little more than one of a few rows.
    """

    def __init__(self, statistics: Statistics, enough: int):
        self.statistics = statistics
        self._enough = enough
        self._waiting: list[np.ndarray] = []

    def add(self, rows: np.ndarray, pool: Executor) -> None:
        """See `Statistics.add`."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self._enough:
            self.take(pool)

    def take(self, pool: Executor) -> None:
        """Adds all that waits to the statistics."""
        if self._waiting:
            self.statistics.add(np.concatenate(self._waiting), pool)
            self._waiting.clear()


def _power(tensor: Any) -> Any:
    """Returns the variance of a tensor (images, ..., channels), summed over the channels."""
    x = keras.ops.cast(tensor, "float32")
    return keras.ops.sum(keras.ops.var(x, axis=tuple(range(x.ndim - 1))))


def _statistics_key(graph: ChannelGraph, site: Site) -> tuple:
    """Returns a key that is equal for layers that read one tensor through the same window."""
    layer = site.call.operation
    product = site.rule.kind.product
    reads = None if product is None else product.reads
    if len(graph.sites_of(layer)) > 1 or reads == "depthwise":
        return (site.name,)
    if reads in ("positions", "flattened"):
        return (site.call.inputs[0],)
    window = (layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)
    return (site.call.inputs[0], *window)
