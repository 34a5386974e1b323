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
        keep: kept channel classes.
        pool: threads for what can be done side by side, such as batches.
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
        """Whether what a call reads, or will be added to, is not what the dense network has."""
        if self._changed.intersection((*call.inputs, *others)):
            return True
        site = self._graph.site_at(call)
        if site is None:
            return False
        return any(not self.keep[site.roles[role]].all() for role in site.rule.mixes.values())

    def add(self, call: Call, changed: bool = False) -> None:
        """The next call, which is run when a refit needs it; `changed` if its weights are."""
        if changed or self.deviates(call):
            self._changed.update(call.outputs)
        self._waiting.append(call)

    def catch_up(self) -> None:
        """Runs the calls that wait."""

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
        """What the pruned network does in a call's place."""
        site = self._graph.site_at(call)
        if site is not None and site.rule.rewrite:
            kept = {role: self.keep[classes] for role, classes in site.roles.items()}
            rank = len(self._network.tensors[call.inputs[0]].shape)
            return site.rule.rewrite(call, kept, rank)
        return self._layers.get(self._network.name(call.operation), call.operation)

    def inputs(self, call: Call, positions: Sequence[np.ndarray]) -> np.ndarray:
        """The rows that a call will multiply, of all batches."""
        layer = self._operation(call)
        return self._gathered(functools.partial(linear_inputs, layer), call.inputs[0], positions)

    def _gathered(
        self, read: Callable[..., np.ndarray], number: int, positions: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Rows of a value, of all batches; `read` takes them from one batch."""
        batches = [values[number] for values in self._values]
        rows = list(self.pool.map(read, batches, positions))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def along(
        self, path: Path, positions: Sequence[np.ndarray], outputs: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """A path as `slope * output + base`: arrays (outputs,) and (rows or 1, outputs).

        Its operations treat each position and each channel alone and are
        affine, so running them on zeros and ones tells all, whichever they are.
        """
        if not path.calls:
            return np.ones(outputs, np.float32), np.zeros((1, outputs), np.float32)
        # One run of few rows: of nothing, of the output alone, of each other value alone.
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
        """The small layer of that name."""
        return self._layers[name]

    def assign(self, owner: str, name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
        """Sets a small layer's weight from here on; returns what `rebuild` takes for it."""
        weight = named_weight(self._layers[owner], name)
        value = value.reshape(weight.shape)
        weight.assign(value)
        site = self._graph.site(owner)
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
