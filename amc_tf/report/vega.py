"""What all charts of a report have in common, as parts of Vega-Lite specifications.

A chart is data: https://vega.github.io/vega-lite/docs. Colours are names of CSS
properties (`report.css`), which change with the reader's light or dark theme.
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
    """A chart and the words around it.

    Attributes:
        name: its element's id on the page.
        title: the heading.
        about: how to read it, a sentence or two.
        data: names of the page's datasets that it draws.
        spec: Vega-Lite.
    """

    name: str
    title: str
    about: str
    data: tuple[str, ...]
    spec: Spec


def spec(height: int, **parts: Any) -> Spec:
    """A specification as wide as the page, of which `parts` say what is drawn."""
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        **parts,
    }


def quantity(field: str, title: str | None, format: str = "", **more: Any) -> Spec:
    """The encoding of a number on an axis that need not begin at zero."""
    axis = {"title": title, **({"format": format} if format else {})}
    return {"field": field, "type": "quantitative", "scale": {"zero": False}, "axis": axis, **more}


def looks(policies: Sequence[str]) -> Spec:
    """Colour and shape of policies, by the field `policy`; both share one legend."""
    given = [_LOOKS.get(name, ("var(--text)", "stroke")) for name in policies]
    colours, shapes = zip(*given, strict=True)
    return {
        "color": {"field": "policy", "scale": {"domain": policies, "range": colours}},
        "shape": {"field": "policy", "scale": {"domain": policies, "range": shapes}},
    }


def colour(policies: Sequence[str]) -> Spec:
    """Colour alone, for lines."""
    return {"color": looks(policies)["color"]}


def runs_colour(names: Sequence[str]) -> Spec:
    """Colour of runs, by the field `run`."""
    colours = [colour for colour, _ in _LOOKS.values()]
    chosen = [colours[i % len(colours)] for i in range(len(names))]
    return {"color": {"field": "run", "scale": {"domain": names, "range": chosen}}}


def tooltip(**fields: tuple[str, str]) -> list[Spec]:
    """What is shown of the thing under the pointer: field to its title and number format."""
    return [
        {"field": field, "title": title, **({"format": form} if form else {})}
        for field, (title, form) in fields.items()
    ]


def costs_choice(costs: Sequence[str]) -> list[Spec]:
    """A parameter `cost`, with a list to choose from where there are several."""
    bind = {
        "input": "select",
        "name": "cost: ",
        "options": list(costs),
        "labels": [QUANTITIES[cost].title for cost in costs],
    }
    return [{"name": "cost", "value": costs[0], **({"bind": bind} if len(costs) > 1 else {})}]


def closer(values: Sequence[float]) -> list[Spec]:
    """A parameter `least`: whether to show all, or only the better half, which bad ones squeeze."""
    middle = sorted(values)[len(values) // 2]
    bind = {
        "input": "select",
        "name": "episodes: ",
        "options": [min(values), middle],
        "labels": ["all", "the better half"],
    }
    return [{"name": "least", "value": min(values), "bind": bind}]


def pickable(name: str, field: str) -> tuple[list[Spec], Spec]:
    """Lets a click in the legend dim all others: parameters of a layer, and its opacity."""
    picked = [{"name": name, "select": {"type": "point", "fields": [field]}, "bind": "legend"}]
    return picked, {"condition": {"param": name, "value": 0.75}, "value": 0.08}


def depth(field: str, count: int, title: str) -> Spec:
    """The encoding of named parts of a network from input to output.

    Args:
        field: with the name; `depth` is their number.
        count: how many there are; the names of many would hide each other.
        title: what they are.
    """
    named = {"title": None, "labelAngle": -50, "labelLimit": 110}
    many = {"title": f"{title}, input to output", "labels": False, "ticks": False}
    return {
        "field": field,
        "type": "ordinal",
        "sort": {"field": "depth"},
        "axis": named if count <= 30 else many,
    }
