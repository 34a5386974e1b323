"""The search problem of fine-grained pruning: the density of each kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import macs, params
from amc_tf.search.env.budget import CountCost
from amc_tf.search.env.channels import layer_features, scaled
from amc_tf.search.env.problem import NUM_FEATURES, Problem
from amc_tf.sparsity.kernels import STEPS, Kernel, kernels
from amc_tf.sparsity.plan import DensityPlan


def density_problem(graph: ChannelGraph, *, min_density: float = 0.05) -> Problem[DensityPlan]:
    """Makes the problem of choosing the density of each kernel, in steps (see `DecisionEnv`).

    Costs count what is not zero: `params` counts the weights kept and all
    parameters that are never pruned, `macs` the multiplications by them. The
    state is that of `channel_problem`, with the kernel's input channels as c.

    Args:
        graph: the analysed model.
        min_density: smallest density of a kernel, in (0, 1].

    Raises:
        AmcError: nothing can be pruned, or `min_density` is out of its range.
    """
    if not 0 < min_density <= 1:
        raise AmcError(f"expected min_density in (0, 1], received {min_density}")
    found = kernels(graph)
    least = max(1, int(np.ceil(min_density * STEPS - 1e-9)))

    def plan(counts: Sequence[int]) -> DensityPlan:
        named = zip(found, counts, strict=True)
        return DensityPlan({kernel.name: int(steps) for kernel, steps in named})

    return Problem(
        [np.arange(least, STEPS + 1)] * len(found),
        density_costs(graph, found),
        _features(graph, found),
        plan,
    )


def density_costs(graph: ChannelGraph, found: Sequence[Kernel]) -> Mapping[str, CountCost]:
    """Makes the exact counts of what is not zero, as functions of the densities in steps."""

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
