"""The common parts of a report's charts, as Vega-Lite specifications.

The format is described in https://vega.github.io/vega-lite/docs. Colours are names
of CSS properties (`amc_tf.report.style`), which follow the reader's light or dark theme.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from amc_tf.runs.vocabulary import QUANTITIES

Spec = dict[str, Any]

# The same policy has the same colour and shape in every chart.
_LOOKS: Mapping[str, tuple[str, str]] = {
    "AMC": ("var(--blue)", "circle"),
    "uniform": ("var(--orange)", "square"),
    "shallow": ("var(--green)", "triangle-down"),
    "deep": ("var(--purple)", "triangle-up"),
    "random": ("var(--grey)", "cross"),
    "cmaes": ("var(--red)", "diamond"),
    "response": ("var(--sky)", "triangle-right"),
    "knapsack": ("var(--green)", "diamond"),
    "global L2": ("var(--purple)", "square"),
    "global Taylor": ("var(--orange)", "triangle-right"),
    "global BN": ("var(--red)", "triangle-left"),
}
DENSE, KEPT = "var(--pale)", "var(--blue)"

_CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": "var(--line)"},
    "axis": {
        "labelColor": "var(--text)",
        "titleColor": "var(--text)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "gridColor": "var(--grid)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelOverlap": True,
    },
    "legend": {
        "orient": "bottom",
        "columns": 3,
        "title": None,
        "labelColor": "var(--text)",
        "labelFontSize": 12,
        "symbolSize": 90,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
    },
    "text": {"fill": "var(--text)", "fontSize": 12},
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart and the text above it.

    Attributes:
        name: id of the chart's element on the page.
        title: heading of the chart.
        about: explanation of the chart, in a few sentences.
        data: names of the page's datasets that the chart draws.
        spec: Vega-Lite specification.
    """

    name: str
    title: str
    about: str
    data: tuple[str, ...]
    spec: Spec


def spec(height: int, **parts: Any) -> Spec:
    """Returns a specification as wide as the page; `parts` say what it draws."""
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        **parts,
    }


def quantity(field: str, title: str | None, format: str = "", **more: Any) -> Spec:
    """Returns the encoding of a number on an axis that need not begin at zero."""
    axis = {"title": title, **({"format": format} if format else {})}
    return {"field": field, "type": "quantitative", "scale": {"zero": False}, "axis": axis, **more}


def looks(policies: Sequence[str]) -> Spec:
    """Returns the colour and shape of policies, by the field `policy`; they share one legend."""
    given = [_LOOKS.get(name, ("var(--text)", "stroke")) for name in policies]
    colours, shapes = zip(*given, strict=True)
    return {
        "color": {"field": "policy", "scale": {"domain": policies, "range": colours}},
        "shape": {"field": "policy", "scale": {"domain": policies, "range": shapes}},
    }


def colour(policies: Sequence[str]) -> Spec:
    """Returns only the colour of policies, for lines."""
    return {"color": looks(policies)["color"]}


def runs_colour(names: Sequence[str]) -> Spec:
    """Returns the colour of runs, by the field `run`."""
    colours = [colour for colour, _ in _LOOKS.values()]
    chosen = [colours[i % len(colours)] for i in range(len(names))]
    return {"color": {"field": "run", "scale": {"domain": names, "range": chosen}}}


def tooltip(**fields: tuple[str, str]) -> list[Spec]:
    """Returns what is shown of the element under the pointer.

    Args:
        **fields: title and number format of each field.
    """
    return [
        {"field": field, "title": title, **({"format": form} if form else {})}
        for field, (title, form) in fields.items()
    ]


def costs_choice(costs: Sequence[str]) -> list[Spec]:
    """Returns the parameter `cost`, with a list to choose from if there are several."""
    bind = {
        "input": "select",
        "name": "cost: ",
        "options": list(costs),
        "labels": [QUANTITIES[cost].title for cost in costs],
    }
    return [{"name": "cost", "value": costs[0], **({"bind": bind} if len(costs) > 1 else {})}]


def closer(values: Sequence[float], mode: str = "max") -> list[Spec]:
    """Returns the parameter `least`: the worst value that is shown.

    The reader shows all episodes or only the better half, as very bad ones squeeze the others.

    Args:
        values: values of all episodes.
        mode: `max` if more is better, `min` if less is.
    """
    ranked = sorted(values, reverse=mode == "min")
    worst, middle = ranked[0], ranked[len(values) // 2]
    bind = {
        "input": "select",
        "name": "episodes: ",
        "options": [worst, middle],
        "labels": ["all", "the better half"],
    }
    return [{"name": "least", "value": worst, "bind": bind}]


def pickable(name: str, field: str) -> tuple[list[Spec], Spec]:
    """Lets a click in the legend dim all other entries.

    Returns:
        The parameters and the opacity of a layer.
    """
    picked = [{"name": name, "select": {"type": "point", "fields": [field]}, "bind": "legend"}]
    return picked, {"condition": {"param": name, "value": 0.75}, "value": 0.08}


def depth(field: str, count: int, title: str) -> Spec:
    """Returns the encoding of named parts of a network from input to output.

    Args:
        field: field with a part's name; the field `depth` holds its number.
        count: number of parts. Names are shown up to 30 parts, as more would overlap.
        title: name for the parts, such as "layers".
    """
    named = {"title": None, "labelAngle": -50, "labelLimit": 110}
    many = {"title": f"{title}, input to output", "labels": False, "ticks": False}
    return {
        "field": field,
        "type": "ordinal",
        "sort": {"field": "depth"},
        "axis": named if count <= 30 else many,
    }
