"""The charts of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amc_tf.report.rows import Rows, labels, shown_policy, single
from amc_tf.report.run import Run
from amc_tf.report.vega import (
    DENSE,
    KEPT,
    Chart,
    closer,
    colour,
    costs_choice,
    depth,
    looks,
    pickable,
    quantity,
    spec,
    tooltip,
)
from amc_tf.runs.vocabulary import COUNTED, policy_label

_EPISODE = tooltip(
    policy=("policy", ""),
    episode=("episode", ""),
    score=("accuracy", ".2%"),
    reward=("reward", ".4f"),
    macs=("MACs", ",d"),
    macs_share=("of dense", ".2%"),
    params=("parameters", ",d"),
    latency_ms=("latency, ms", ".4~g"),
)


def charts(run: Run, data: Mapping[str, Rows]) -> list[Chart]:
    """Returns the charts for which a run has data.

    Args:
        run: the run.
        data: the run's `datasets`.
    """
    return [chart for chart in (make(run, data) for make in _CHARTS) if chart is not None]


def _score(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    if not run.costs:
        return None
    params, opacity = pickable("scatter", "policy")
    x = quantity("share", "share of the dense network", ".4~p")
    y = quantity("score", "accuracy", ".3~p")
    crafted = {"field": "policy", "oneOf": single(run)}
    size = {"condition": {"test": crafted, "value": 150}, "value": 40}
    of_cost = {"filter": "datum.cost == cost"}
    good = {"filter": "datum.score >= least"}
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
                **{"x": x, "y": y, "opacity": opacity, "size": size, "tooltip": _EPISODE},
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
            "encoding": {"x": x, "y": y, "tooltip": _EPISODE},
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
                "encoding": {"y": y, "tooltip": tooltip(score=("dense network", ".2%"))},
            }
        )
    return Chart(
        "score",
        "Accuracy against cost of every episode",
        "Validation accuracy of each plan, refitted as in the search and not fine-tuned. Line: the "
        "Pareto front of all episodes. Ring: the plan shown below. Dashed: the budget. Dotted: the "
        "dense network.",
        ("episodes", "fronts", "bounds"),
        spec(320, params=[*costs_choice(run.costs), *_closer(run, "score")], layer=layers),
    )


def _closer(run: Run, field: str) -> list[dict[str, Any]]:
    return closer([episode[field] for episode in run.episodes])


def _reward(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    if not run.episodes:
        return None
    once = single(run)
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
                "tooltip": _EPISODE,
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
            "encoding": {"y": quantity("reward", "reward"), **colours, "tooltip": _EPISODE},
        },
    ]
    return Chart(
        "reward",
        "Reward over episodes",
        "Dots: episodes; lines: the best so far; dashed: hand-crafted policies, one plan each. "
        "Click a name to single it out.",
        ("episodes",),
        spec(280, data={"name": "episodes"}, params=_closer(run, "reward"), layer=layers),
    )


def _noise(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    if not any("noise" in episode for episode in run.episodes):
        return None
    return Chart(
        "noise",
        "Exploration noise",
        "Standard deviation of the agent's actions around its policy.",
        ("episodes",),
        spec(
            130,
            data={"name": "episodes"},
            transform=[{"filter": "isValid(datum.noise)"}],
            mark={"type": "line", "color": KEPT, "interpolate": "step-after"},
            encoding={
                "x": quantity("episode", "episode", "d"),
                "y": {**quantity("noise", "noise"), "scale": {"zero": True}},
                "tooltip": tooltip(episode=("episode", ""), noise=("noise", ".3f")),
            },
        ),
    )


_GROUP = tooltip(
    group=("group", ""),
    policy=("policy", ""),
    kept=("channels kept", ",d"),
    channels=("of", ",d"),
    ratio=("preserve ratio", ".1%"),
)


def _ratios(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    rows = data["groups"]
    if not rows:
        return None
    shown = policy_label(shown_policy(run))
    encoding = {
        "x": depth("group", len(run.search["groups"]), "groups"),
        "y": {**quantity("ratio", "preserve ratio", ".0%"), "scale": {"domain": [0, 1]}},
        **colour(labels(run)),
        "tooltip": _GROUP,
    }
    params, opacity = pickable("ratios", "policy")
    width = {"condition": {"test": "datum.shown", "value": 3}, "value": 1.25}
    return Chart(
        "ratios",
        "Preserve ratio against depth",
        f"The share of channels that each policy's best plan keeps, group by group from input to "
        f"output; the line of {shown} is thick.",
        ("groups",),
        spec(
            280,
            data={"name": "groups"},
            layer=[
                {"mark": "line", "encoding": {**encoding, "strokeWidth": width}},
                {
                    "params": params,
                    "mark": {"type": "circle", "size": 45},
                    "encoding": {**encoding, "opacity": opacity},
                },
            ],
        ),
    )


def _before_after(field: str, title: str, tips: list[dict[str, Any]], x: dict[str, Any]) -> Any:
    """Returns layers of bars: the dense network's, and in front of them those of what is kept."""

    def bars(name: str, of: str) -> dict[str, Any]:
        scale = {"domain": ["dense", "kept"], "range": [DENSE, KEPT]}
        y = quantity(of, title, "~s", stack=None)
        return {
            "mark": {"type": "bar"},
            "encoding": {
                "x": x,
                "y": {**y, "scale": {"zero": True}},
                "color": {"datum": name, "scale": scale},
                "tooltip": tips,
            },
        }

    return [bars("dense", field), bars("kept", "kept")]


