"""The widths of a network as functions of a plan.

Every width in a pruned network counts the kept channels of some vector of
channel classes: a tensor's last axis, an axis of a weight, the part of an axis
that a slice takes. This module finds all these vectors of a network, and plans
under which their counts differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.sparse import csr_array

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.layer_rule import output_role
from amc_tf.graph.plan import PruningPlan

_MAX_DRAWS = 50


def prunable(graph: ChannelGraph) -> np.ndarray:
    """Returns whether each channel class may be dropped, as booleans (classes,)."""
    may_drop = np.zeros(graph.classes, bool)
    for group in graph.groups.values():
        may_drop[group.classes] = group.channels > 1
    for whole, parts in graph.parts.items():
        may_drop[whole] = may_drop[list(parts)].any()
    return may_drop


def channel_vectors(graph: ChannelGraph) -> csr_array:
    """Returns how often each width that a model's file may hold counts each channel class.

    Returns:
        Integers (vectors, classes + 1); the last column counts channels that belong to no
        class and are always kept. Each vector is there once. Vectors that no plan changes are
        left out.
    """
    may_drop = np.append(prunable(graph), False)
    alone = np.arange(graph.classes)  # a joint class of one part is that part
    for whole, parts in graph.parts.items():
        if len(parts) == 1:
            alone[whole] = parts[0]
    distinct: dict[bytes, np.ndarray] = {}
    for roles in _roles_of_calls(graph):
        for ids in (*roles.values(), *_pieces(roles)):
            if may_drop[ids].any():
                ids = np.sort(alone[ids])
                distinct[ids.tobytes()] = ids
    rows = np.repeat(np.arange(len(distinct)), [len(ids) for ids in distinct.values()])
    columns = np.concatenate([*distinct.values(), np.zeros(0, int)])
    ones = np.ones(len(columns), np.int32)
    return csr_array((ones, (rows, columns)), shape=(len(distinct), len(may_drop)))


def counts(vectors: csr_array, keep: np.ndarray) -> np.ndarray:
    """Returns how many positions of each vector are kept (`keep`: one boolean for each class)."""
    return vectors @ np.append(keep, True).astype(np.int32)


def positions(vectors: csr_array, number: int) -> np.ndarray:
    """Returns the classes that a vector counts, each as often as the vector counts it."""
    row = vectors[[number]].tocsr()
    return np.repeat(row.indices, row.data)


def _roles_of_calls(graph: ChannelGraph) -> Iterator[Mapping[str, np.ndarray]]:
    """Yields the roles of every call, as channel classes.

    The roles of `graph.sites` are known; the calls between them only pass channels on.
    """
    for call in graph.network.calls:
        site = graph.site_at(call)
        if site is not None:
            yield site.roles
        elif call.inputs:
            made = enumerate(graph.values[number] for number in call.outputs)
            yield {
                "in": graph.values[call.inputs[0]],
                **{output_role(i): ids for i, ids in made},
            }


def _pieces(roles: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the parts of an axis whose sizes a slice or a padding names.

    They are the positions before, up to the end of, and after the part that is passed on.
    """
    for name, ids in roles.items():
        if not name.startswith("out") or "@" in name or len(ids) == len(roles.get("in", ids)):
            continue
        short, long = sorted((roles["in"], ids), key=len)
        windows = np.lib.stride_tricks.sliding_window_view(long, len(short))
        for start in np.flatnonzero((windows == short).all(axis=1)).tolist():
            stop = start + len(short)
            yield from (long[:start], long[:stop], long[stop:])


def telling_plans(
    graph: ChannelGraph, vectors: csr_array, rng: np.random.Generator
) -> tuple[PruningPlan, PruningPlan]:
    """Draws two plans whose widths, taken together, distinguish as many vectors as possible."""

    def confused(plans: tuple[PruningPlan, PruningPlan]) -> int:
        a, b = (counts(vectors, graph.keep_mask(plan)) for plan in plans)
        pairs = np.unique(np.stack([a, b]), axis=1)
        # A converter may merge constants of equal widths, so the widths within one plan should
        # differ too.
        return int(
            (a == b).sum() + 3 * len(a) - pairs.shape[1] - len(np.unique(a)) - len(np.unique(b))
        )

    draws = []
    for _ in range(_MAX_DRAWS):
        draws.append((random_plan(graph, rng), random_plan(graph, rng)))
        if not confused(draws[-1]):
            return draws[-1]
    return min(draws, key=confused)


def random_plan(graph: ChannelGraph, rng: np.random.Generator) -> PruningPlan:
    """Draws random channels of every group.

    At least two are kept where the group has more than two, because a converter may treat a
    single channel differently.
    """
    keep = {}
    for name, group in graph.groups.items():
        least = 2 if group.channels > 2 else 1
        count = rng.integers(least, group.channels + 1)
        keep[name] = sorted(rng.choice(group.channels, count, replace=False).tolist())
    return PruningPlan(keep)
