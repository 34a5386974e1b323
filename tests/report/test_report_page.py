"""The report in a real browser: drawn, silent, readable in light and dark and on a phone."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re

import chromium
import made_up_run
import numpy as np
import pytest
from PIL import Image
from playwright import sync_api

from amc_tf.report import html

SCREENSHOTS = chromium.ROOT / "build/screenshots"
WIDE, PHONE = {"width": 1100, "height": 800}, {"width": 360, "height": 740}


@dataclasses.dataclass
class Opened:
    """A page and everything that went wrong on it, or that it asked for."""

    page: sync_api.Page
    complaints: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browser():
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(chromium.browser())
        except chromium.NoChromiumError as error:
            pytest.skip(str(error))
        yield running


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        made_up_run.write(folder / "whole", curves=True),
        made_up_run.write(folder / "search", seed=1, latency=False, stage="search"),
        made_up_run.write(folder / "cut", seed=2, episodes=12, stage="episodes"),
    ]


@pytest.fixture
def opened(browser):
    """Opens pages; at the end of the test none may have complained or asked for anything."""
    contexts, pages = [], []

    def open_page(path, viewport, scheme="light"):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        found = Opened(context.new_page(), [], [])
        pages.append((found, path))
        for event in ("console", "pageerror", "requestfailed"):
            found.page.on(event, lambda x, e=event: found.complaints.append(f"{e}: {x}"))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(path.as_uri())
        found.page.wait_for_selector("html[data-drawn]", timeout=30_000)
        return found.page

    yield open_page
    for found, path in pages:
        assert found.complaints == []
        assert found.requests == [path.as_uri()]
    for context in contexts:
        context.close()


def shot(page: sync_api.Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def symbols(page, chart):
    return page.locator(f"#{chart} .mark-symbol.role-mark path").count()


def contrast(page: sync_api.Page) -> float:
    """Between the letters of a chart's axis and the page, by the formula of WCAG 2."""
    colours = page.evaluate(
        """() => [getComputedStyle(document.querySelector("#score .role-axis-label text")).fill,
                  getComputedStyle(document.body).backgroundColor]"""
    )

    def luminance(colour):
        parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)


def test_every_chart_of_a_run_is_drawn(opened, runs):
    page = opened(html.write_report([runs[0]]), WIDE)
    shot(page, "report")
    charts = page.locator(".chart")
    names = charts.evaluate_all("all => all.map(x => x.id)")
    assert names == [
        *("networks", "score", "reward", "noise", "ratios", "curves"),
        *("channels", "layers", "latency"),
    ]
    episodes = 2 * 40 + 3
    assert symbols(page, "score") == episodes + 1  # and the ring around the plan shown
    assert symbols(page, "reward") == episodes - 3
    assert symbols(page, "ratios") == 5 * len(made_up_run.WIDTHS)
    assert page.locator("#reward .mark-rule.role-mark line").count() == 3  # one plan each
    # Four points a group, and the share that is kept; the darkest loses most.
    shades = page.locator("#curves .mark-rect.role-mark path")
    assert shades.count() == 4 * 5 + 5
    assert page.locator("#curves .role-legend").count() == 1
    assert page.locator("#channels .mark-rect.role-mark path").count() == 2 * 5
    assert page.locator("#layers .mark-rect.role-mark path").count() == 2 * 6
    assert symbols(page, "latency") == 9 + 1
    assert "</script><b>&" in page.locator("pre").text_content()
    for chart in charts.all():
        box = chart.locator("svg").bounding_box()
        assert box["width"] > 700 and box["height"] > 100


