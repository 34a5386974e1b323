"""A channel graph as a table a person reads."""

from __future__ import annotations

from amc_tf.channels import ChannelGraph
from amc_tf.costs import dense_counts, macs_cost, params_cost
from amc_tf.errors import AmcError


def listing(graph: ChannelGraph) -> str:
    """Groups with their share of the cost, then what is frozen or refused and why."""
    counts = dense_counts(graph)
    model = graph.network.model
    try:
        cost = macs_cost(graph)
        total = f"{cost(counts):,} MACs"
        terms, touched = cost.terms(counts), cost.touched()
        share = [
            f"{terms[touched[:, i]].sum() / max(1, cost(counts)):7.1%}" for i in range(len(counts))
        ]
    except AmcError:  # the input size is open
        total, share = "MACs unknown (input size not fixed)", ["      ?"] * len(counts)
    lines = [
        f"{model.name}: {len(graph.groups)} groups, {int(counts.sum())} prunable channels, "
        f"{total}, {params_cost(graph)(counts):,} parameters"
    ]
    if graph.groups:
        width = max(5, *(len(name) for name in graph.groups))
        lines.append(f"  {'group':<{width}}  channels  of MACs  producers -> consumers")
        for group, part in zip(graph.groups.values(), share, strict=True):
            lines.append(
                f"  {group.name:<{width}}  {group.channels:>8}  {part}  "
                f"{_few(group.producers)} -> {_few(group.consumers)}"
            )
    if graph.frozen:
        lines.append("frozen")
        lines += [
            f"  {count} channels of {_few(names)}: {reason}"
            for names, count, reason in graph.frozen
        ]
    if graph.refused:
        lines.append("refused")
        lines += [f"  {r.operation} ({r.class_name}): {r.reason}" for r in graph.refused]
    return "\n".join(lines)


def _few(names: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(names[:most]) or "-"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
