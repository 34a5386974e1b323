"""A channel graph as a table for people to read."""

from __future__ import annotations

import dataclasses

from amc_tf.errors import AmcError, printable
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import Cost, macs_cost, params_cost


@dataclasses.dataclass(frozen=True)
class Row:
    """A group and the share of the costs that it changes.

    The shares of several groups overlap: a kernel between two groups counts for both.

    Attributes:
        name: name of the group.
        channels: number of channels.
        macs: share of the model's MACs in kernels that the group changes, such as "4.7%"
            ("?" if unknown).
        params: share of the model's parameters in weights that the group changes.
        producers: names of the layers that compute the channels.
        consumers: names of the layers whose kernels read the channels.
    """

    name: str
    channels: int
    macs: str
    params: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """The content of `describe`: a headline, the groups, what is frozen or refused and why."""

    head: str
    rows: tuple[Row, ...]
    frozen: tuple[tuple[tuple[str, ...], int, str], ...]
    refused: tuple[tuple[str, str, str], ...]


def table(graph: ChannelGraph) -> Table:
    """Makes the table of a graph's groups with their shares of the dense model's costs."""
    params, params_head, params_shares = _shares(params_cost(graph))
    try:
        macs, macs_head, macs_shares = _shares(macs_cost(graph))
        macs_head = f"{macs:,} MACs ({macs_head} prunable)"
    except AmcError:
        macs_head, macs_shares = "MACs unknown (input size not fixed)", ["?"] * len(graph.groups)
    return Table(
        head=f"{graph}, {macs_head}, {params:,} parameters ({params_head} prunable)",
        rows=tuple(
            Row(group.name, group.channels, of_macs, of_params, group.producers, group.consumers)
            for group, of_macs, of_params in zip(
                graph.groups.values(), macs_shares, params_shares, strict=True
            )
        ),
        frozen=graph.frozen,
        refused=tuple(tuple(refused) for refused in graph.refused),
    )


def describe(graph: ChannelGraph, names: int | None = 2) -> str:
    """Lists the groups with their shares of the costs, then what is frozen or refused and why.

    Args:
        graph: the result of `amc_tf.analyze`.
        names: number of layers to name in one place before "and N more"; None for all.

    Returns:
        The list as text of several lines.
    """
    content = table(graph)
    lines = [content.head]
    if content.rows:
        width = max(5, *(len(row.name) for row in content.rows))
        lines.append(f"  {'group':<{width}}  channels  of MACs  of params  producers -> consumers")
        lines += [
            f"  {row.name:<{width}}  {row.channels:>8}  {row.macs:>7}  {row.params:>9}  "
            f"{few(row.producers, names)} -> {few(row.consumers, names)}"
            for row in content.rows
        ]
    if content.frozen:
        lines.append("frozen")
        lines += [
            f"  {count} channels of {few(layers, names)}: {reason}"
            for layers, count, reason in content.frozen
        ]
    if content.refused:
        lines.append("refused")
        lines += [f"  {name} ({kind}): {reason}" for name, kind, reason in content.refused]
    return "\n".join(map(printable, lines))


def _shares(cost: Cost) -> tuple[int, str, list[str]]:
    """Returns the dense cost, the share that any group changes, and each group's share."""
    total, terms, touched = cost(cost.dense), cost.terms(cost.dense), cost.touched()
    prunable = int(terms[touched.any(axis=1)].sum())
    return total, _percent(prunable, total), [_percent(n, total) for n in terms @ touched]


def _percent(part: int, total: int) -> str:
    """Formats a share; only nothing is written as 0.0%, and only all of it as 100.0%."""
    share = part / max(1, total)
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if share >= 0.9995 and part != total else f"{share:.1%}"


def few(names: tuple[str, ...], most: int | None = 2) -> str:
    """Joins names by commas, with "and N more" after `most` of them (None: all)."""
    shown = ", ".join(names[:most]) or "-"
    more = len(names) - len(names[:most])
    return shown + (f" and {more} more" if more else "")
