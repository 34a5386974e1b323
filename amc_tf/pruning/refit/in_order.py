"""Least-squares refit in the order of the network, on the pruned network's own activations.

`amc_tf.pruning.refit.dense` refits each consumer as if all others were perfect.
Here the pruned network is run layer by layer, for all calibration images at
once. Each consumer is refitted on the inputs that it will really get, towards
what the dense network computed. So it also repairs the errors of the layers
before it, and layers that lost no channel are refitted too.

The refit restores not a consumer's own output but the value at the end of the
linear path behind it (`amc_tf.pruning.refit.linear_path`). On a residual branch
the target is *dense sum minus pruned shortcut*, so that each branch repairs the
stream that it is added to (He, Zhang and Sun, "Channel pruning", ICCV 2017, section 3.3). Where a
rectifier ends the path, errors that it clips away do not count (Zhang, Zou, He
and Sun, "Accelerating Very Deep Convolutional Networks", PAMI 2016).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context  # keras.backend.clear_session uses it too

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.layer_kinds import UNBOUNDED
from amc_tf.graph.network import Call, Network
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.traced import traced, watched
from amc_tf.pruning.refit.consumers import Consumer, Gathered
from amc_tf.pruning.refit.kept_rows import InFile, InMemory
from amc_tf.pruning.refit.keras_runner import KerasRunner
from amc_tf.pruning.refit.linear_path import Path, follow
from amc_tf.pruning.refit.pruned_run import PrunedRun
from amc_tf.pruning.refit.refittable import refittable
from amc_tf.pruning.refit.runner import Images, Runner, Stop
from amc_tf.pruning.refit.sampling import at_positions, choose, linear_inputs
from amc_tf.pruning.refit.solver import fit, wanted
from amc_tf.pruning.refit.soundness import Soundness, check_samples
from amc_tf.pruning.refit.statistics import one_blas_thread
from amc_tf.pruning.weights import classes_read, has_weight, named_weight, numpy_of

# Number of plans after which TensorFlow's kernel cache is cleared. To make the kernels again costs
# about a fifth of a plan's refit.
_RUNS_REMEMBERED = 16


@dataclasses.dataclass(frozen=True, eq=False)
class InOrderReconstruction:
    """Refits a network in order, for any plan. Made by `gather_in_order`."""

    graph: ChannelGraph
    images: Images
    consumers: Mapping[int, Consumer]  # by id of the call
    ridges: Sequence[float]
    rounds: int
    runner: Runner
    _runs: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    _soundness: Soundness = dataclasses.field(default_factory=Soundness)

    def run_by(self, make: Callable[[Sequence[Stop], Images], Runner]) -> InOrderReconstruction:
        """See `RunByOthers.run_by`."""
        found = (self.consumers.get(id(call)) for call in self.graph.network.calls)
        stops = [consumer.stop for consumer in found if consumer is not None]
        return dataclasses.replace(self, runner=make(stops, self.images))

    def refit(self, plan: PruningPlan) -> dict[str, np.ndarray]:
        """Returns refitted weights for `rebuild` and `mask`; runs the pruned network once.

        Args:
            plan: the plan.

        Returns:
            `layer/weight` to an array of the dense shape (pruned rows zero);
            only weights that are changed.
        """
        keep = self.graph.keep_mask(plan)
        result: dict[str, np.ndarray] = {}
        if keep.all():
            return result
        with _threads() as pool, one_blas_thread():
            run = PrunedRun(self.graph, plan, self.runner, self.images, pool)
            for call in self.graph.network.calls:
                consumer = self.consumers.get(id(call))
                if consumer is not None and run.deviates(call, consumer.path.others):
                    result.update(self._fit(consumer, run))
                run.add(call)
        if next(self._runs) % _RUNS_REMEMBERED == 0:
            # TensorFlow keeps tens of KiB for every shape of variable that was ever made: over a
            # long search of a deep network, gigabytes.
            context.context().clear_kernel_cache()
        return result

    def fit_sparse(
        self, weights: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Refits a network in which single weights are pruned, but no channels.

        Args:
            weights: the kernels with their zeros, by `layer/weight`.
            masks: which weights of each kernel are kept, boolean, shaped as the kernel.

        Returns:
            `weights` after the refit, and all others that it changed. What `masks` does not keep
            stays zero.
        """
        graph, result = self.graph, dict(weights)
        touched = {name.rpartition("/")[0] for name in weights}
        with _threads() as pool, one_blas_thread():
            run = PrunedRun(graph, PruningPlan({}), self.runner, self.images, pool)
            for name, value in weights.items():
                layer, _, weight = name.rpartition("/")
                run.assign(graph.site(layer), weight, value)
            for call in graph.network.calls:
                consumer = self.consumers.get(id(call))
                changed = graph.network.name(call.operation) in touched
                if consumer is not None and (changed or run.deviates(call, consumer.path.others)):
                    mask = masks.get(f"{consumer.site.name}/{consumer.kernel}")
                    result.update(self._fit(consumer, run, mask))
                run.add(call, changed)
        return result

    def _fit(
        self, consumer: Consumer, run: PrunedRun, mask: np.ndarray | None = None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Refits one consumer in the run; yields its weights in the dense shape."""
        site, affine = consumer.site, consumer.affine
        run.catch_up(consumer.stop)
        x = run.inputs(site, consumer.positions)
        columns = run.keep[site.roles["out"]]
        target = consumer.targets()
        target = target if columns.all() else target[:, columns]
        slope, base = affine.slope[columns], run.base(affine, columns, consumer.positions)
        if consumer.later:  # a shared layer has no path, so its base is zero everywhere
            inputs, outputs = (read() for read in consumer.later)
            kept = run.keep[classes_read(site, consumer.kernel)]
            features = np.tile(kept, inputs.shape[1] // len(kept))
            x = np.concatenate([x, inputs[:, features]])
            target = np.concatenate([target, outputs[:, columns]])
        old = run.weight(site, consumer.kernel)
        old = old.reshape(-1, old.shape[-1])
        has_bias = has_weight(site.call.operation, "bias")
        bias = run.weight(site, "bias") if has_bias else np.zeros_like(old[0])
        bounds = consumer.path.bounds
        goals = [wanted(target, slope, base, UNBOUNDED)]
        if bounds != UNBOUNDED:
            goals += (self.rounds - 1) * [wanted(target, slope, base, bounds)]
        try:
            kernel, constant = fit(
                x,
                old,
                bias,
                goals,
                run.pool,
                ridges=self.ridges,
                held=np.arange(len(x)) // consumer.positions.shape[1] % 5 == 0,
                centred=consumer.intercept is not None,
                mask=None if mask is None else mask.reshape(old.shape),
            )
        except np.linalg.LinAlgError as error:
            self._soundness.report(site.name, f"no solution ({error})")
            return
        whole = self._soundness.holds(site.name, kernel, old)
        if not whole or not self._soundness.holds(site.name, constant, bias):
            return
        yield run.assign(site, consumer.kernel, kernel)
        if consumer.intercept is not None:
            layer, name, _, sign = consumer.intercept
            holder = self.graph.site(layer)
            shifted = run.weight(holder, name) + sign * (constant - bias)
            yield run.assign(holder, name, shifted)


def _threads() -> ThreadPoolExecutor:
    # Few: each holds the values of a batch, and the operations have threads of their own.
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1))


def gather_in_order(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    *,
    batch_size: int = 250,
    batch_bytes: int = 2**24,
    rows: int = 20_000,
    rows_per_feature: int = 32,
    most_rows: int = 40_000,
    ridges: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
    rounds: int = 4,
    residual: bool = True,
    in_file: bool = False,
    seed: int = 0,
) -> InOrderReconstruction:
    """Runs the dense network once over calibration images and keeps the targets of a refit.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input; unlabelled.
        batch_size: largest number of images in a forward pass.
        batch_bytes: largest size of an activation in a forward pass, in bytes; a
            pass has fewer images where it would be exceeded. Except for
            rounding, the result does not depend on it.
        rows: least number of output positions sampled for each consumer, over
            all images. With fewer, the fit follows the calibration images, and
            each layer's error adds to that of the next.
        rows_per_feature: the same, for each input feature of the consumer.
        most_rows: largest number of rows that `rows_per_feature` can ask for, which
            bounds the memory.
        ridges: ridge terms, relative to the mean variance of the kept inputs;
            each consumer gets the one that does best on a fifth of the images.
        rounds: number of solves for a consumer with a rectifier behind it; each
            but the first leaves out the errors that the rectifier clips away
            after the one before.
        residual: whether a branch is fitted towards *dense sum minus pruned
            shortcut* rather than towards its own dense output.
        in_file: whether the targets lie in a temporary file, of which a refit reads one layer's
            at a time, and not in memory.
        seed: seed of the sampled positions.

    Returns:
        The `InOrderReconstruction`.

    Raises:
        AmcError: one of the images outweighs all others.
    """
    check_samples(images, graph.network.model)
    network = graph.network
    total = len(images[0])
    rng = np.random.default_rng(seed)
    keeper = InFile() if in_file else InMemory()
    consumers: dict[int, Gathered] = {}
    ends: dict[int, list[Gathered]] = {}
    shared: dict[int, Gathered] = {}
    for site, weight in refittable(graph):
        layer = site.call.operation
        later = [c for c in network.calls if c.operation is layer and c is not site.call]
        path = follow(network, site.call, through_sums=residual)
        if later:
            path = Path(path.start)
        consumer = Gathered(site, weight.name, path, keeper)
        consumers[id(site.call)] = consumer
        shared.update({id(call): consumer for call in later})
        if path.calls:
            ends.setdefault(path.end, []).append(consumer)

    def sample(call: Call, x: np.ndarray, positions: np.ndarray) -> None:
        consumer = consumers.get(id(call)) or shared[id(call)]
        features = math.prod(named_weight(call.operation, consumer.kernel).shape[:-1])
        wide = min(rows_per_feature * features, most_rows)
        each = math.ceil(max(rows, wide) / total)
        if id(call) not in drawn:
            drawn[id(call)] = choose(int(positions), block, each, rng)
        chosen = drawn[id(call)][done : done + len(x)]
        if id(call) in consumers:
            consumer.positions.append(chosen)
        if not consumer.path.calls:
            read = linear_inputs(call.operation, x, chosen)
            kernel = numpy_of(named_weight(call.operation, consumer.kernel))
            y = read @ kernel.reshape(-1, kernel.shape[-1])
            if has_weight(call.operation, "bias"):
                y += numpy_of(named_weight(call.operation, "bias"))
            if id(call) in consumers:
                consumer.add(y)
            else:
                consumer.add_later(read, y)

    def keep_targets(ended: Sequence[Gathered], output: np.ndarray) -> None:
        for consumer in ended:
            consumer.add(at_positions(output, consumer.positions[-1]))

    def invoke(call, args, kwargs):
        output = infer(call.operation, args, kwargs)
        if id(call) in consumers or id(call) in shared:
            x = keras.tree.flatten((args, kwargs))[0]
            positions = tf.reduce_prod(tf.shape(output)[1:-1])
            output = watched(output, functools.partial(sample, call), x, positions)
        ended = ends.get(call.outputs[0])
        if ended:
            output = watched(output, functools.partial(keep_targets, ended), output)
        return output

    forward = traced(network, lambda *inputs: network.run(inputs, invoke))
    every = Images(images, [tensor.dtype for tensor in network.model.inputs])
    few = max(1, batch_bytes // _largest(network, every.part(slice(1))))
    batches = []
    for first in range(0, total, batch_size):
        # Positions are drawn for a whole block at once, to be the same however it is split.
        block, drawn = min(batch_size, total - first), {}
        # Batches of equal size, as they are run in parallel.
        size = math.ceil(block / math.ceil(block / few))
        for done in range(0, block, size):
            batches.append(slice(first + done, first + min(done + size, block)))
            with one_blas_thread():
                forward(*map(keras.ops.convert_to_tensor, every.part(batches[-1])))
    return InOrderReconstruction(
        graph,
        every,
        {key: gathered.consumer(graph) for key, gathered in consumers.items()},
        tuple(ridges),
        rounds,
        KerasRunner(graph, batches),
    )


def _largest(network: Network, image: Sequence[np.ndarray]) -> int:
    """Returns the size of the largest value in a forward pass of one image, in bytes."""
    sizes = [array.nbytes for array in image]

    def invoke(call, args, kwargs):
        output = infer(call.operation, args, kwargs)
        sizes.extend(4 * math.prod(part.shape) for part in keras.tree.flatten(output))
        return output

    network.run(list(image), invoke)
    return max(sizes)


def _threads() -> ThreadPoolExecutor:
    # Few: each holds the values of a batch, and the operations have threads of their own.
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1))
