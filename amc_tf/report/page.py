"""A self-contained HTML page: it needs neither a network nor another file.

Vega-Lite draws the charts. The page contains its JavaScript, which the package vl-convert provides.
"""

from __future__ import annotations

import functools
import html
import json
import math
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

from amc_tf.errors import printable
from amc_tf.report.style import STYLE
from amc_tf.report.summary import Figure
from amc_tf.report.table import Table, in_html
from amc_tf.report.vega import Chart

Part = Table | Chart | str
_BAD = ' class="bad"'
_HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)</h2>')


def page(title: str, parts: Sequence[Part], data: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns the page.

    Args:
        title: title of the page.
        parts: tables, charts and pieces of HTML, from top to bottom.
        data: rows of the charts, by name.
    """
    charts = [part for part in parts if isinstance(part, Chart)]
    content = {
        "charts": [{"name": c.name, "data": c.data, "spec": c.spec} for c in charts],
        "data": {name: list(map(_drawn, data[name])) for c in charts for name in c.data},
    }
    return _PAGE.format(
        title=html.escape(printable(title)),
        style=STYLE,
        body=printable("\n".join(map(_part, parts)), keep="\n"),
        # Within a script element, no "<" of the data may be read as markup.
        content=json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        library=_library() if charts else "",
        script=_SCRIPT if charts else "",
    )


def _drawn(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row whose numbers can be drawn: JSON knows neither infinity nor NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def facts(title: str, values: Sequence[tuple[str, str]]) -> str:
    """Returns a list of names and values under a heading."""
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in values
    )
    return _section(title, f'<dl class="facts">{items}</dl>')


def tiles(figures: Sequence[Figure]) -> str:
    """Returns figures in large print."""
    items = "".join(
        f"<div{_BAD if figure.bad else ''}><dt>{html.escape(figure.name)}</dt>"
        f"<dd>{html.escape(figure.value)}<small>{html.escape(figure.detail)}</small></dd></div>"
        for figure in figures
    )
    return f'<dl class="tiles">{items}</dl>' if figures else ""


def verdict(sentence: str) -> str:
    """Returns what came out, in a sentence."""
    return f'<p class="verdict">{html.escape(sentence)}</p>' if sentence else ""


def warnings(sentences: Sequence[str]) -> str:
    """Returns what to beware of, one sentence each."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="warnings" role="note">{items}</ul>' if sentences else ""


def links(title: str, files: Sequence[tuple[str, str, str]]) -> str:
    """Returns links to files beside the page.

    Args:
        title: heading of the list.
        files: name, address and meaning of each file.
    """
    items = "".join(
        f'<li><a href="{urllib.parse.quote(address)}">{html.escape(name)}</a>: '
        f"{html.escape(about)}</li>"
        for name, address, about in files
    )
    return _section(title, f"<ul>{items}</ul>")


def contents(parts: Sequence[Part]) -> str:
    """Returns links to the headings of a page's parts."""
    titles = _HEADING.findall("".join(map(_part, parts)))
    items = "".join(f'<a href="#{address}">{title}</a>' for address, title in titles)
    return f'<nav aria-label="contents">{items}</nav>'


def folded(title: str, text: str) -> str:
    """Returns a long text that is folded until the reader opens it."""
    summary = f"<summary>{html.escape(title)}</summary>"
    return f"<section><details>{summary}<pre>{html.escape(text)}</pre></details></section>"


def _section(title: str, inner: str) -> str:
    # Apart from the ids of charts, which are names alone.
    address = "on-" + re.sub(r"\W+", "-", title.lower()).strip("-")
    return f'<section><h2 id="{address}">{html.escape(title)}</h2>{inner}</section>'


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return _section(part.title, in_html(part))
    if isinstance(part, Chart):
        about = html.escape(part.about)
        label = html.escape(part.title)
        chart = f'<div class="chart" id="{part.name}" role="figure" aria-label="{label}"></div>'
        return _section(part.title, f"<p>{about}</p>{chart}")
    return part


@functools.cache
def _library() -> str:
    """Returns Vega, Vega-Lite and vega-embed as one script of about 0.9 MB, in a second or two."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return re.sub("</(script)", r"<\\/\1", bundle, flags=re.IGNORECASE)


# The security policy blocks everything outside the page. Vega compiles expressions by `eval`.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="content">{content}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""

_SCRIPT = """
const content = JSON.parse(document.getElementById("content").textContent);
const options = { actions: false, renderer: "svg", tooltip: { theme: "page" } };
Promise.all(content.charts.map(({ name, data, spec }) => {
  const datasets = Object.fromEntries(data.map(key => [key, content.data[key]]));
  return vegaEmbed(document.getElementById(name), { ...spec, datasets }, options);
})).then(() => { document.documentElement.dataset.drawn = Math.round(performance.now()); });
"""
