"""The pruned network, run call by call while it is refitted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.network import Call, Value, infer
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.refit.linear_path import Path
from amc_tf.pruning.refit.sampling import at_positions, linear_inputs
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import named_weight, numpy_of


class PrunedRun:
    """The pruned network, run for all batches up to the next refit and no further.

    Attributes:
        keep: whether each channel class is kept, boolean (classes,).
        pool: threads for work that can be done in parallel, such as batches.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        plan: PruningPlan,
        keep: np.ndarray,
        batches: Sequence[Mapping[int, np.ndarray]],
        pool: Executor,
    ):
        self.keep = keep
        self.pool = pool
        self._network = graph.network
        self._layers = {x.name: x for x in rebuild(graph.network.model, graph, plan).layers}
        self._graph = graph
        self._last = {n: i for i, call in enumerate(graph.network.calls) for n in call.inputs}
        self._values: list[dict[int, Any]] = [dict(batch) for batch in batches]
        self._changed: set[int] = set()
        self._waiting: list[Call] = []
        self._done = 0

    def deviates(self, call: Call, others: Sequence[int] = ()) -> bool:
        """Returns whether a call's inputs, or `others`, differ from the dense network's.

        Args:
            call: the call.
            others: numbers of the values that its output will be added to.
        """
        if self._changed.intersection((*call.inputs, *others)):
            return True
        site = self._graph.site_at(call)
        if site is None:
            return False
        return any(not self.keep[site.roles[role]].all() for role in site.rule.mixes.values())

    def add(self, call: Call, changed: bool = False) -> None:
        """Adds the next call, to be run when a refit needs it.

        Args:
            call: the call.
            changed: whether its weights have changed.
        """
        if changed or self.deviates(call):
            self._changed.update(call.outputs)
        self._waiting.append(call)

    def catch_up(self) -> None:
        """Runs the waiting calls."""

        def run(values: dict[int, Any]) -> None:
            for index, call in enumerate(self._waiting, start=self._done):
                args, kwargs = keras.tree.map_structure(
                    lambda x: values[x.number] if isinstance(x, Value) else x,
                    (call.args, call.kwargs),
                )
                out = infer(self._operation(call), args, kwargs)
                values.update(zip(call.outputs, keras.tree.flatten(out), strict=True))
                for n in (*call.inputs, *call.outputs):
                    if self._last.get(n, -1) <= index:
                        values.pop(n, None)

        list(self.pool.map(run, self._values))
        self._done += len(self._waiting)
        self._waiting.clear()

    def _operation(self, call: Call) -> Callable[..., Any]:
        """Returns what the pruned network does in place of a call's operation."""
        site = self._graph.site_at(call)
        if site is not None and site.rule.rewrite:
            kept = {role: self.keep[classes] for role, classes in site.roles.items()}
            rank = len(self._network.tensors[call.inputs[0]].shape)
            return site.rule.rewrite(call, kept, rank)
        return self._layers.get(self._network.name(call.operation), call.operation)

    def inputs(self, call: Call, positions: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the rows that a call multiplies by its kernel, of all batches."""
        layer = self._operation(call)
        return self._gathered(functools.partial(linear_inputs, layer), call.inputs[0], positions)

    def _gathered(
        self, read: Callable[..., np.ndarray], number: int, positions: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Applies `read` to a value in each batch, and joins the rows."""
        batches = [values[number] for values in self._values]
        rows = list(self.pool.map(read, batches, positions))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def along(
        self, path: Path, positions: Sequence[np.ndarray], outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Expresses a path as `slope * output + base`.

        Its operations are affine, and treat each position and each channel on
        its own. So it is enough to run them on zeros and ones, whatever they are.

        Returns:
            The slope (outputs,) and the base (rows or 1, outputs).
        """
        if not path.calls:
            return np.ones(outputs, np.float32), np.zeros((1, outputs), np.float32)
        # One run of a few rows: of zeros, of the output alone, and of each other value alone.
        probes = np.eye(2 + len(path.others), dtype=np.float32)
        axes = [1] * (len(self._network.tensors[path.start].shape) - 2)
        spread = [
            np.broadcast_to(probe.reshape(-1, *axes, 1), (len(probe), *axes, outputs))
            for probe in probes[1:]
        ]
        ends = path.run(dict(zip((path.start, *path.others), spread, strict=True)), self._operation)
        nothing, *alone = numpy_of(ends).reshape(len(probes), outputs)
        slope, *factors = (end - nothing for end in alone)
        base = nothing[None]
        for number, factor in zip(path.others, factors, strict=True):
            base = base + factor * self._gathered(at_positions, number, positions)
        return slope, base

    def layer(self, name: str) -> Any:
        """Returns the pruned network's layer of that name."""
        return self._layers[name]

    def assign(self, layer: str, name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
        """Sets a weight of the pruned network for the calls that have not run yet.

        Args:
            layer: name of the layer.
            name: name of the weight.
            value: its new value, of any shape with as many elements.

        Returns:
            `layer/weight` and the value in the dense shape, as `rebuild` takes them.
        """
        weight = named_weight(self._layers[layer], name)
        value = value.reshape(weight.shape)
        weight.assign(value)
        site = self._graph.site(layer)
        dense, axes = next(
            (w, axes) for w, axes in site.rule.weight_axes(site.call.operation) if w.name == name
        )
        kept = [
            np.arange(size) if role is None else np.flatnonzero(self.keep[site.roles[role]])
            for size, role in zip(dense.shape, axes, strict=True)
        ]
        full = np.zeros(dense.shape, value.dtype)
        full[np.ix_(*kept)] = value
        return f"{layer}/{name}", full
