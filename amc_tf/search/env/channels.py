"""The problem of channels: how many channels of each group are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amc_tf.errors import AmcError, printable
from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.costs import COSTS, Cost
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.importance.criteria import Importance, consumer_magnitude, strongest
from amc_tf.search.env.problem import NUM_FEATURES, Problem

_LOG = logging.getLogger(__name__)


def channel_problem(
    graph: ChannelGraph,
    *,
    rounding: int | Sequence[int] = 8,
    min_preserve: float | Sequence[float] = 0.2,
    strict: bool = False,
    importance: Importance | None = None,
) -> Problem[PruningPlan]:
    """Makes the problem of how many channels each group keeps (see `DecisionEnv`).

    The state of group t is the paper's state of the layer whose input channels
    are pruned. Here this layer is the group's first consumer, and costs are the
    costs of all its consumers:

    0. t; 1. n, output channels of that layer; 2. c, channels of the group;
    3. h and 4. w of its input; 5. stride; 6. k; 7. MACs of all layers that
    read the group; 8. reduced, the MACs saved by the decisions so far; 9. rest,
    the MACs that only later groups can still save; 10. the previous action.

    Args:
        graph: the analysed model.
        rounding: number of which channel counts are multiples (the full count is
            allowed, too, unless `strict`); one for all groups, or one for each in the
            order of `graph.groups`.
        min_preserve: least preserve ratio of a group, in (0, 1]; one for all groups, or
            one for each in the same order.
        strict: whether a full count that is no multiple is not allowed. A group that has
            no multiple from `min_preserve` on keeps all channels; a warning names it.
        importance: scores that say which channels are pruned first (see
            `amc_tf.pruning.importance.criteria`); by default the consumers' magnitude.

    Raises:
        AmcError: no group can be pruned, or a rounding or ratio is out of its range.
    """
    if not graph.groups:
        raise AmcError(
            f"model {graph.network.model.name!r} has no prunable group that is not frozen; "
            "amc-inspect says why each operation is"
        )
    exact = {name: make(graph) for name, make in COSTS.items()}
    return Problem(
        allowed_counts(graph, rounding, min_preserve, strict),
        exact,
        _static_features(graph, exact["macs"]),
        by_importance(graph, consumer_magnitude(graph) if importance is None else importance),
        [group.channels for group in graph.groups.values()],
    )


def by_importance(
    graph: ChannelGraph, importance: Importance
) -> Callable[[Sequence[int]], PruningPlan]:
    """Returns a function from channel counts to the plan that keeps the most important channels."""

    def plan(counts: Sequence[int]) -> PruningPlan:
        return strongest(importance, dict(zip(graph.groups, counts, strict=True)))

    return plan


def allowed_counts(
    graph: ChannelGraph,
    rounding: int | Sequence[int],
    min_preserve: float | Sequence[float],
    strict: bool = False,
) -> list[np.ndarray]:
    """Returns the channel counts that each group may keep, ascending (see `channel_problem`).

    Raises:
        AmcError: a rounding or ratio is out of its range.
    """
    roundings = _for_each(graph, "rounding", rounding)
    ratios = _for_each(graph, "min_preserve", min_preserve)
    if not ((roundings >= 1).all() and ((ratios > 0) & (ratios <= 1)).all()):
        raise AmcError(
            "expected rounding of at least 1 and min_preserve in (0, 1], received "
            f"{rounding} and {min_preserve}"
        )
    found, whole = [], []
    for group, multiple, ratio in zip(
        graph.groups.values(), roundings.tolist(), ratios.tolist(), strict=True
    ):
        choices = _choices(group.channels, multiple, ratio)
        if strict and group.channels % multiple:
            if len(choices) == 1:
                whole.append(f"{group.name} ({group.channels} channels, rounding {multiple})")
            else:
                choices = choices[:-1]
        found.append(choices)
    if whole:
        _LOG.warning(
            "%d groups have no multiple of their rounding and stay whole: %s; give them a smaller "
            "one in Constraints(rounding=...)",
            len(whole),
            printable(", ".join(whole)),
        )
    return found


def _for_each(graph: ChannelGraph, name: str, value: Any) -> np.ndarray:
    """Returns a setting as an array with one value for each group."""
    values = np.asarray(value)
    if values.ndim and values.shape != (len(graph.groups),):
        raise AmcError(
            f"expected {name} as one number or as {len(graph.groups)}, one a group, received an "
            f"array of shape {values.shape}"
        )
    return np.broadcast_to(values, len(graph.groups))


def _choices(channels: int, rounding: int, min_preserve: float) -> np.ndarray:
    """Returns the allowed channel counts, ascending: multiples of the rounding, and all."""
    least = min_preserve * channels
    multiples = np.arange(rounding, channels, rounding)
    return np.append(multiples[multiples >= least - 1e-9], channels)


def _static_features(graph: ChannelGraph, macs: Cost) -> np.ndarray:
    """Returns the features that no decision changes, scaled to [0, 1]."""
    rows = np.zeros((len(graph.groups), NUM_FEATURES))
    terms, touched = macs.terms(macs.dense), macs.touched()
    names = np.array(macs.sites)
    for t, group in enumerate(graph.groups.values()):
        outputs, *window = layer_features(graph, graph.site(group.consumers[0]))
        touching = terms[np.isin(names, group.consumers)].sum()
        rows[t, :8] = (t, outputs, group.channels, *window, touching)
        later_only = touched[:, t + 1 :].any(axis=1) & ~touched[:, : t + 1].any(axis=1)
        rows[t, 9] = terms[later_only].sum()
    return scaled(rows, terms.sum())


def layer_features(graph: ChannelGraph, site: Site) -> tuple[int, int, int, int, int]:
    """Returns n (a layer's output channels), h and w of its input, its stride, and k."""
    layer = site.call.operation
    shape = graph.trace.shapes[site.call.inputs[0]][1:-1]
    height, width = (size or 1 for size in (*shape, 1, 1)[:2])
    return (
        graph.network.tensors[site.call.outputs[0]].shape[-1],
        height,
        width,
        max(_pair_of(getattr(layer, "strides", 1))),
        max(_pair_of(getattr(layer, "kernel_size", 1))),
    )


def scaled(rows: np.ndarray, cost: float) -> np.ndarray:
    """Returns features scaled to [0, 1] by their maximum; 9, rest, by the whole cost."""
    scale = rows.max(axis=0)
    scale[9] = max(cost, 1)
    return rows / np.where(scale > 0, scale, 1)


def _pair_of(value: int | Sequence[int]) -> Sequence[int]:
    return (value,) if isinstance(value, int) else value
