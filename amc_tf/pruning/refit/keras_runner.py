"""A refit's runs by Keras, which can run every network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import keras
import numpy as np

from amc_tf.graph.additions import placed
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.constants import sliced
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.network import Call, Value
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.refit.runner import Images, Read, Stop
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import Weights, cut, named_weight


@dataclasses.dataclass(frozen=True, eq=False)
class KerasRunner:
    """A `Runner` that rebuilds the pruned network and calls its layers.

    Attributes:
        graph: the analysed model.
        batches: the images of each forward pass.
    """

    graph: ChannelGraph
    batches: Sequence[slice]

    def start(self, plan: PruningPlan, images: Images, pool: Executor) -> KerasRun:
        """See `Runner.start`."""
        return KerasRun(self.graph, plan, self.batches, images, pool)


class KerasRun:
    """A `Run` of a rebuilt model."""

    def __init__(
        self,
        graph: ChannelGraph,
        plan: PruningPlan,
        batches: Sequence[slice],
        images: Images,
        pool: Executor,
    ):
        self._graph = graph
        self._network = graph.network
        self._pool = pool
        self._keep = graph.keep_mask(plan)
        self._layers = {x.name: x for x in rebuild(graph.network.model, graph, plan).layers}
        self._last = {n: i for i, call in enumerate(graph.network.calls) for n in call.inputs}
        self._images = images
        self._batches = batches
        self._values: list[dict[int, Any]] = [{} for _ in batches]
        self._done = 0

    def advance(self, stop: Stop, changed: Weights) -> None:
        """See `Run.advance`."""
        for name, value in changed.items():
            layer, _, weight = name.rpartition("/")
            target = named_weight(self._layers[layer], weight)
            target.assign(cut(self._graph.site(layer), weight, value, self._keep))
        waiting: list[tuple[Call, Callable[..., Any], tuple]] = []
        for call in self._network.calls[self._done :]:
            if call is stop.call:
                break
            arguments = sliced(call.args, call.kwargs, self._graph.kept_at(call, self._keep))
            waiting.append((call, self._operation(call), arguments))

        def run(batch: slice, values: dict[int, Any]) -> None:
            if not self._done:
                values.update(zip(self._network.inputs, self._images.part(batch), strict=True))
            for index, (call, operation, arguments) in enumerate(waiting, start=self._done):
                args, kwargs = keras.tree.map_structure(
                    lambda x: values[x.number] if isinstance(x, Value) else x, arguments
                )
                out = infer(operation, placed(call.operation, args), kwargs)
                values.update(zip(call.outputs, keras.tree.flatten(out), strict=True))
                for n in (*call.inputs, *call.outputs):
                    if self._last.get(n, -1) <= index:
                        values.pop(n, None)

        list(self._pool.map(run, self._batches, self._values))
        self._done += len(waiting)

    def _operation(self, call: Call) -> Callable[..., Any]:
        """Returns what the pruned network does in place of a call's operation."""
        site = self._graph.site_at(call)
        if site is not None and site.rule.rewrite:
            rank = len(self._network.tensors[call.inputs[0]].shape)
            return site.rule.rewrite(call, self._graph.kept_at(call, self._keep), rank)
        return self._layers.get(self._network.name(call.operation), call.operation)

    def rows(self, number: int, read: Read) -> np.ndarray:
        """See `Run.rows`."""
        if not self._done:  # the network's inputs, before any call
            parts = [
                dict(zip(self._network.inputs, self._images.part(b), strict=True))
                for b in self._batches
            ]
        else:
            parts = self._values
        values = [values[number] for values in parts]
        rows = list(self._pool.map(read, values, self._batches))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)
