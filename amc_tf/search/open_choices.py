"""What a search takes where its settings leave rounding and the least share open."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from typing import Any

import numpy as np

from amc_tf import files
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.runs import layout
from amc_tf.search.env.problem import Problem
from amc_tf.search.settings import SearchSettings

# Kernels like multiples of 8; a group needs some counts to choose from.
_ROUNDINGS = (8, 4, 2, 1)
_FEWEST_COUNTS = 4
_MIN_PRESERVE = 0.1
# What both are divided by, for the first with which the budget can be met. The last one lets a
# group keep a single channel.
FINENESSES = (1, 2, 4, 8, 10**6)
_OPEN = ("rounding", "min_preserve")


def roundings(graph: ChannelGraph, settings: SearchSettings, fineness: int = 1) -> list[int]:
    """Returns the number of which each group's count is a multiple, in the order of the groups.

    Where the settings leave it open, it is 8, or less for a group that would then have fewer than
    four counts to choose from: 4 for 16 channels, 2 for 8; and divided by `fineness`.
    """
    given = settings.constraints.roundings(graph, settings.rounding or 0)
    widths = (group.channels for group in graph.groups.values())
    return [
        rounding or max(1, _natural(width) // fineness)
        for rounding, width in zip(given, widths, strict=True)
    ]


def min_preserves(graph: ChannelGraph, settings: SearchSettings, fineness: int = 1) -> list[float]:
    """Returns the least share of each group that is kept, likewise: a tenth where it is open."""
    share = settings.min_preserve
    return settings.constraints.min_preserves(
        graph, _MIN_PRESERVE / fineness if share is None else share
    )


def _natural(width: int) -> int:
    return next((r for r in _ROUNDINGS if width // r >= _FEWEST_COUNTS), 1)


def told_choices(problem: Problem[Any], settings: SearchSettings) -> str:
    """Says what was chosen where the settings leave something open; else an empty text."""
    if settings.rounding is not None and settings.min_preserve is not None:
        return ""
    # The full width is allowed whatever the rounding; of two counts one cannot tell it.
    steps = (np.gcd.reduce(counts[:-1]) for counts in problem.choices if len(counts) > 2)
    counted = collections.Counter(map(int, steps))
    parts = (f"{step} ({groups} groups)" for step, groups in sorted(counted.items(), reverse=True))
    least = min(counts[0] / counts[-1] for counts in problem.choices)
    told = f"channel counts are multiples of {', '.join(parts)}; " if counted else ""
    return f"{told}at least {least:.0%} of a group is kept"


def as_begun(settings: SearchSettings, workdir: str | pathlib.Path) -> SearchSettings:
    """Returns settings that leave open only what an earlier call of the same run left open.

    Earlier versions wrote a number into `config.json` where nothing was said.

    Args:
        settings: the settings of this call.
        workdir: the run's folder; it need not exist.
    """
    path = pathlib.Path(workdir).expanduser()
    known = files.read_json(path / layout.CONFIG, {}) if path.is_dir() else {}
    section = known.get("search", {}) if isinstance(known, dict) else {}
    begun = section if isinstance(section, dict) else {}
    taken = {
        name: begun[name]
        for name in _OPEN
        if getattr(settings, name) is None and isinstance(begun.get(name), (int, float))
    }
    return dataclasses.replace(settings, **taken) if taken else settings
