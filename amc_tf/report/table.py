"""A table and the format of its cells."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

from amc_tf.errors import printable
from amc_tf.runs.result_parts import Milliseconds


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text: the first cell of each row is a name, the others are values.

    Attributes:
        title: title of the table.
        header: names of the columns.
        rows: rows with one cell for each column; a cell without a value is empty.
        note: explanation of the table; may be empty.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def percent(value: float | None) -> str:
    """Formats a share as a percentage with two decimals; None becomes an empty text."""
    return "" if value is None else f"{value:.2%}"


def milliseconds(latency: Milliseconds | None) -> str:
    """Formats the median of a latency; None becomes an empty text."""
    return "" if latency is None else f"{latency.median_ms:.4g} ms"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as lines, with only the first column aligned to the left."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def in_html(shown: Table) -> str:
    """Returns a table and its note as HTML, without its title."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in shown.header)
    rows = "".join(f"<tr>{_cells(shown.header, row)}</tr>" for row in shown.rows)
    note = f"<p>{html.escape(shown.note)}</p>" if shown.note else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}"


def _cells(header: Sequence[str], row: Sequence[str]) -> str:
    # On a narrow screen each cell has its own line, which begins with the name of its column.
    return "".join(
        f'<td data-column="{html.escape(name)}">{html.escape(cell)}</td>'
        for name, cell in zip(header, row, strict=True)
    )
