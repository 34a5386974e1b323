"""A run as its files describe it, read without TensorFlow and without changing them."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from amc_tf.errors import AmcError
from amc_tf.report.scores import Scores
from amc_tf.runs import forms, layout
from amc_tf.runs.episode_log import read_log
from amc_tf.runs.former_keys import with_names_of_now
from amc_tf.runs.progress import Progress
from amc_tf.runs.result import RunResult
from amc_tf.runs.result_parts import Exported
from amc_tf.runs.vocabulary import AGENT, COUNTED, QUANTITIES
from amc_tf.training.metric import ACCURACY, Metric


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is finished, interrupted or still running.

    Attributes:
        path: work directory of the run.
        name: name of the run on the page.
        config: content of `config.json`; empty for a search that is not part of a compression.
        result: content of `result.json`, of all completed stages; empty before the first one.
        search: content of `search.json` (see `amc_tf.search.breakdown` and `search_plan`); empty
            before the first episode, and in folders of versions that did not write it.
        episodes: episodes of all policies, in the order in which they were run: the scalars of
            `Progress`, with `policy`, `episode`, `counts` and the costs.
        latency: content of `latency.json`; empty if latency is not a cost.
        scores: how the run's scores are written.
        curves: content of `curves.json`, what each group loses by the channels it keeps; empty
            unless a policy needed it.
        changed: when a stage last wrote its results; None before the first one.
    """

    path: pathlib.Path
    name: str
    config: Mapping[str, Any]
    result: RunResult
    search: Mapping[str, Any]
    episodes: Sequence[Mapping[str, Any]]
    latency: Mapping[str, Any]
    scores: Scores = Scores()
    curves: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    changed: datetime.datetime | None = None

    @property
    def dense(self) -> Mapping[str, float]:
        """Costs of the dense network and its score on the validation data, where known."""
        if "dense" in self.search:
            return with_names_of_now(self.search["dense"])
        known = self.result.dense
        return {} if known is None else {**known.costs, "score": known.search_score}

    @property
    def bounds(self) -> Mapping[str, float]:
        """The budget in absolute terms, by name of the cost."""
        asked = self.result.budget or {}
        return self.search.get("bounds") or {kind: b.bound for kind, b in asked.items()}

    @property
    def policies(self) -> list[str]:
        """Names of the policies that have played, AMC first."""
        found = dict.fromkeys(episode["policy"] for episode in self.episodes)
        return sorted(found, key=lambda name: name != AGENT)

    @property
    def costs(self) -> list[str]:
        """Names of the costs that episodes have as a share of the dense network's.

        Those that the budget bounds come first.
        """
        known = [
            name
            for name, cost in QUANTITIES.items()
            if any(cost.share in episode for episode in self.episodes)
        ]
        return sorted(known, key=lambda cost: cost not in self.bounds)

    @property
    def plans(self) -> Mapping[str, Mapping[str, Any]]:
        """Best plan of each policy: channels `kept`, `macs` and `params` of the layers."""
        return self.search.get("plans", {})

    @property
    def reward(self) -> str:
        """Name of the reward that guided the search, else that of the settings; empty if unknown.

        The two differ where outputs cannot be compared with the dense network's.
        """
        known = self.search.get("reward") or self.result.reward
        return str(known or self.config.get("search", {}).get("reward", ""))

    @property
    def files(self) -> Mapping[str, Exported]:
        """Exported TFLite files whose score is within the tolerance, by name."""
        return {
            name: file
            for name, file in self.result.tflite.items()
            if not layout.is_compared(name) and file.within_tolerance
        }

    @property
    def chosen(self) -> str | None:
        """Name of the policy whose network was chosen."""
        return self.result.chosen


def read_run(path: str | os.PathLike, name: str | None = None) -> Run:
    """Reads a run's folder.

    Args:
        path: the work directory; `~` is expanded.
        name: name of the run; the folder's name if None.

    Raises:
        AmcError: the folder does not exist, holds no run, or has a damaged file.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_dir():
        raise AmcError(f"expected the workdir of a run, received {path}, which is not a folder")
    result = RunResult.read(path)
    search = forms.read(path, layout.SEARCH)
    for contradiction in _contradictions(search):
        raise AmcError(
            f"{path / layout.SEARCH} is damaged ({contradiction}); delete it and run again"
        )
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
        config=forms.read(path, layout.CONFIG),
        result=result,
        search=search,
        episodes=[{**{k: r[k] for k in kept if k in r}, **progress(r)} for r in records],
        latency=forms.read(path, layout.LATENCY),
        scores=Scores.of_search(search, result).for_all(r["score"] for r in records),
        curves=forms.read(path, layout.CURVES).get("curves", {}),
        changed=_changed(path / layout.RESULT),
    )


def _changed(path: pathlib.Path) -> datetime.datetime | None:
    if not path.exists():
        return None
    return datetime.datetime.fromtimestamp(path.stat().st_mtime).astimezone()


def _contradictions(search: Mapping[str, Any]) -> Iterator[str]:
    """Yields what does not fit together in a `search.json`, whose types are right."""
    groups, layers = search.get("groups", ()), search.get("layers", ())
    for group in groups:
        if group["channels"] < 1:
            yield f"the group {group['name']!r} has {group['channels']} channels"
    for policy, plan in search.get("plans", {}).items():
        lengths = {"kept": groups, **dict.fromkeys(COUNTED, layers)}
        for key, of in lengths.items():
            if len(plan[key]) != len(of):
                yield f"{key!r} of the plan {policy!r} has {len(plan[key])} entries for {len(of)}"
    dense = search.get("dense", {})
    for cost in search.get("bounds", {}):
        if not dense.get(cost, 0) > 0:
            yield f"{cost!r} has a bound, but no cost of the dense network"


def read_runs(paths: Sequence[str | os.PathLike]) -> list[Run]:
    """Reads several runs; each is named by the shortest end of its path that no other has.

    Raises:
        AmcError: a folder is given twice; or see `read_run`.
    """
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


def front(
    episodes: Iterable[Mapping[str, Any]], cost: str, metric: Metric = ACCURACY
) -> list[Mapping[str, Any]]:
    """Returns the Pareto front of the metric and a cost.

    These are the episodes that no other equals or beats in the metric at the same or a lower cost.

    Args:
        episodes: episodes of a `Run`.
        cost: name of the cost; episodes without it are left out.
        metric: what the scores are.

    Returns:
        The episodes of the front, the cheapest first.
    """
    key = QUANTITIES[cost].share
    found: list[Mapping[str, Any]] = []
    known = [episode for episode in episodes if key in episode]
    for episode in sorted(known, key=lambda e: (e[key], -metric.gain(e["score"]))):
        if not found or metric.gain(episode["score"] - found[-1]["score"]) > 0:
            found.append(episode)
    return found


def settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a configuration: keys like `search.episodes` to their values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found.update(settings(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found
