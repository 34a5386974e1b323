"""Least-squares refit in the order of the network, on the pruned network's own activations.

`reconstruct` refits each consumer as if all others were perfect. Here the
pruned network is run layer by layer, for all calibration images at once, and
each consumer is refitted on the inputs it will really get, towards what the
dense network computed; so it also repairs what the layers before it broke, and
layers that lost no channel are refitted too.

What is restored is not a consumer's own output but the value at the end of the
linear path behind it (`amc_tf.paths`). On a residual branch that means *dense
sum minus pruned shortcut*, so that each branch repairs the stream it is added
to (He, Zhang and Sun, "Channel pruning", ICCV 2017, section 3.3). Where a
rectifier ends the path, errors that it clips away do not count (Zhang, Zou, He
and Sun, "Accelerating Very Deep Convolutional Networks", PAMI 2016).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.linalg

from amc_tf.channels import ChannelGraph, Site
from amc_tf.network import Call, Value, infer
from amc_tf.paths import UNBOUNDED, Bounds, Path, follow, readers_of
from amc_tf.plan import PruningPlan
from amc_tf.reconstruct import factorised, intercept, one_blas_thread, refittable
from amc_tf.surgery import named_weight, numpy_of, rebuild
from amc_tf.windows import at_positions, choose, linear_inputs


@dataclasses.dataclass(frozen=True, eq=False)
class _Consumer:
    """A layer to refit, and what the dense network computed at the sampled positions.

    Attributes:
        site: its first call.
        kernel: name of the weight.
        intercept: where the constant goes, see `reconstruct.intercept`.
        path: to the value that is restored.
        positions: for each batch, of the output, int (images, positions).
        targets: for each batch, the value restored, float32 (rows, outputs).
        later: for each batch and each later call of a shared layer, the dense
            network's inputs and linear outputs, float32. They stand for what
            the pruned network has not computed when the first call needs its weights.
    """

    site: Site
    kernel: str
    intercept: tuple[str, str, np.ndarray, float] | None
    path: Path
    positions: list[np.ndarray] = dataclasses.field(default_factory=list)
    targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    later: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, eq=False)
class InOrderReconstruction:
    """Refits a network in order, for any plan. Made by `gather_in_order`."""

    graph: ChannelGraph
    batches: Sequence[Mapping[int, np.ndarray]]
    consumers: Mapping[int, _Consumer]  # by id of the first call
    ridges: Sequence[float]
    rounds: int

    def refit(self, plan: PruningPlan) -> dict[str, np.ndarray]:
        """Refitted weights for `rebuild` and `mask`; runs the pruned network once.

        Args:
            plan: what is kept.

        Returns:
            `layer/weight` to an array of the dense shape (pruned rows zero);
            only weights that are changed.
        """
        keep = self.graph.keep_mask(plan)
        result: dict[str, np.ndarray] = {}
        if keep.all():
            return result
        run = _PrunedRun(self.graph, plan, keep, self.batches)
        with one_blas_thread():
            for call in self.graph.network.calls:
                consumer = self.consumers.get(id(call))
                if consumer is not None and run.deviates(call, consumer.path.others):
                    run.catch_up()
                    result.update(self._fit(consumer, run))
                run.add(call)
        return result

    def _fit(self, consumer: _Consumer, run: _PrunedRun) -> Iterator[tuple[str, np.ndarray]]:
        """Refits one consumer in the run; yields its weights in the dense shape."""
        site, path = consumer.site, consumer.path
        x = run.inputs(site.call, consumer.positions)
        columns = run.keep[site.roles["out"]]
        target = np.concatenate(consumer.targets)[:, columns]
        slope, base = run.along(path, consumer.positions, target.shape)
        if consumer.later:  # a shared layer has no path, so that its base is zero everywhere
            read = run.keep[site.roles[site.rule.mixes[consumer.kernel]]]
            features = np.tile(read, consumer.later[0][0].shape[1] // len(read))
            x = np.concatenate([x, *(part[:, features] for part, _ in consumer.later)])
            target = np.concatenate([target, *(part[:, columns] for _, part in consumer.later)])
        kernel, bias = _linear(run.layer(site.name), consumer.kernel)
        goals = [wanted(target, slope, base, UNBOUNDED)]
        if path.bounds != UNBOUNDED:
            goals += (self.rounds - 1) * [wanted(target, slope, base, path.bounds)]
        kernel, constant = fit(
            x,
            kernel,
            bias,
            goals,
            ridges=self.ridges,
            held=np.arange(len(x)) // consumer.positions[0].shape[1] % 5 == 0,
            centred=consumer.intercept is not None,
        )
        yield run.assign(site.name, consumer.kernel, kernel)
        if consumer.intercept is not None:
            owner, name, _, sign = consumer.intercept
            old = numpy_of(named_weight(run.layer(owner), name))
            yield run.assign(owner, name, old + sign * (constant - bias))


def _linear(layer: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A layer's kernel as a matrix (features, outputs) and its bias (zeros if none)."""
    kernel = numpy_of(named_weight(layer, name))
    kernel = kernel.reshape(-1, kernel.shape[-1])
    bias = numpy_of(named_weight(layer, "bias")) if layer.use_bias else None
    return kernel, np.zeros_like(kernel[0]) if bias is None else bias


