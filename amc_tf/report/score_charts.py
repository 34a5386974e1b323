"""The charts of the scores and the rewards of one run's episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_tf.report.rows import Rows, labels, single
from amc_tf.report.run import Run
from amc_tf.report.scores import Scores
from amc_tf.report.vega import (
    Chart,
    closer,
    colour,
    costs_choice,
    looks,
    pickable,
    quantity,
    spec,
    tooltip,
)


def _episode(scores: Scores) -> list[dict[str, Any]]:
    """Returns what is shown of an episode."""
    return tooltip(
        policy=("policy", ""),
        episode=("episode", ""),
        score=(scores.metric.title, scores.form),
        reward=("reward", ".4f" if scores.metric.fraction else ".4~g"),
        macs=("MACs", ",d"),
        macs_share=("of dense", ".2%"),
        params=("parameters", ",d"),
        latency_ms=("latency, ms", ".4~g"),
    )


def score_chart(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    """Returns the chart of the scores against a cost; None if no episode has a cost."""
    del data  # the page holds it once, by name
    if not run.costs:
        return None
    params, opacity = pickable("scatter", "policy")
    x = quantity("share", "share of the dense network", ".4~p")
    scores, metric = run.scores, run.scores.metric
    episode = _episode(scores)
    y = quantity("score", scores.axis, scores.ticks)
    crafted = {"field": "policy", "oneOf": single(run)}
    size = {"condition": {"test": crafted, "value": 150}, "value": 40}
    of_cost = {"filter": "datum.cost == cost"}
    good = {"filter": f"datum.score {'>=' if metric.mode == 'max' else '<='} least"}
    placed = [
        {"calculate": "datum[cost + '_share']", "as": "share"},
        {"filter": "isValid(datum.share)"},
        good,
    ]
    layers = [
        {
            "data": {"name": "episodes"},
            "transform": placed,
            "params": params,
            "mark": {"type": "point", "filled": True},
            "encoding": {
                **{"x": x, "y": y, "opacity": opacity, "size": size, "tooltip": episode},
                **looks(labels(run)),
            },
        },
        {
            "data": {"name": "fronts"},
            "transform": [of_cost, good],
            "mark": {"type": "line", "interpolate": "step-after", "color": "var(--text)"},
            "encoding": {"x": x, "y": y},
        },
        {
            "data": {"name": "episodes"},
            "transform": [{"filter": "datum.shown"}, *placed],
            "mark": {"type": "point", "size": 260, "color": "var(--text)", "strokeWidth": 2},
            "encoding": {"x": x, "y": y, "tooltip": episode},
        },
        {
            "data": {"name": "bounds"},
            "transform": [of_cost],
            "mark": {"type": "rule", "strokeDash": [6, 4], "color": "var(--red)"},
            "encoding": {
                "x": x,
                "opacity": {"condition": {"test": "datum.bound", "value": 1}, "value": 0},
            },
        },
    ]
    if "score" in run.dense:
        layers.append(
            {
                "data": {"values": [{"score": run.dense["score"]}]},
                "mark": {"type": "rule", "strokeDash": [2, 3], "color": "var(--text)"},
                "encoding": {"y": y, "tooltip": tooltip(score=("dense network", scores.form))},
            }
        )
    return Chart(
        "score",
        f"{metric.title[0].upper()}{metric.title[1:]} against cost of every episode",
        f"{scores.axis[0].upper()}{scores.axis[1:]} of each plan, refitted as in the search and "
        f"not fine-tuned.{scores.part} Line: the Pareto front of all episodes. Ring: the plan "
        f"shown below. Dashed: the budget. Dotted: the dense network.{_uncertain(run)}",
        ("episodes", "fronts", "bounds"),
        spec(
            320,
            params=[*costs_choice(run.costs), *_closer(run, "score", metric.mode)],
            layer=layers,
        ),
    )


def _closer(run: Run, field: str, mode: str = "max") -> list[dict[str, Any]]:
    return closer([episode[field] for episode in run.episodes], mode)


def _uncertain(run: Run) -> str:
    spread = run.scores.spread(run.dense.get("score"))
    return f" Uncertainty: {spread}." if spread else ""


def reward_chart(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    """Returns the chart of the rewards over the episodes; None if there are none."""
    del data  # the page holds it once, by name
    if not run.episodes:
        return None
    once, episode = single(run), _episode(run.scores)
    params, opacity = pickable("rewards", "policy")
    x = quantity("episode", "episode", "d")
    colours = colour(labels(run))
    good = {"filter": "datum.reward >= least"}
    many = {"filter": {"not": {"field": "policy", "oneOf": once}}}
    layers = [
        {
            "transform": [many, good],
            "params": params,
            "mark": {"type": "circle", "size": 22},
            "encoding": {
                **{"x": x, "y": quantity("reward", "reward"), "opacity": opacity},
                **colours,
                "tooltip": episode,
            },
        },
        {
            "transform": [many, {"filter": "datum.best_reward >= least"}],
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            "encoding": {"x": x, "y": quantity("best_reward", "reward"), **colours},
        },
        {
            "transform": [{"filter": {"field": "policy", "oneOf": once}}, good],
            "mark": {"type": "rule", "strokeDash": [6, 4], "strokeWidth": 1.5},
            "encoding": {
                "y": quantity("reward", "reward"),
                **colours,
                "tooltip": episode,
            },
        },
    ]
    return Chart(
        "reward",
        "Reward over episodes",
        "Dots: episodes; lines: the best so far; dashed: policies of one plan each. "
        f"Click a name to single it out.{_uncertain(run)}",
        ("episodes",),
        spec(280, data={"name": "episodes"}, params=_closer(run, "reward"), layer=layers),
    )
