"""The pruned network while it is refitted: its weights, its values, and what deviates."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.network import Call
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.refit.linear_path import Affine
from amc_tf.pruning.refit.runner import Images, Runner, Stop
from amc_tf.pruning.refit.sampling import at_positions, linear_inputs
from amc_tf.pruning.weights import cut, named_weight, numpy_of, spread


class PrunedRun:
    """A pruned network, run for all images up to the next refit and no further.

    Attributes:
        keep: whether each channel class is kept, boolean (classes,).
        pool: threads for work that can be done in parallel.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        plan: PruningPlan,
        runner: Runner,
        images: Images,
        pool: Executor,
    ):
        self.keep = graph.keep_mask(plan)
        self.pool = pool
        self._graph = graph
        self._run = runner.start(plan, images, pool)
        self._changed: set[int] = set()
        self._assigned: dict[str, np.ndarray] = {}
        self._waiting: dict[str, np.ndarray] = {}

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
        return any(not self.keep[site.roles[role]].all() for role in site.summed())

    def add(self, call: Call, changed: bool = False) -> None:
        """Passes a call, whose outputs deviate if its inputs do.

        Args:
            call: the call.
            changed: whether its weights have changed.
        """
        if changed or self.deviates(call):
            self._changed.update(call.outputs)

    def catch_up(self, stop: Stop) -> None:
        """Runs the network up to a stop, with the weights assigned so far."""
        self._run.advance(stop, self._waiting)
        self._waiting = {}

    def inputs(self, site: Site, positions: np.ndarray) -> np.ndarray:
        """Returns the rows that a layer multiplies by its kernel at the last stop.

        Args:
            site: the call of the layer.
            positions: output positions, int (images, positions).
        """
        layer = site.call.operation
        product = site.rule.kind.product
        first = None
        if product is not None and product.reads == "depthwise":
            first = self.weight(site, "depthwise_kernel")
        read = functools.partial(linear_inputs, layer, depthwise_kernel=first)
        number = site.call.inputs[0]
        return self._run.rows(number, lambda x, images: read(x, positions[images]))

    def base(self, affine: Affine, columns: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Returns a path's value where the layer's output is zero, (rows or 1, columns).

        Args:
            affine: the path.
            columns: the channels that are kept, boolean (outputs,).
            positions: output positions, int (images, positions).
        """
        base = affine.base[None, columns]
        for number, factor in affine.factors:

            def read(x, images, factor=factor[columns]):
                rows = at_positions(x, positions[images])
                rows *= factor
                return rows

            other = self._run.rows(number, read)
            other += base
            base = other
        return base

    def weight(self, site: Site, name: str) -> np.ndarray:
        """Returns a layer's weight in the pruned network."""
        value = self._assigned.get(f"{site.name}/{name}")
        if value is None:
            value = numpy_of(named_weight(site.call.operation, name))
        return cut(site, name, value, self.keep)

    def assign(self, site: Site, name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
        """Sets a weight of the pruned network for the calls that have not run yet.

        Args:
            site: a call of the layer.
            name: name of the weight.
            value: its new value, of any shape with as many elements.

        Returns:
            `layer/weight` and the value in the dense shape, as `rebuild` takes them.
        """
        key, full = f"{site.name}/{name}", spread(site, name, value, self.keep)
        self._assigned[key] = self._waiting[key] = full
        return key, full
