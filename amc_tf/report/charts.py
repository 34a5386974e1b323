"""The charts of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amc_tf.report.networks_chart import networks_chart
from amc_tf.report.rows import Rows, labels, shown_policy
from amc_tf.report.run import Run
from amc_tf.report.score_charts import reward_chart, score_chart
from amc_tf.report.vega import (
    DENSE,
    KEPT,
    Chart,
    colour,
    costs_choice,
    depth,
    pickable,
    quantity,
    spec,
    tooltip,
)
from amc_tf.runs.vocabulary import COUNTED, policy_label


def charts(run: Run, data: Mapping[str, Rows]) -> list[Chart]:
    """Returns the charts for which a run has data.

    Args:
        run: the run.
        data: the run's `datasets`.
    """
    return [chart for chart in (make(run, data) for make in _CHARTS) if chart is not None]


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


def _curves(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    if not data["curves"]:
        return None
    tips = tooltip(
        group=("group", ""),
        kept=("channels kept", ",d"),
        channels=("of", ",d"),
        loss=("loss", ".3~g"),
    )
    shown, policy = {"filter": "datum.shown"}, policy_label(shown_policy(run))
    x = depth("group", len(run.search["groups"]), "groups")
    share = {**quantity("low", "share kept", ".0%"), "scale": {"domain": [0, 1]}}
    legend = {"title": "loss", "type": "gradient", "gradientLength": 200, "format": ".1~g"}
    shades = {"scale": {"type": "log", "scheme": "viridis", "reverse": True}, "legend": legend}
    layers: list[dict[str, Any]] = [
        {
            "data": {"name": "curves"},
            "mark": {"type": "rect"},
            "encoding": {
                **{"x": x, "y": share, "y2": {"field": "high"}, "tooltip": tips},
                "color": {"field": "shade", "type": "quantitative", **shades},
            },
        }
    ]
    if any(row["shown"] for row in data["groups"]):
        layers.append(
            {
                "data": {"name": "groups"},
                "transform": [shown],
                "mark": {"type": "tick", "color": "var(--red)", "thickness": 3},
                "encoding": {"x": x, "y": {**share, "field": "ratio"}, "tooltip": _GROUP},
            }
        )
    return Chart(
        "curves",
        "What each group loses",
        "Squared error of the layers that read a group, relative to the power of their outputs, "
        "after a refit, for each share of its channels that is kept: dark loses much. Red: the "
        f"shares in {policy}'s plan.",
        ("curves", "groups"),
        spec(280, layer=layers),
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
    networks_chart,
    score_chart,
    reward_chart,
    _noise,
    _ratios,
    _curves,
    _channels,
    _layer_costs,
    _predicted,
)
