"""The tables and charts of a comparison of several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from amc_tf.report.rows import Rows, episode_row
from amc_tf.report.run import Run, front, settings
from amc_tf.report.scores import Scores
from amc_tf.report.table import Table, milliseconds
from amc_tf.report.vega import Chart, costs_choice, pickable, quantity, runs_colour, spec, tooltip
from amc_tf.runs import layout
from amc_tf.runs.vocabulary import COUNTED, QUANTITIES, policy_label


def tables(runs: Sequence[Run]) -> list[Table]:
    """Returns the tables of the runs' results and of the settings in which they differ."""
    common = _common(runs)
    score = "score" if common is None else common.metric.title
    header = (
        *("run", "model", "chosen", score, "fine-tuned", "MACs left", "parameters left"),
        *("smallest file", "latency of float32", "episodes"),
    )
    rows = [
        (
            run.name,
            str(run.search.get("name", "")),
            *_reached(run, common),
            f"{len(run.episodes):,}",
        )
        for run in runs
    ]
    note = f"{_measured(runs, common)} A run whose search is not done has only episodes."
    found = [Table("Results", header, rows, note)]
    flat = [settings({**run.config, "budget": run.config.get("budget") or {}}) for run in runs]
    differing = [
        (key, *(_value(one.get(key)) for one in flat))
        for key in dict.fromkeys(key for one in flat for key in one)
        if len({_value(one.get(key)) for one in flat}) > 1
    ]
    if differing:
        names = tuple(run.name for run in runs)
        found.append(Table("Settings that differ", ("setting", *names), differing))
    return found


def _measured(runs: Sequence[Run], common: Scores | None) -> str:
    if common is None:
        return "The runs have different metrics, so that their scores and rewards are not compared."
    measured = sorted({run.scores.metric.data for run in runs})
    title = common.metric.title
    return (
        f"{title[0].upper()}{title[1:]} ({common.metric.better}) on each run's "
        f"{' or '.join(measured)} data."
    )


def _common(runs: Sequence[Run]) -> Scores | None:
    """Returns how all runs' scores are written; None if they are of different metrics."""
    first = runs[0].scores
    kinds = {(run.scores.metric.name, run.scores.metric.mode) for run in runs}
    if len(kinds) > 1:
        return None
    return first if all(run.scores.metric.fraction for run in runs) else first.for_all([math.inf])


def _reached(run: Run, common: Scores | None) -> tuple[str, ...]:
    result = run.result
    scores = run.scores

    def cell(score: float | None) -> str:
        named = "" if common is not None or score is None else f"{scores.metric.title} "
        return named + scores.cell(score)

    dense, pruned = result.dense, result.pruned
    if dense is None or pruned is None or result.chosen is None:
        return ("",) * 7
    smallest = min(run.files.values(), key=lambda file: file.bytes, default=None)
    float32 = run.files.get(layout.tflite_file("float32"))
    return (
        policy_label(result.chosen),
        cell(pruned.score),
        cell(None if result.finetuned is None else result.finetuned.score),
        *(f"{pruned.costs[cost] / dense.costs[cost]:.1%}" for cost in COUNTED),
        "" if smallest is None else f"{smallest.bytes:,} bytes",
        milliseconds(None if float32 is None else float32.latency),
    )


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _costs(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(cost for run in runs for cost in run.costs))


def datasets(runs: Sequence[Run]) -> dict[str, Rows]:
    """Returns the rows that the charts draw, by name."""
    return {
        "episodes": [
            {**episode_row(episode), "run": run.name} for run in runs for episode in run.episodes
        ],
        "fronts": [
            {**episode_row(e), "run": run.name, "cost": cost, "share": e[QUANTITIES[cost].share]}
            for run in runs
            for cost in run.costs
            for e in front(run.episodes, cost, run.scores.metric)
        ],
        "best": _best(runs),
    }


def _best(runs: Sequence[Run]) -> Rows:
    """Returns rows of the best reward so far of all policies, where it rises and at the end."""
    found: Rows = []
    for run in runs:
        best = float("-inf")
        for number, episode in enumerate(run.episodes, start=1):
            rises = episode["reward"] > best
            best = max(best, episode["reward"])
            if rises or number == len(run.episodes):
                row = {"run": run.name, "evaluations": number, "best": best}
                found.append({**row, "policy": policy_label(episode["policy"])})
    return found


def charts(runs: Sequence[Run], data: Mapping[str, Rows]) -> list[Chart]:
    """Returns the charts: all runs' Pareto fronts, and the progress of each search.

    There are none for runs of different metrics, and rewards of different kinds are not compared.
    """
    found: list[Chart] = []
    scores = _common(runs)
    if scores is None:
        return found
    colours = runs_colour([run.name for run in runs])
    if data["fronts"]:
        found.append(_fronts(_costs(runs), colours, scores))
    if data["best"] and len({run.reward for run in runs}) == 1:
        found.append(_progress(colours))
    return found


def _fronts(costs: Sequence[str], colours: dict[str, Any], scores: Scores) -> Chart:
    x = quantity("share", "share of the dense network", ".4~p")
    y = quantity("score", scores.axis, scores.ticks)
    params, opacity = pickable("fronts", "run")
    tips = tooltip(
        run=("run", ""),
        policy=("policy", ""),
        episode=("episode", ""),
        score=(scores.metric.title, scores.form),
        share=("of dense", ".2%"),
    )
    of_cost = [{"filter": "datum.cost == cost"}]
    layers = [
        {
            "data": {"name": "episodes"},
            "transform": [
                {"calculate": "datum[cost + '_share']", "as": "share"},
                {"filter": "isValid(datum.share)"},
            ],
            "mark": {"type": "circle", "size": 14, "opacity": 0.25},
            "encoding": {"x": x, "y": y, **colours},
        },
        {
            "data": {"name": "fronts"},
            "transform": of_cost,
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            "encoding": {"x": x, "y": y, **colours},
        },
        {
            "data": {"name": "fronts"},
            "transform": of_cost,
            "params": params,
            "mark": {"type": "circle", "size": 60},
            "encoding": {"x": x, "y": y, **colours, "opacity": opacity, "tooltip": tips},
        },
    ]
    return Chart(
        "fronts",
        "Pareto fronts",
        f"{scores.axis[0].upper()}{scores.axis[1:]} against cost. Lines: plans that no other plan "
        "of the run equals or beats at the same or a lower cost. Faint dots: all other episodes.",
        ("episodes", "fronts"),
        spec(360, params=costs_choice(costs), layer=layers),
    )


def _progress(colours: dict[str, Any]) -> Chart:
    tips = tooltip(
        run=("run", ""),
        evaluations=("plans tried", ",d"),
        best=("best reward", ".4f"),
        policy=("by", ""),
    )
    return Chart(
        "progress",
        "Best reward so far",
        "Best reward over the plans that all policies of a run have tried, in their order.",
        ("best",),
        spec(
            260,
            data={"name": "best"},
            mark={"type": "line", "interpolate": "step-after", "strokeWidth": 2, "point": True},
            encoding={
                "x": quantity("evaluations", "plans tried", "d"),
                "y": quantity("best", "reward"),
                **colours,
                "tooltip": tips,
            },
        ),
    )
