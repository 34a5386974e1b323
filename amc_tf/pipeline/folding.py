"""The network that is searched: the user's, or the same with its residuals folded.

All that a run tells of the dense network, and what a share in the budget is of, is the user's.
"""

from __future__ import annotations

import math

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import macs, params
from amc_tf.pipeline.settings import Settings
from amc_tf.pruning.residuals.folding import fold_residuals
from amc_tf.search.env.budget import Budget
from amc_tf.search.problem import analyzed
from amc_tf.training.task import Task


def searched(
    dense: keras.Model,
    task: Task,
    settings: Settings,
    final: bool = False,
) -> ChannelGraph:
    """Analyses the network that is searched.

    Args:
        dense: the user's model.
        task: its data and training code.
        settings: settings of all stages.
        final: whether the network is pruned and trained, so that batch norms need the statistics of
            the calibration inputs; otherwise it is only looked at.

    Raises:
        AmcError: see `analyzed` and `fold_residuals`.
    """
    if settings.fold_residuals:
        inputs = task.calibration_inputs(dense) if final else None
        dense = task.compiled(fold_residuals(dense, inputs), dense)
    return analyzed(dense, task, settings.search)


def dense_costs(graph: ChannelGraph) -> dict[str, float]:
    """Returns the costs of an analysed network as a whole, by name."""
    return {"macs": macs(graph), "params": params(graph)}


def of_dense(budget: Budget | None, graph: ChannelGraph, settings: Settings) -> Budget | None:
    """Returns a budget for the network that is searched.

    Args:
        budget: the budget as it was given; shares in it are of the user's network.
        graph: the user's network, analysed.
        settings: settings of all stages.

    Raises:
        AmcError: it bounds latency, or the reward prices it, and residuals are folded.
    """
    if not settings.fold_residuals:
        return budget
    if settings.search.reward == "latency" or (budget is not None and budget.bounds_latency):
        raise AmcError(
            "with fold_residuals, expected a budget or reward of macs or params, received one of "
            "latency: the device would time the folded network as the dense one; give the model "
            "amc_tf.fold_residuals(model, inputs) itself, or leave fold_residuals out"
        )
    if budget is None:
        return None
    costs = dense_costs(graph)
    shares = {name: value for name, value in budget.given.items() if value <= 1}
    bounds = {name: float(math.floor(share * costs[name])) for name, share in shares.items()}
    return Budget(**{**budget.given, **bounds})
