"""The chart of the networks that were built: what each scores before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping

from amc_tf.report.rows import Rows
from amc_tf.report.run import Run
from amc_tf.report.vega import Chart, quantity, spec, tooltip

_ROW_HEIGHT = 30


def networks_chart(run: Run, data: Mapping[str, Rows]) -> Chart | None:
    """Returns the chart; None before the search has ended."""
    rows, scores = data["networks"], run.scores
    if not rows:
        return None
    title = f"{scores.metric.data} {scores.metric.title}"
    x = quantity("score", title, scores.ticks)
    order = list(dict.fromkeys(row["network"] for row in rows))
    axis = {"title": None, "labelLimit": 160}
    y = {"field": "network", "type": "nominal", "sort": order, "axis": axis}
    tips = tooltip(
        network=("network", ""),
        stage=("", ""),
        score=(scores.metric.title, scores.form),
        macs=("MACs", ",d"),
        macs_share=("of dense", ".1%"),
        params=("parameters", ",d"),
    )
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    look = {"before fine-tuning": "var(--grey)", "after fine-tuning": "var(--blue)"}
    colours = {"domain": stages, "range": [look.get(stage, "var(--text)") for stage in stages]}
    return Chart(
        "networks",
        "Networks before and after fine-tuning",
        f"The {title} of the network that was chosen and of those that it is compared with. "
        "Dashed: the dense network.",
        ("networks",),
        spec(
            _ROW_HEIGHT * len(order),
            data={"name": "networks"},
            layer=[
                {
                    "transform": [{"filter": "datum.stage == 'dense'"}],
                    "mark": {"type": "rule", "strokeDash": [4, 4], "color": "var(--text)"},
                    "encoding": {"x": x},
                },
                {
                    "mark": {"type": "line", "color": "var(--pale)", "strokeWidth": 4},
                    "encoding": {"x": x, "y": y, "detail": {"field": "network"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                    "encoding": {
                        "x": x,
                        "y": y,
                        "color": {"field": "stage", "scale": colours},
                        "tooltip": tips,
                    },
                },
            ],
        ),
    )
