"""A picture as a Graphviz graph."""

from __future__ import annotations

from amc_tf.errors import printable
from amc_tf.graph.inspection.drawing import REFUSED, Box, Picture, colour, fills, line, tooltip
from amc_tf.graph.inspection.listing import Row


def to_dot(drawn: Picture) -> str:
    """Returns the picture as a Graphviz graph, with one box for each group beside it."""
    rows = drawn.table.rows
    lines = [
        "digraph channels {",
        f"  label={_quoted(drawn.table.head)} labelloc=t fontname=Helvetica",
        "  node [shape=box fontname=Helvetica fontsize=10]",
        "  edge [penwidth=3]",
    ]
    for i, box in enumerate(drawn.boxes):
        colours = fills(box.channels)
        lines.append(
            f"  n{i} [label={_quoted(_lines_of(box))} "
            f'style={"filled" if len(colours) == 1 else "striped"} fillcolor="{":".join(colours)}" '
            + (f'color="{REFUSED}" penwidth=3 ' if box.refusal else "")
            + f"tooltip={_quoted(tooltip(box, rows))}]"
        )
    lines += [f'  n{e.source} -> n{e.target} [color="{line(e.channels)}"]' for e in drawn.edges]
    lines.append('  subgraph cluster_groups { label="groups"')
    for i, row in enumerate(rows):
        lines.append(
            f'    g{i} [label={_quoted(_words(row))} style=filled fillcolor="{colour(i)}"]'
        )
    # Invisible links stack the groups; otherwise Graphviz would put them side by side.
    lines += [f"    g{i - 1} -> g{i} [style=invis]" for i in range(1, len(rows))]
    return "\n".join([*lines, "  }", "}", ""])


def _lines_of(box: Box) -> str:
    return f"{box.name}\n{box.class_name}\n{box.shape}" + "\nMACs not counted" * bool(box.uncounted)


def _words(row: Row) -> str:
    return f"{row.name}\n{row.channels} channels, {row.macs} of MACs, {row.params} of params"


def _quoted(text: str) -> str:
    """Quotes a string for DOT, in which & begins an HTML entity and a backslash an escape."""
    text = printable(text, keep="\n")
    for character, escape in (("&", "&amp;"), ("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        text = text.replace(character, escape)
    return f'"{text}"'
