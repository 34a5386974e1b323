"""A channel graph as a table for people to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

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
    """The content of `describe`: a headline, the groups, and notes under titles.

    Attributes:
        head: name of the model, and the parts of its costs that are prunable, fixed or not
            counted.
        rows: the groups.
        fixed: layers whose MACs are counted, but that no group changes, by falling MACs.
        uncounted: (layer, class, what) of work that is not counted.
        frozen: (layers, number of channels, reason) of channels that stay.
        refused: (operation, class, reason) of what cannot be pruned through.
        unread: names of the operations that reach no output of the model, and paths of weights
            that no operation reads.
        approximate: names of the groups that are approximate.
        opened: (layer, class) of layers whose own calls were taken in their place.
        probed: (operation, class) of what a run showed to treat each channel alone.
    """

    head: str
    rows: tuple[Row, ...]
    fixed: tuple[tuple[str, int], ...]
    uncounted: tuple[tuple[str, str, str], ...]
    frozen: tuple[tuple[tuple[str, ...], int, str], ...]
    refused: tuple[tuple[str, str, str], ...]
    unread: tuple[str, ...]
    approximate: tuple[str, ...]
    opened: tuple[tuple[str, str], ...]
    probed: tuple[tuple[str, str], ...]

    def notes(self, names: int | None = 2) -> Iterator[tuple[str, list[str]]]:
        """Yields the titles that have notes, and their notes.

        Args:
            names: number of layers to name in one place before "and N more"; None for all.
        """
        notes = {
            "not counted": [f"{name} ({kind}): {what}" for name, kind, what in self.uncounted],
            "approximate, as a normalisation takes statistics over their channels": (
                [few(self.approximate, names)] if self.approximate else []
            ),
            "MACs that stay": [f"{name}: {macs:,}" for name, macs in self.fixed],
            "frozen": [
                f"{count} channels of {few(layers, names)}: {reason}"
                for layers, count, reason in self.frozen
            ],
            "refused": [f"{name} ({kind}): {reason}" for name, kind, reason in self.refused],
            "looked into": _of_classes(self.opened, names),
            "followed, as a run shows that they treat each channel alone": _of_classes(
                self.probed, names
            ),
            "left out, as they reach no output": [few(self.unread, names)] if self.unread else [],
        }
        yield from ((title, lines) for title, lines in notes.items() if lines)


def table(graph: ChannelGraph) -> Table:
    """Makes the table of a graph's groups with their shares of the dense model's costs."""
    params = params_cost(graph)
    fixed: dict[str, int] = {}
    uncounted: tuple[tuple[str, str, str], ...] = ()
    try:
        macs = macs_cost(graph)
    except AmcError as error:
        macs_head, macs_shares = f"MACs unknown ({error})", ["?"] * len(graph.groups)
    else:
        macs_head, macs_shares = _macs_head(graph, macs), _shares(macs)
        fixed, uncounted = macs.untouched(), macs.uncounted
    return Table(
        head=f"{graph}, {macs_head}, {params(params.dense):,} parameters "
        f"({_prunable(params)} prunable)",
        rows=tuple(
            Row(group.name, group.channels, of_macs, of_params, group.producers, group.consumers)
            for group, of_macs, of_params in zip(
                graph.groups.values(), macs_shares, _shares(params), strict=True
            )
        ),
        fixed=tuple(sorted(fixed.items(), key=lambda item: -item[1])),
        uncounted=tuple(tuple(found) for found in uncounted),
        frozen=graph.frozen,
        refused=tuple(tuple(refused) for refused in graph.refused),
        unread=(
            *(operation.name for operation in graph.network.unread),
            *graph.network.unread_weights,
        ),
        approximate=tuple(name for name, group in graph.groups.items() if group.approximate),
        opened=graph.network.opened,
        probed=graph.probed,
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
    for title, notes in content.notes(names):
        lines += [title, *(f"  {note}" for note in notes)]
    return "\n".join(map(printable, lines))


def _macs_head(graph: ChannelGraph, macs: Cost) -> str:
    """Says how many MACs there are, for which size, what share is prunable, what is left out."""
    total = f"{macs(macs.dense):,} MACs"
    if any(None in tensor.shape[1:] for tensor in graph.network.model.inputs):
        total += " for " + " and ".join(" x ".join(map(str, s)) for s in graph.input_shapes)
    if macs.uncounted:
        operations = (
            "one operation" if len(macs.uncounted) == 1 else (f"{len(macs.uncounted)} operations")
        )
        return (
            f"{total} counted ({_prunable(macs)} of these prunable) beside {operations} that "
            "cannot be counted"
        )
    return f"{total} ({_prunable(macs)} prunable)"


def _prunable(cost: Cost) -> str:
    """Returns the share of the dense cost that any group changes."""
    total = cost(cost.dense)
    return _percent(total - sum(cost.untouched().values()), total)


def _shares(cost: Cost) -> list[str]:
    """Returns each group's share of the dense cost."""
    total, terms = cost(cost.dense), cost.terms(cost.dense)
    return [_percent(n, total) for n in terms @ cost.touched()]


def _percent(part: int, total: int) -> str:
    """Formats a share; only nothing is written as 0.0%, and only all of it as 100.0%."""
    share = part / max(1, total)
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if share >= 0.9995 and part != total else f"{share:.1%}"


def _of_classes(layers: tuple[tuple[str, str], ...], names: int | None) -> list[str]:
    """Returns a note for each class, with the names of its layers."""
    found: dict[str, list[str]] = {}
    for name, kind in layers:
        found.setdefault(kind, []).append(name)
    return [f"{kind}: {few(tuple(of_kind), names)}" for kind, of_kind in found.items()]


def few(names: tuple[str, ...], most: int | None = 2) -> str:
    """Joins names by commas, with "and N more" after `most` of them (None: all)."""
    shown = ", ".join(names[:most]) or "-"
    more = len(names) - len(names[:most])
    return shown + (f" and {more} more" if more else "")
