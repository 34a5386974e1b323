"""A picture as one HTML page that needs no network and no other file."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence

from amc_tf.errors import printable
from amc_tf.graph.inspection.drawing import Box, Channels, Picture, colour, fills, line, tooltip
from amc_tf.graph.inspection.layout import HEIGHT, layout
from amc_tf.graph.inspection.listing import Row, few

_LETTER = 6.7  # width of a letter of the boxes' font, pixels


def to_html(drawn: Picture) -> str:
    """Returns the picture and the listing as one page, which is also well-formed XML."""
    groups = [_row(i, row) for i, row in enumerate(drawn.table.rows)]
    page = _PAGE.format(
        head=html.escape(drawn.table.head),
        style=_STYLE,
        script=_SCRIPT,
        rows="\n".join(groups),
        notes="\n".join(_items(title, lines) for title, lines in drawn.table.notes()),
        svg=_svg(drawn),
    )
    # XML admits no control characters at all.
    return printable(page, keep="\n")


def _row(number: int, row: Row) -> str:
    cells = [f"<td>{html.escape(x)}</td>" for x in (str(row.channels), row.macs, row.params)]
    cells += [
        f'<td title="{html.escape(few(names, None))}">{html.escape(few(names))}</td>'
        for names in (row.producers, row.consumers)
    ]
    return (
        f'<tr data-groups="{number}" data-own="{number}">'
        f'<td style="border-left: 1em solid {colour(number)}">{html.escape(row.name)}</td>'
        f"{''.join(cells)}</tr>"
    )


def _items(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>"


def _svg(drawn: Picture) -> str:
    places = layout(
        [_LETTER * max(map(len, _lines(box))) + 14 for box in drawn.boxes],
        [(edge.source, edge.target) for edge in drawn.edges],
    )
    read: dict[int, Channels] = defaultdict(Channels)
    for edge in drawn.edges:
        read[edge.target] |= edge.channels
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{places.width:.0f}" '
        f'height="{places.height:.0f}">'
    ]
    for edge, points in zip(drawn.edges, places.edges, strict=True):
        parts.append(
            f'<path d="{_curve(points)}" stroke="{line(edge.channels)}" '
            f'data-groups="{_numbers(edge.channels)}"/>'
        )
    for i, (box, (x, y, width)) in enumerate(zip(drawn.boxes, places.boxes, strict=True)):
        colours = fills(box.channels)
        stripe = width / len(colours)
        outline = ' class="refused"' if box.refusal else ""
        first, second = map(html.escape, _lines(box))
        parts += [
            f'<g data-groups="{_numbers(box.channels | read[i])}" '
            f'data-own="{_numbers(box.channels)}">',
            f"<title>{html.escape(tooltip(box, drawn.table.rows))}</title>",
            *(
                f'<rect x="{x - width / 2 + k * stripe:.1f}" y="{y}" width="{stripe:.1f}" '
                f'height="{HEIGHT}" fill="{fill}"/>'
                for k, fill in enumerate(colours)
            ),
            f'<rect x="{x - width / 2:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" '
            f'fill="none" stroke="#404040"{outline}/>',
            f'<text x="{x:.1f}" y="{y + 15}"><tspan class="name">{first}</tspan>'
            f'<tspan x="{x:.1f}" dy="14">{second}</tspan></text></g>',
        ]
    return "\n".join([*parts, "</svg>"])


def _lines(box: Box) -> tuple[str, str]:
    return box.name, f"{box.class_name} {box.shape}"


def _numbers(channels: Channels) -> str:
    return " ".join(map(str, channels.groups))


def _curve(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    path = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in rest:
        middle = (y + next_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    return " ".join(path)


_PAGE = """<!DOCTYPE html>
<html>
<head><meta charset="utf-8"/><title>{head}</title><style>{style}</style></head>
<body>
<aside>
<h1>{head}</h1>
<table>
<thead><tr><th>group</th><th>channels</th><th>of MACs</th><th>of params</th>
<th>producers</th><th>consumers</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
{notes}
</aside>
<main>
{svg}
</main>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
body { display: flex; height: 100vh; margin: 0; font: 12px Helvetica, Arial, sans-serif; }
aside { width: 42%; overflow: auto; padding: 0 1em; }
main { flex: 1; overflow: auto; border-left: 1px solid #a0a0a0; }
h1, h2 { font-size: 13px; }
table { border-collapse: collapse; }
th { text-align: left; position: sticky; top: 0; background: white; }
td { padding: 2px 6px; border-bottom: 1px solid #e0e0e0; vertical-align: top; }
td:nth-child(n + 5) { min-width: 9em; overflow-wrap: anywhere; }
td:nth-child(2), td:nth-child(3), td:nth-child(4) { text-align: right; }
svg { display: block; margin: auto; }
svg text { font-size: 11px; text-anchor: middle; }
svg path { fill: none; stroke-width: 3; }
.name { font-weight: bold; }
.refused { stroke: #d00000; stroke-width: 3; }
[data-own] { cursor: pointer; }
.picked path:not(.on), .picked g:not(.on) { opacity: 0.12; }
tr.on { background: #fff0b0; }
"""

# The script must not contain "&" or "<", which XML would read as markup.
_SCRIPT = """
const marked = document.querySelectorAll("[data-groups]");
const split = text => text.split(" ").filter(word => word !== "");
let pinned = [];
function show(groups) {
  document.body.classList.toggle("picked", groups.length > 0);
  for (const item of marked)
    item.classList.toggle("on", split(item.dataset.groups).some(g => groups.includes(g)));
}
for (const item of document.querySelectorAll("[data-own]")) {
  const own = split(item.dataset.own);
  item.addEventListener("mouseenter", () => show(own));
  item.addEventListener("mouseleave", () => show(pinned));
  item.addEventListener("click", () => {
    pinned = pinned.join() === own.join() ? [] : own;
    show(pinned);
    const other = document.querySelector(item.matches("tr") ? "g.on" : "tr.on");
    if (other) other.scrollIntoView({ block: "center", inline: "center" });
  });
}
// A wide picture opens at the model's input.
document.querySelector("g").scrollIntoView({ block: "nearest", inline: "center" });
"""
