"""Which groups are residual streams: channels in which a sum joins what several layers compute."""

from __future__ import annotations

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.layer_table import kind_of


def streams(graph: ChannelGraph) -> frozenset[str]:
    """Returns the names of the groups in which a sum joins the outputs of several layers.

    A product joins channels, too, but the gates of squeeze and excitation make no stream.
    """
    makers: dict[int, frozenset[str]] = {}  # layers that computed the channels of each value
    sums: list[frozenset[str]] = []
    for call in graph.network.calls:
        site = graph.site_at(call)
        if site is not None and site.rule.mixes:
            found = frozenset([site.name])
        else:
            found = frozenset().union(*(makers.get(number, ()) for number in call.inputs))
            if len(call.inputs) > 1 and kind_of(call.operation).sums:
                sums.append(found)
        makers.update(dict.fromkeys(call.outputs, found))
    return frozenset(
        name
        for name, group in graph.groups.items()
        if any(len(joined.intersection(group.producers)) > 1 for joined in sums)
    )
