"""What a run tells at its start: what was found in the model, and what the budget asks for."""

from __future__ import annotations

import logging

from amc_tf import story
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.runs.vocabulary import COUNTED, QUANTITIES
from amc_tf.runs.workdir import Workdir
from amc_tf.search.env.budget import Budget
from amc_tf.search.env.problem import Problem
from amc_tf.search.open_choices import told_choices
from amc_tf.search.settings import SearchSettings

_LOG = logging.getLogger(__name__)


def tell_opening(
    graph: ChannelGraph,
    problem: Problem[PruningPlan],
    budget: Budget | None,
    workdir: Workdir,
    settings: SearchSettings,
    trains: bool,
) -> None:
    """Tells what a run is about, before its work.

    Args:
        graph: the network that is searched.
        problem: the decisions of the search.
        budget: its bounds; None with a reward that prices the cost.
        workdir: the run's folder.
        settings: the search's settings.
        trains: whether pruned networks are fine-tuned.
    """
    dense = {name: problem.costs[name](problem.dense) for name in COUNTED}
    counted = ", ".join(QUANTITIES[name].written(value) for name, value in dense.items())
    free, kept = len(problem), len(graph.groups) - len(problem)
    story.tell(
        "model",
        f"{graph.network.model.name}: {free} groups of channels to prune"
        + (f", {kept} stay whole" if kept else "")
        + f"; {counted}; results in {workdir.path}",
        groups=free,
        workdir=str(workdir.path),
        **dense,
    )
    if rounded := told_choices(problem, settings):
        story.tell("rounding", rounded)
    if trains and (frozen := _frozen(graph)):
        _LOG.warning(
            "%s layers are frozen (trainable=False), such as %r: fine-tuning leaves them as the "
            "refit made them, unless your code sets trainable",
            len(frozen),
            frozen[0],
        )
    if budget is not None:
        asked = [_bound(name, value, problem) for name, value in budget.given.items()]
        story.tell("budget", f"budget: {'; '.join(asked)}", **budget.given)


def _frozen(graph: ChannelGraph) -> list[str]:
    """Returns the names of layers whose weights no training changes, in the network's order."""
    network = graph.network
    layers = {network.name(call.operation): call.operation for call in network.calls}
    return [
        name
        for name, layer in layers.items()
        if getattr(layer, "weights", ()) and not getattr(layer, "trainable", True)
    ]


def _bound(name: str, value: float, problem: Problem[PruningPlan]) -> str:
    """Writes a bound, and the least that any plan of the search can have."""
    if name not in COUNTED:
        told = f"{value:.1%} of dense" if name == "latency" else f"{value:g} ms"
        return f"latency at most {told}"
    cost, written = problem.costs[name], QUANTITIES[name].written
    whole, least = cost(problem.dense), cost(problem.least)
    most = value * whole if value <= 1 else value
    return (
        f"at most {written(int(most))}, {most / whole:.1%} of dense "
        f"(the smallest network of the search has {least / whole:.1%})"
    )