def test_what_groups_lose_is_drawn_on_a_logarithmic_scale(opened, runs):
    page = opened(html.write_report([runs[0]]), WIDE)
    content = json.loads((runs[0] / "curves.json").read_text())["curves"]
    losses = [loss for curve in content.values() for loss in curve["losses"]]
    fills = "all => all.map(x => x.getAttribute('fill'))"
    colours = page.locator("#curves .mark-rect.role-mark path").evaluate_all(fills)[: len(losses)]
    light = [sum(int(part) for part in re.findall(r"\d+", colour)) for colour in colours]
    # None at all is as light as the least; on a linear scale, two thirds would look alike.
    least = min(loss for loss in losses if loss)
    ranked = [light[i] for i in np.argsort([-max(loss, least) for loss in losses], kind="stable")]
    assert ranked[0] == min(light) and ranked[-1] == max(light)
    middle = light[losses.index(sorted(losses)[len(losses) // 2])]
    assert min(light) < middle < max(light)
    box = "all => all.map(x => x.getBoundingClientRect().height)"
    heights = page.locator("#curves .mark-rect.role-mark path").evaluate_all(box)[:4]
    # From a quarter to three eighths, on to five and seven, and to the whole.
    assert heights == pytest.approx([heights[0] * n for n in (1, 2, 2, 1)], abs=1.5)


def test_values_under_the_pointer_and_another_cost(opened, runs):
    page = opened(html.write_report([runs[0]]), WIDE)
    # Bars are wide: their middle is theirs alone. Those of what is kept lie on top.
    bar = page.locator("#layers .mark-rect.role-mark path").nth(6)
    bar.scroll_into_view_if_needed()
    bar.hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "stem" in tip.text_content() and "112,896" in tip.text_content()
    page.mouse.move(0, 0)
    heights = "all => all.map(x => x.getBoundingClientRect().height)"
    bars = page.locator("#layers .mark-rect.role-mark path")
    macs = bars.evaluate_all(heights)
    page.locator("#layers select").select_option("params")
    page.wait_for_function(
        "old => document.querySelectorAll('#layers .mark-rect.role-mark path')[1]"
        ".getBoundingClientRect().height !== old",
        arg=macs[1],
    )
    params = bars.evaluate_all(heights)
    dense = [params for _, params in made_up_run.LAYERS.values()]
    shares = [height / params[2] for height in params[:6]]
    assert shares == pytest.approx([count / dense[2] for count in dense], abs=0.02)
    axis = page.locator("#score .role-axis-label").first
    before = axis.text_content()
    page.locator("#score select").first.select_option(label="parameters")
    page.wait_for_function(
        "old => document.querySelector('#score .role-axis-label').textContent !== old",
        arg=before,
    )


def test_the_better_half_and_one_policy_alone(opened, runs):
    page = opened(html.write_report([runs[0]]), WIDE)
    log = [json.loads(x) for x in (runs[0] / "episodes.jsonl").read_text().splitlines()]
    middle = np.median([record["reward"] for record in log])
    better = [r for r in log if r["reward"] >= middle and r["policy"] in ("amc", "random")]
    page.locator("#reward select").select_option(label="the better half")
    page.wait_for_function(
        """count => document.querySelectorAll('#reward .mark-symbol.role-mark path')
                    .length === count""",
        arg=len(better),
    )
    page.locator("#score .role-legend-symbol path").first.click()
    page.wait_for_function(
        """count => [...document.querySelectorAll('#score .mark-symbol.role-mark path')]
                    .filter(x => x.getAttribute('opacity') === '0.75').length === count""",
        arg=sum(record["policy"] == "amc" for record in log),
    )


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_a_phone_needs_no_sideways_scrolling(opened, runs, kind):
    path = (
        html.write_report([runs[0]])
        if kind == "run"
        else html.write_report(runs, runs[0] / "comparison.html")
    )
    page = opened(path, PHONE)
    shot(page, f"{kind}_phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # Nor is anything cut off at the edge.
    right = "all => Math.max(...all.map(x => x.getBoundingClientRect().right))"
    assert page.locator("svg, td, dd, p, h1").evaluate_all(right) <= PHONE["width"]


def test_light_and_dark(opened, runs):
    path = html.write_report([runs[0]])
    light, dark = opened(path, WIDE), opened(path, WIDE, "dark")
    shot(dark, "report_dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(background) == "rgb(255, 255, 255)" != dark.evaluate(background)
    for page in (light, dark):
        assert contrast(page) > 4.5  # what WCAG asks of text
    # A reader who changes the theme need not load the page again.
    light.emulate_media(color_scheme="dark")
    assert contrast(light) > 4.5
    assert light.evaluate(background) == dark.evaluate(background)


def test_three_screens_of_a_phone_hold_what_matters(opened, runs):
    """The verdict, the warnings, the figures and the main chart come before any detail."""
    page = opened(html.write_report([runs[0]]), PHONE)
    for chosen in (".verdict", ".warnings", ".tiles", "#networks"):
        box = page.locator(chosen).bounding_box()
        assert box["y"] + box["height"] < 3 * PHONE["height"], chosen


LOOKS = pathlib.Path(__file__).parent / "looks"
# Width to which screenshots are shrunk: letters, which differ from machine to machine, are grey
# then. Of 255 shades, how far two of them may be apart on average, and a tenth of a page.
_THUMB, _APART, _PART_APART = 64, 6.0, 20.0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_looks_as_it_did(opened, runs, width, scheme):
    """AMC_TF_RENEW_GOLDEN=1 keeps the looks of now; look at them before committing them."""
    page = opened(html.write_report([runs[0]]), {"width": width, "height": 844}, scheme)
    image = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("L")
    height = 3 * 844 * _THUMB // width  # the first screens, which everybody sees
    now = image.resize((_THUMB, image.height * _THUMB // width), Image.Resampling.BOX)
    now = now.crop((0, 0, _THUMB, height))
    path = LOOKS / f"report_{width}_{scheme}.png"
    if os.environ.get("AMC_TF_RENEW_GOLDEN") == "1":
        LOOKS.mkdir(exist_ok=True)
        now.save(path, optimize=True)
    apart = np.abs(np.asarray(now, float) - np.asarray(Image.open(path), float))
    tenths = [part.mean() for part in np.array_split(apart, 10)]
    assert apart.mean() < _APART and max(tenths) < _PART_APART, tenths


def test_an_unfinished_search(opened, runs):
    page = opened(html.write_report([runs[2]]), WIDE)
    assert "27 episodes so far" in page.locator("header").text_content()
    assert symbols(page, "score") == 27 + 1
    assert page.locator("#ratios").count() == 1 and page.locator("#layers").count() == 0


def test_a_comparison(opened, runs, tmp_path):
    page = opened(html.write_report(runs, tmp_path / "comparison.html"), WIDE)
    shot(page, "comparison")
    rows = page.locator("table").first.locator("tbody tr")
    assert rows.locator("td:first-child").all_text_contents() == ["whole", "search", "cut"]
    differing = page.locator("table").nth(1).locator("td:first-child").all_text_contents()
    assert differing == ["budget.latency", "search.episodes", "search.seed"]
    legend = page.locator("#fronts .role-legend-label text").all_text_contents()
    assert legend == ["whole", "search", "cut"]
    assert page.locator("#fronts .mark-line.role-mark path").count() == 3


def test_the_page_is_small(runs):
    path: pathlib.Path = html.write_report([runs[0]])
    assert path == runs[0] / "report.html"
    assert path.stat().st_size < 2_000_000
