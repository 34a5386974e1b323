"""What the JSON files of a run hold, but for `result.json` (see `result`) and plans.

Only keys that are read are named; a file may hold others. Keys that earlier versions did not write
are not required.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any, TypedDict

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.runs import layout
from amc_tf.runs.json_types import Finite, mismatch


class _Scored(TypedDict):
    policy: str
    episode: int
    counts: list[int]
    score: Finite
    reward: Finite


class Episode(_Scored, total=False):
    """A line of a log of episodes, under the names of this version."""

    macs: Finite
    params: Finite
    latency_ms: Finite
    actions: list[Finite]
    seconds: Finite
    sigma: float
    baseline: float
    actor_loss: float
    critic_loss: float
    ranks: str
    cut: bool
    divergence: Finite


class Conditions(TypedDict):
    """The conditions of a search, in `config.json`."""

    versions: Mapping[str, Any]
    machine: Mapping[str, Any]


class Evaluated(TypedDict):
    """The code of evaluate and the dense network's score by it, in `config.json`."""

    code: Any
    dense: Finite


class Config(TypedDict, total=False):
    """`config.json`."""

    search: Mapping[str, Any]
    budget: Mapping[str, Finite] | None
    of: Mapping[str, Mapping[str, Any]]
    model: str | None
    calibration: str
    plan: str
    conditions: Conditions
    evaluate: Evaluated
    reward: str


class Importance(TypedDict):
    """`importance.json`, or the file of another criterion."""

    criterion: str
    scores: Mapping[str, list[Finite]]


class CurveOfGroup(TypedDict):
    """A curve in `curves.json`."""

    counts: list[int]
    losses: list[Finite]


class Curves(TypedDict):
    """`curves.json`."""

    of: str
    curves: Mapping[str, CurveOfGroup]


class Chosen(TypedDict):
    """`choice.json`; the choice itself is read by `amc_tf.runs.choice`."""

    of: str
    policy: str
    counts: list[int]
    choice: Mapping[str, Any]


class Group(TypedDict):
    """A group in `search.json`."""

    name: str
    channels: int
    producers: list[str]
    consumers: list[str]


# `class` is no name that a class body could hold.
Layer = TypedDict("Layer", {"name": str, "class": str, "macs": Finite, "params": Finite})


class Kept(TypedDict):
    """A plan in `search.json`."""

    kept: list[int]
    macs: list[Finite]
    params: list[Finite]


class Search(TypedDict, total=False):
    """`search.json`."""

    name: str
    reward: str
    bounds: Mapping[str, Finite]
    dense: Mapping[str, Finite]
    groups: list[Group]
    layers: list[Layer]
    plans: Mapping[str, Kept]


class _Measured(TypedDict):
    counts: list[int]
    ms: Finite
    dense_ms: Finite


class Measured(_Measured, total=False):
    """A plan that was measured whole, in `latency.json`."""

    foreseen_ms: Finite


class Latency(TypedDict, total=False):
    """`latency.json`."""

    conditions: Mapping[str, Any]
    examples: list[tuple[list[int], Finite]]
    corrections: list[tuple[list[int], Finite]]
    foreseen: list[Finite]
    measured: list[Measured]


class History(TypedDict):
    """`history.json`."""

    epoch: list[int]
    history: Mapping[str, list[float]]


_FORMS: Mapping[str, Any] = {
    layout.CONFIG: Config,
    layout.HISTORY: History,
    layout.CURVES: Curves,
    layout.CHOICE: Chosen,
    layout.LATENCY: Latency,
    layout.SEARCH: Search,
}


def read(folder: str | os.PathLike, name: str, default: Any = None) -> Any:
    """Reads a JSON file of a run.

    Args:
        folder: the work directory.
        name: name of the file, of `amc_tf.runs.layout`.
        default: returned if the file does not exist; by default an empty object.

    Raises:
        AmcError: the file cannot be read, is damaged, or holds something else.
    """
    path = pathlib.Path(folder) / name
    # Without this file it is not known of what model and data the others are.
    lasting = name == layout.CONFIG
    remedy = "restore it, or use another workdir" if lasting else files.DELETE
    content = files.read_json(path, None, remedy)
    if content is None and not path.exists():
        return {} if default is None else default
    wrong = mismatch(content, Importance if layout.is_importance(name) else _FORMS[name])
    if wrong:
        raise AmcError(f"{path} is damaged ({wrong}); {remedy}")
    return content
