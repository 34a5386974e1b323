"""The environment of fine-grained pruning: the density of one kernel after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import macs, params
from amc_tf.graph.plan import PruningPlan
from amc_tf.search.env.base import NUM_FEATURES, DecisionEnv
from amc_tf.search.env.budget import Budget, CountCost
from amc_tf.search.env.channel_env import layer_features, scaled
from amc_tf.sparsity.kernels import STEPS, Kernel, kernels
from amc_tf.sparsity.plan import DensityPlan


class DensityEnv(DecisionEnv):
    """Chooses densities kernel by kernel under a budget (see `DecisionEnv`).

    Costs count what is not zero: `params` the weights kept and all parameters
    that are never pruned, `macs` the multiplications by kept weights. The
    state is that of `CompressionEnv`, with the kernel's input channels as c.

    Args:
        graph: the analysed model.
        score: accuracy of a plan, a fraction.
        budget: the bound on `macs` or `params`.
        min_density: least density of a kernel, in (0, 1].
        fill_budget: see `DecisionEnv`.

    Raises:
        AmcError: nothing can be pruned, or the budget cannot be reached.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        score: Callable[[PruningPlan], float],
        budget: Budget | None,
        *,
        min_density: float = 0.05,
        fill_budget: bool = True,
    ):
        if not 0 < min_density <= 1:
            raise AmcError(f"expected min_density in (0, 1], received {min_density}")
        self.graph = graph
        self.kernels = kernels(graph)
        least = max(1, int(np.ceil(min_density * STEPS - 1e-9)))

        def plan(counts: Sequence[int]) -> DensityPlan:
            named = zip(self.kernels, counts, strict=True)
            return DensityPlan(steps={kernel.name: int(steps) for kernel, steps in named})

        super().__init__(
            [np.arange(least, STEPS + 1)] * len(self.kernels),
            density_costs(graph, self.kernels),
            _features(graph, self.kernels),
            plan,
            score,
            budget,
            fill_budget=fill_budget,
        )


def density_costs(graph: ChannelGraph, found: Sequence[Kernel]) -> Mapping[str, CountCost]:
    """Exact counts of what is not zero, as functions of the kernels' densities in steps."""

    def cost(dense: int, uses: np.ndarray) -> CountCost:
        rest = dense - int(uses @ np.array([kernel.size for kernel in found]))

        def count(steps: np.ndarray) -> int:
            kept = [kernel.kept(s) for kernel, s in zip(found, steps, strict=True)]
            return rest + int(uses @ np.array(kept))

        return count

    once = np.ones(len(found), np.int64)
    return {
        "macs": cost(macs(graph), np.array([kernel.uses for kernel in found], np.int64)),
        "params": cost(params(graph), once),
    }


def _features(graph: ChannelGraph, found: Sequence[Kernel]) -> np.ndarray:
    rows = np.zeros((len(found), NUM_FEATURES))
    of_each = np.array([kernel.uses * kernel.size for kernel in found])
    for t, kernel in enumerate(found):
        outputs, *window = layer_features(graph, kernel.site)
        rows[t, :8] = (t, outputs, kernel.weight.shape[-2], *window, of_each[t])
        rows[t, 9] = of_each[t + 1 :].sum()
    return scaled(rows, of_each.sum())