def gather_in_order(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    *,
    batch_size: int = 250,
    rows: int = 20_000,
    rows_per_feature: int = 32,
    most_rows: int = 40_000,
    ridges: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
    rounds: int = 4,
    residual: bool = True,
    seed: int = 0,
) -> InOrderReconstruction:
    """Runs the dense network once over calibration images and keeps what a refit aims at.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input; unlabelled.
        batch_size: images a forward pass.
        rows: output positions sampled for each consumer, over all images, at
            least: with fewer, the fit follows the calibration images, and each
            layer's error adds to that of the next.
        rows_per_feature: the same, for each feature of its input.
        most_rows: of a consumer that `rows_per_feature` asks for, which bounds the memory.
        ridges: ridge terms, relative to the mean variance of the kept inputs;
            each consumer gets the one that does best on a fifth of the images.
        rounds: solves of a consumer with a rectifier behind it; the second
            and later ones leave out errors that are clipped away after the one before.
        residual: whether a branch is fitted towards *dense sum minus pruned
            shortcut* rather than towards its own dense output.
        seed: of the positions sampled.

    Returns:
        The `InOrderReconstruction`.
    """
    network = graph.network
    total = len(images[0])
    rng = np.random.default_rng(seed)
    readers = readers_of(network)
    consumers: dict[int, _Consumer] = {}
    ends: dict[int, list[_Consumer]] = {}
    shared: dict[int, _Consumer] = {}
    for site, weight in refittable(graph):
        layer = site.call.operation
        later = [c for c in network.calls if c.operation is layer and c is not site.call]
        path = follow(network, site.call, readers, through_sums=residual)
        if later:
            path = Path(path.start)
        consumer = _Consumer(site, weight.name, intercept(graph, site, readers), path)
        consumers[id(site.call)] = consumer
        shared.update({id(call): consumer for call in later})
        if path.calls:
            ends.setdefault(path.end, []).append(consumer)

    def invoke(call, args, kwargs):
        output = infer(call.operation, args, kwargs)
        consumer = consumers.get(id(call)) or shared.get(id(call))
        if consumer is not None:
            x = keras.tree.flatten((args, kwargs))[0]
            features = math.prod(named_weight(call.operation, consumer.kernel).shape[:-1])
            wide = min(rows_per_feature * features, most_rows)
            each = math.ceil(max(rows, wide) / total)
            chosen = choose(math.prod(output.shape[1:-1]), len(x), each, rng)
            if id(call) in consumers:
                consumer.positions.append(chosen)
            if not consumer.path.calls:
                read = linear_inputs(call.operation, x, chosen)
                kernel, bias = _linear(call.operation, consumer.kernel)
                y = _matmul(read, kernel) + bias
                if id(call) in consumers:
                    consumer.targets.append(y)
                else:
                    consumer.later.append((read, y))
        for consumer in ends.get(call.outputs[0], ()):
            consumer.targets.append(at_positions(output, consumer.positions[-1]))
        return output

    arrays = [
        np.asarray(array, tensor.dtype)
        for array, tensor in zip(images, network.model.inputs, strict=True)
    ]
    batches = [
        {n: a[start : start + batch_size] for n, a in zip(network.inputs, arrays, strict=True)}
        for start in range(0, len(arrays[0]), batch_size)
    ]
    for batch in batches:
        network.run(list(batch.values()), invoke)
    return InOrderReconstruction(graph, batches, consumers, tuple(ridges), rounds)