def _channels(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    if not data["groups"]:
        return None
    x = depth("group", len(run.search["groups"]), "groups")
    return Chart(
        "channels",
        "Channels, dense and kept",
        f"Channels of each group in {policy_label(shown_policy(run))}'s plan.",
        ("groups",),
        spec(
            260,
            data={"name": "groups"},
            transform=[{"filter": "datum.shown"}],
            layer=_before_after("channels", "channels", _GROUP, x),
        ),
    )


def _layer_costs(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    if not data["layers"]:
        return None
    tips = tooltip(
        **{"layer": ("layer", ""), "class": ("class", "")},
        dense=("dense", ",d"),
        kept=("kept", ",d"),
        left=("left", ".1%"),
    )
    x = depth("layer", sum(row["cost"] == "macs" for row in data["layers"]), "layers")
    return Chart(
        "layers",
        "Cost of every layer, before and after",
        f"MACs of one sample, or parameters, in the dense network and in "
        f"{policy_label(shown_policy(run))}'s plan.",
        ("layers",),
        spec(
            260,
            data={"name": "layers"},
            params=costs_choice(COUNTED),
            transform=[
                {"filter": "datum.cost == cost"},
                {"calculate": "datum.kept / datum.dense", "as": "left"},
            ],
            layer=_before_after("dense", "cost", tips, x),
        ),
    )


def _predicted(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    rows = data["latency"]
    if not rows:
        return None
    ends = [f(v for r in rows for v in (r["foreseen"], r["measured"])) for f in (min, max)]
    x = quantity("measured", "measured, ms", ".3~g")
    y = quantity("foreseen", "predicted, ms", ".3~g")
    kinds = ["calibration", "finalist"]
    tips = tooltip(
        kind=("network", ""),
        measured=("measured, ms", ".4~g"),
        foreseen=("predicted, ms", ".4~g"),
        error=("error", "+.1%"),
    )
    colours = {"domain": kinds, "range": ["var(--grey)", "var(--orange)"]}
    return Chart(
        "latency",
        "Latency, predicted and measured",
        "Whole networks on the device. The prediction was fitted to the networks of the "
        "calibration; finalists were measured after the search.",
        ("latency",),
        spec(
            300,
            layer=[
                {
                    "data": {"values": [{"measured": end, "foreseen": end} for end in ends]},
                    "mark": {"type": "line", "strokeDash": [4, 4], "color": "var(--text)"},
                    "encoding": {"x": x, "y": y},
                },
                {
                    "data": {"name": "latency"},
                    "mark": {"type": "point", "filled": True, "size": 70},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": {"field": "kind", "scale": colours},
                        "tooltip": tips,
                    },
                },
            ],
        ),
    )


_CHARTS: Sequence[Callable[[Run, Mapping[str, Rows]], Chart | None]] = (
    _score,
    _reward,
    _noise,
    _ratios,
    _channels,
    _layer_costs,
    _predicted,
)
