"""The problem that settings describe, and its environment under a budget."""

from __future__ import annotations

import logging

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import Cost
from amc_tf.graph.input_shapes import InputShape, is_open
from amc_tf.graph.plan import PlanT, PruningPlan
from amc_tf.pruning.importance.criteria import BY_GRADIENTS, check_loss
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.budget import UNKNOWN_LATENCY, Budget
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.env.problem import Problem
from amc_tf.search.open_choices import FINENESSES, min_preserves, roundings
from amc_tf.search.settings import SearchSettings
from amc_tf.training.metric import ACCURACY, Metric
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)


def analyzed(model: keras.Model, task: Task, settings: SearchSettings) -> ChannelGraph:
    """Analyses a model for pruning within the constraints of the settings.

    Raises:
        AmcError: see `Constraints.analyze`.
    """
    shape = counted_shape(model, task, settings)
    return settings.constraints.analyze(model, shape, settings.allow_approximate)


def counted_shape(model: keras.Model, task: Task, settings: SearchSettings) -> InputShape:
    """Returns the input shape for which work is counted; empty for the model's own sizes.

    Without a setting, open sizes are those of the validation data.
    """
    if settings.input_shape or not is_open(model):
        return settings.input_shape
    arrays = task.sample_inputs(task.validation, model, 1)
    return [array.shape[1:] for array in arrays]


def problem_of(
    graph: ChannelGraph, settings: SearchSettings, budget: Budget | None = None
) -> Problem[PruningPlan]:
    """Returns the problem that settings describe.

    Its latency and the importance of its channels are not known yet.

    Args:
        graph: the analysed model.
        settings: the search's settings.
        budget: what the least share of a group depends on where the settings leave it open.

    Raises:
        AmcError: see `channel_problem`.
    """
    is_open = settings.rounding is None or settings.min_preserve is None
    for fineness in FINENESSES if is_open else FINENESSES[:1]:
        found = channel_problem(
            graph,
            rounding=roundings(graph, settings, fineness),
            min_preserve=min_preserves(graph, settings, fineness),
            strict=settings.rounding_strict,
        )
        if _reachable(found, budget):
            break
    return found  # else the finest, whose least cost the refusal tells


def _reachable(problem: Problem[PruningPlan], budget: Budget | None) -> bool:
    """Returns whether the smallest plan is within the bounds that can be counted."""
    if budget is None:
        return True
    costs = {**problem.costs, "latency": UNKNOWN_LATENCY}
    bounds = budget.bounds(costs, problem.dense)
    return all(costs[name](problem.least) <= bound for name, bound in bounds.items())


def environment(
    problem: Problem[PlanT],
    budget: Budget | None,
    settings: SearchSettings,
    metric: Metric = ACCURACY,
) -> DecisionEnv[PlanT]:
    """Returns the environment of a problem under a budget.

    Raises:
        AmcError: see `DecisionEnv`.
    """
    return DecisionEnv(
        problem,
        budget,
        reward=settings.reward,
        fill_budget=settings.fill_budget,
        metric=metric,
    )


def check_gradients(model: keras.Model, task: Task, settings: SearchSettings) -> None:
    """Checks that there is a loss for the criteria that need its gradients.

    Raises:
        AmcError: see `amc_tf.pruning.importance.criteria.check_loss`.
    """
    if not settings.criteria.isdisjoint(BY_GRADIENTS):
        if task.train is None:
            raise AmcError(
                f"importance by gradients ({', '.join(sorted(BY_GRADIENTS))}) needs labelled "
                "training data; give Task(train=...), or choose another importance"
            )
        check_loss(task.twin(model))


def check(
    problem: Problem,
    budget: Budget | None,
    settings: SearchSettings,
    metric: Metric = ACCURACY,
) -> None:
    """Checks that the budget has a meaning and can be met, as far as is known without a device.

    Latency that is not known yet exceeds no bound, as measuring its table takes minutes.

    Raises:
        AmcError: MACs are bounded or priced, but do not hold all of the model's work; see also
            `DecisionEnv`.
    """
    _check_all_is_counted(problem, budget, settings)
    environment(problem.with_latency(UNKNOWN_LATENCY), budget, settings, metric)


def _check_all_is_counted(
    problem: Problem, budget: Budget | None, settings: SearchSettings
) -> None:
    cost = problem.costs["macs"]
    uses_macs = settings.reward == "flops" or (budget is not None and budget.macs is not None)
    if not (uses_macs and isinstance(cost, Cost) and cost.uncounted):
        return
    first, *others = cost.uncounted
    more = f" and {len(others)} more" if others else ""
    found = f"{first.operation!r} ({first.class_name}: {first.reason}){more}"
    if not settings.allow_uncounted:
        raise AmcError(
            f"the MACs of the model leave out the work of {found}, so that a budget or reward of "
            "MACs would mean little; bound params or latency instead, or allow it by "
            "SearchSettings(allow_uncounted=True) (--config.search.allow_uncounted)"
        )
    _LOG.warning("MACs leave out the work of %s", found)
