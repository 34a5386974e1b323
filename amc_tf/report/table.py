"""A table, and how its cells are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from amc_tf.runs.result_parts import Milliseconds


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a header; of the first column each is a name, the others are values.

    Attributes:
        title: what it shows.
        header: names of the columns.
        rows: as many cells each; empty where there is nothing.
        note: how to read it.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def percent(value: float | None) -> str:
    """A share with two decimals; empty where there is none."""
    return "" if value is None else f"{value:.2%}"


def milliseconds(latency: Milliseconds | None) -> str:
    """The median of a latency; empty where there is none."""
    return "" if latency is None else f"{latency.median_ms:.3f} ms"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