class _PrunedRun:
    """The pruned network, run for all batches up to the next refit and no further.

    Attributes:
        keep: kept channel classes.
    """

    def __init__(self, graph: ChannelGraph, plan: PruningPlan, keep: np.ndarray, batches):
        self.keep = keep
        self._network = graph.network
        self._layers = {x.name: x for x in rebuild(graph.network.model, graph, plan).layers}
        self._sites = {id(site.call): site for site in graph.sites}
        self._sites_by_name = {site.name: site for site in graph.sites}
        self._last = {n: i for i, call in enumerate(graph.network.calls) for n in call.inputs}
        self._values: list[dict[int, Any]] = [dict(batch) for batch in batches]
        self._changed: set[int] = set()
        self._waiting: list[Call] = []
        self._done = 0

    def deviates(self, call: Call, others: Sequence[int] = ()) -> bool:
        """Whether what a call reads, or will be added to, is not what the dense network has."""
        if self._changed.intersection((*call.inputs, *others)):
            return True
        site = self._sites.get(id(call))
        if site is None:
            return False
        return any(not self.keep[site.roles[role]].all() for role in site.rule.mixes.values())

    def add(self, call: Call) -> None:
        """The next call, which is run when a refit needs it."""
        if self.deviates(call):
            self._changed.update(call.outputs)
        self._waiting.append(call)

    def catch_up(self) -> None:
        """Runs the calls that wait, one batch after the other."""
        for values in self._values:
            for index, call in enumerate(self._waiting, start=self._done):
                args, kwargs = keras.tree.map_structure(
                    lambda x: values[x.number] if isinstance(x, Value) else x,  # noqa: B023
                    (call.args, call.kwargs),
                )
                out = infer(self._operation(call), args, kwargs)
                values.update(zip(call.outputs, keras.tree.flatten(out), strict=True))
                for n in (*call.inputs, *call.outputs):
                    if self._last.get(n, -1) <= index:
                        values.pop(n, None)
        self._done += len(self._waiting)
        self._waiting.clear()

    def _operation(self, call: Call) -> Callable[..., Any]:
        """What the pruned network does in a call's place."""
        site = self._sites.get(id(call))
        if site is not None and site.rule.rewrite:
            kept = {role: self.keep[classes] for role, classes in site.roles.items()}
            rank = len(self._network.tensors[call.inputs[0]].shape)
            return site.rule.rewrite(call, kept, rank)
        return self._layers.get(self._network.name(call.operation), call.operation)

    def inputs(self, call: Call, positions: Sequence[np.ndarray]) -> np.ndarray:
        """The rows that a call will multiply, of all batches."""
        layer = self._operation(call)
        return np.concatenate(
            [
                linear_inputs(layer, values[call.inputs[0]], chosen)
                for values, chosen in zip(self._values, positions, strict=True)
            ]
        )

    def along(
        self, path: Path, positions: Sequence[np.ndarray], shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A path as `slope * output + base`: arrays (outputs,) and (rows, outputs).

        Its operations treat each position alone and are linear, so running
        them on zeros and on ones tells all, whichever they are.
        """
        if not path.calls:
            return np.ones(shape[1], np.float32), np.zeros((1, shape[1]), np.float32)
        axes = [1] * (len(self._network.tensors[path.start].shape) - 2)

        def spread(rows: np.ndarray) -> np.ndarray:
            return rows.reshape(shape[0], *axes, shape[1])

        values = {
            number: spread(
                np.concatenate(
                    [
                        at_positions(batch[number], chosen)
                        for batch, chosen in zip(self._values, positions, strict=True)
                    ]
                )
            )
            for number in path.others
        }
        base, one = (
            numpy_of(path.run({**values, path.start: spread(start)}, self._operation))
            for start in (np.zeros(shape, np.float32), np.ones(shape, np.float32))
        )
        return (one - base).reshape(shape)[0], base.reshape(shape)

    def layer(self, name: str) -> Any:
        """The small layer of that name."""
        return self._layers[name]

    def assign(self, owner: str, name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
        """Sets a small layer's weight from here on; returns what `rebuild` takes for it."""
        weight = named_weight(self._layers[owner], name)
        value = value.reshape(weight.shape)
        weight.assign(value)
        site = self._sites_by_name[owner]
        dense, axes = next(
            (w, axes) for w, axes in site.rule.weight_axes(site.call.operation) if w.name == name
        )
        kept = [
            np.arange(size) if role is None else np.flatnonzero(self.keep[site.roles[role]])
            for size, role in zip(dense.shape, axes, strict=True)
        ]
        full = np.zeros(dense.shape, value.dtype)
        full[np.ix_(*kept)] = value
        return f"{owner}/{name}", full


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

    Returns:
        New weights and intercept.
    """
    mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype) if centred else np.zeros_like(x[0])
    x = x - mean
    old = _matmul(x, kernel)
    step, centre = np.zeros_like(kernel), constant + mean @ kernel
    system = None
    for goal in goals:
        aim = goal(old + _matmul(x, step) + centre)
        centre = aim.mean(axis=0) if centred else centre
        residual = aim - centre - old
        system = system or _Ridge(x, residual, ridges, held)
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
        products = _matmul(x.T, x) if self._primal else _matmul(x, x.T)
        scores = [0.0]
        if len(ridges) > 1:
            scores = self._scores(products, residual, ridges, held)
        self._factor = self._factorised(products, ridges[int(np.argmin(scores))])

    def solve(self, residual: np.ndarray) -> np.ndarray:
        """D for a residual (rows, outputs)."""
        if not self._primal:
            return _matmul(self._x.T, _solve(self._factor, residual))
        return _solve(self._factor, _matmul(self._x.T, residual))

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
            side = _matmul(self._x.T, residual) - _matmul(x.T, target)
            products = products - _matmul(x.T, x)
        else:
            side, x = residual[~held], products[np.ix_(held, ~held)]
            products = products[np.ix_(~held, ~held)]
        return [
            float(np.square(target - _matmul(x, _solve(factor, side))).sum(dtype=np.float64))
            for factor in (self._factorised(products, ridge) for ridge in ridges)
        ]


def _solve(factor: Any, side: np.ndarray) -> np.ndarray:
    return scipy.linalg.cho_solve(factor, side, check_finite=False).astype(side.dtype)


def _matmul(a: Any, b: Any) -> np.ndarray:
    # The backend's threads, not those of numpy's BLAS: two pools fight for the same cores.
    return numpy_of(keras.ops.matmul(a, b))
