"""What the files of a run tell, read without TensorFlow and without changing them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.runs import layout
from amc_tf.runs.episode_log import read_log
from amc_tf.runs.progress import Progress
from amc_tf.runs.result import RunResult
from amc_tf.runs.result_parts import Exported
from amc_tf.runs.vocabulary import AGENT, QUANTITIES


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is finished, interrupted or still going on.

    Attributes:
        path: its folder.
        name: what it is called on the page.
        config: of `config.json`; empty for a search without the stages around it.
        result: of `result.json`, of the stages that are done; empty before.
        search: of `search.json` (see `amc_tf.search.breakdown` and `search_plan`); empty before
            the first episode, and in folders of versions that did not write it.
        episodes: of all policies, in the order they were run: the scalars of `Progress`,
            with `policy`, `episode`, `counts` and the costs.
        latency: of `latency.json`; empty without a budget of latency.
    """

    path: pathlib.Path
    name: str
    config: Mapping[str, Any]
    result: RunResult
    search: Mapping[str, Any]
    episodes: Sequence[Mapping[str, Any]]
    latency: Mapping[str, Any]

    @property
    def dense(self) -> Mapping[str, float]:
        """Costs of the dense network and its accuracy on the validation data, where known."""
        if "dense" in self.search:
            return self.search["dense"]
        known = self.result.dense
        return {} if known is None else {**known.costs, "accuracy": known.search_accuracy}

    @property
    def bounds(self) -> Mapping[str, float]:
        """The budget in absolute terms, by name of the cost."""
        asked = self.result.budget or {}
        return self.search.get("bounds") or {kind: b.bound for kind, b in asked.items()}

    @property
    def policies(self) -> list[str]:
        """Those that have played, AMC first."""
        found = dict.fromkeys(episode["policy"] for episode in self.episodes)
        return sorted(found, key=lambda name: name != AGENT)

    @property
    def costs(self) -> list[str]:
        """Costs by which episodes can be placed: the budget's first."""
        known = [
            name
            for name, cost in QUANTITIES.items()
            if any(cost.share in episode for episode in self.episodes)
        ]
        return sorted(known, key=lambda cost: cost not in self.bounds)

    @property
    def plans(self) -> Mapping[str, Mapping[str, Any]]:
        """Of each policy the best plan: channels `kept`, `macs` and `params` of the layers."""
        return self.search.get("plans", {})

    @property
    def files(self) -> Mapping[str, Exported]:
        """Exported TFLite files whose accuracy is within the tolerance, by name."""
        return {
            name: file
            for name, file in self.result.tflite.items()
            if not layout.is_compared(name) and file.within_tolerance
        }

    @property
    def chosen(self) -> str | None:
        """The policy whose plan was built."""
        return self.result.chosen


def read_run(path: str | os.PathLike, name: str | None = None) -> Run:
    """Reads a run's folder.

    Args:
        path: the workdir; `~` is expanded.
        name: what to call it; the folder's name if None.

    Raises:
        AmcError: there is no such folder, no run in it, or a file of it is damaged.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_dir():
        raise AmcError(f"expected the workdir of a run, received {path}, which is not a folder")
    result = RunResult.read(path)
    search = files.read_json(path / layout.SEARCH, {})
    records = read_log(path / layout.EPISODES)
    if not records and result == RunResult():
        raise AmcError(
            f"expected the workdir of a run, received {path}, which has neither "
            f"{layout.EPISODES} nor {layout.RESULT}; amc-search and amc-compress write them"
        )
    dense = {**(result.dense.costs if result.dense else {}), **search.get("dense", {})}
    progress = Progress(dense)
    kept = ("policy", "episode", "counts", *(cost.key for cost in QUANTITIES.values()))
    return Run(
        path=path,
        name=name or path.resolve().name,
        config=files.read_json(path / layout.CONFIG, {}),
        result=result,
        search=search,
        episodes=[{**{k: r[k] for k in kept if k in r}, **progress(r)} for r in records],
        latency=files.read_json(path / layout.LATENCY, {}),
    )


def read_runs(paths: Sequence[str | os.PathLike]) -> list[Run]:
    """Reads several, each under the shortest end of its path that no other has."""
    whole = [pathlib.Path(path).expanduser().resolve() for path in paths]
    if repeated := next((p for i, p in enumerate(whole) if p in whole[:i]), None):
        raise AmcError(f"{repeated} is named twice; name each workdir once")
    return [read_run(path, _distinct(path, whole)) for path in whole]


def _distinct(path: pathlib.Path, among: Sequence[pathlib.Path]) -> str:
    for length in range(1, len(path.parts) + 1):
        end = path.parts[-length:]
        if sum(other.parts[-length:] == end for other in among) == 1:
            break
    return pathlib.Path(*end).as_posix()


def front(episodes: Iterable[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    """The Pareto front: episodes that no other beats or equals in accuracy at no more cost.

    Args:
        episodes: those of a `Run`.
        cost: its name; episodes without it are left out.

    Returns:
        The front, the cheapest first.
    """
    key = QUANTITIES[cost].share
    found: list[Mapping[str, Any]] = []
    known = [episode for episode in episodes if key in episode]
    for episode in sorted(known, key=lambda e: (e[key], -e["accuracy"])):
        if not found or episode["accuracy"] > found[-1]["accuracy"]:
            found.append(episode)
    return found


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration as one level: `search.episodes` and its like to their values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found.update(settings(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found
