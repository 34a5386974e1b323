"""A channel graph as a picture, independent of a file format.

Boxes are calls; edges are the values between them. Each group has its own
colour. The edge of every value that carries the group's channels has this
colour, and so has every box that returns them. Channels that belong to no
group are grey; refused calls have a red outline.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.inspection.listing import Row, Table, table
from amc_tf.graph.keras_structure import made_by
from amc_tf.graph.layer_rule import output_role
from amc_tf.graph.network import Call

GREY = "#d4d4d4"  # channels that stay
MIXED = "#707070"  # an edge that carries several groups
REFUSED = "#d00000"


@dataclasses.dataclass(frozen=True)
class Channels:
    """The groups whose channels a value carries.

    Attributes:
        groups: numbers of the groups in `Picture.table.rows`, each once.
        stays: whether the value also has channels that belong to no group.
    """

    groups: tuple[int, ...] = ()
    stays: bool = False

    def __or__(self, other: Channels) -> Channels:
        groups = tuple(dict.fromkeys(self.groups + other.groups))
        return Channels(groups, self.stays or other.stays)


@dataclasses.dataclass(frozen=True)
class Box:
    """A call, or an input of the model.

    Attributes:
        name: unique name of the operation.
        class_name: name of the operation's class.
        shape: shape of what the call returns, without the batch axis, such as "56 x 56 x 64".
        channels: channels of what the call returns.
        refusal: reason why the call cannot be pruned through; empty if it can.
        uncounted: work of the call that is not counted; empty if all is.
    """

    name: str
    class_name: str
    shape: str
    channels: Channels
    refusal: str = ""
    uncounted: str = ""


@dataclasses.dataclass(frozen=True)
class Edge:
    """A value that the box numbered `source` returns and the box numbered `target` reads."""

    source: int
    target: int
    channels: Channels


@dataclasses.dataclass(frozen=True)
class Picture:
    """The boxes in topological order, the edges, and the listing beside them."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    table: Table


def picture(graph: ChannelGraph) -> Picture:
    """Makes the boxes and edges of a channel graph."""
    network = graph.network
    refusals = {r.operation: r.reason for r in graph.refused}
    content = table(graph)
    uncounted = {name: what for name, _, what in content.uncounted}
    carried = _carried(graph, refusals)
    boxes = [
        Box(
            name=made_by(tensor).name,  # the tensor's own is "keras_tensor"
            class_name="InputLayer",
            shape=_shape(tensor.shape),
            channels=Channels(stays=True),
        )
        for tensor in (network.tensors[n] for n in network.inputs)
    ]
    source = {n: i for i, n in enumerate(network.inputs)}
    edges: list[Edge] = []
    for call in network.calls:
        name, number = network.name(call.operation), len(boxes)
        channels = Channels()
        for n in call.outputs:
            channels |= carried[n]
        boxes.append(
            Box(
                name=name,
                class_name=type(call.operation).__name__,
                shape=", ".join(_shape(network.tensors[n].shape) for n in call.outputs),
                channels=channels,
                refusal=refusals.get(name, ""),
                uncounted=uncounted.get(name, ""),
            )
        )
        edges += [Edge(source[n], number, carried[n]) for n in dict.fromkeys(call.inputs)]
        source.update(dict.fromkeys(call.outputs, number))
    return Picture(tuple(boxes), tuple(edges), content)


def _carried(graph: ChannelGraph, refusals: Mapping[str, str]) -> dict[int, Channels]:
    """Returns the channels of each value: a site's are known, other calls pass theirs on."""
    network = graph.network
    group_of_class = np.full(graph.classes, -1)
    for i, group in enumerate(graph.groups.values()):
        group_of_class[group.classes] = i

    def passed_on(call: Call, output: int) -> Channels:
        def width(n: int) -> int | None:
            return network.tensors[n].shape[-1] if network.tensors[n].shape else None

        # An operand of another width only scales the channels, so the result has none of its
        # channels. If no operand has the width of the result, they are joined.
        alike = [n for n in call.inputs if width(n) == width(output)]
        channels = Channels(stays=not call.inputs)
        for n in alike or call.inputs:
            channels |= carried[n]
        return channels

    carried = dict.fromkeys(network.inputs, Channels(stays=True))
    for call in network.calls:
        site = graph.site_at(call)
        for i, n in enumerate(call.outputs):
            if site is not None and output_role(i) in site.roles:
                numbers = dict.fromkeys(group_of_class[site.roles[output_role(i)]].tolist())
                groups = tuple(number for number in numbers if number >= 0)
                carried[n] = Channels(groups, stays=-1 in numbers)
            elif network.name(call.operation) in refusals:
                carried[n] = Channels(stays=True)
            else:
                carried[n] = passed_on(call, n)
    return carried


def _shape(shape: Sequence[int | None]) -> str:
    return " x ".join("?" if size is None else str(size) for size in shape[1:]) or "scalar"


def colour(number: int) -> str:
    """Returns the colour of a group, `#rrggbb`; neighbours in the list differ strongly.

    Hue and lightness follow the two-dimensional golden ratio (M. Roberts' R2
    sequence), so that the colours of any number of groups are spread evenly.
    """
    plastic = 1.324717957244746
    hue, lightness = (number / plastic) % 1, 0.64 + 0.22 * ((number / plastic**2) % 1)
    rgb = colorsys.hls_to_rgb(hue, lightness, 0.65)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def fills(channels: Channels) -> list[str]:
    """Returns the colours of a box, from left to right."""
    return [colour(i) for i in channels.groups] + [GREY] * (channels.stays or not channels.groups)


def line(channels: Channels) -> str:
    """Returns the colour of an edge."""
    found = fills(channels)
    return found[0] if len(found) == 1 else MIXED


def tooltip(box: Box, rows: Sequence[Row]) -> str:
    """Returns the content of a box and the meaning of its colours, in words."""
    lines = [f"{box.name} ({box.class_name}): {box.shape}"]
    lines += [f"group {rows[i].name}" for i in box.channels.groups]
    lines += ["channels that stay"] * box.channels.stays
    lines += [f"refused: {box.refusal}"] if box.refusal else []
    lines += [f"not counted: {box.uncounted}"] if box.uncounted else []
    return "\n".join(lines)
