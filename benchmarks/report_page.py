"""Size of the report, and how fast a browser opens it: the demo's, and one of 400 episodes.

    python benchmarks/report_page.py --workdir=DIR

runs all of configs/mnist.py in DIR/demo, and its search alone with 400 episodes in DIR/long (about
4 and 6 minutes; finished runs are not repeated). It then opens each report in a fresh Chromium
several times.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys

from absl import app, flags
from common import record

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
LOADS = flags.DEFINE_integer("loads", 7, "How often each page is opened.")
ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = {
    "demo": ("compress", []),
    "long": ("search", ["--config.search.episodes=400"]),
}
SLOWED = 4  # about the processor of a phone
# Milliseconds from the start of the navigation to the end of the load event, and to the last chart.
TIMES = """() => [performance.getEntriesByType("navigation")[0].loadEventEnd,
                  Number(document.documentElement.dataset.drawn)]"""


def searched(name: str) -> pathlib.Path:
    folder = pathlib.Path(WORKDIR.value).expanduser() / name
    script, options = RUNS[name]
    if not (folder / "report.html").exists():
        command = [sys.executable, "-m", f"amc_tf.cli.{script}", "--config=configs/mnist.py"]
        subprocess.run([*command, f"--workdir={folder}", *options], check=True, cwd=ROOT)
    return folder


def opened(browser, path: pathlib.Path, slowed: int) -> list[float]:
    """Measures loading and drawing time in ms; fails if the page reports an error."""
    with browser.new_context(viewport={"width": 1100, "height": 800}) as context:
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slowed})
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]")
        assert not complaints, complaints
        return page.evaluate(TIMES)


def measured(browser, name: str) -> dict:
    from amc_tf.report import html
    from amc_tf.report.run import read_run

    folder = searched(name)
    path = html.write_report([folder])
    found = {
        "run": name,
        "episodes": len(read_run(folder).episodes),
        "bytes": path.stat().st_size,
    }
    for slowed, label in ((1, ""), (SLOWED, "_slowed")):
        times = [opened(browser, path, slowed) for _ in range(LOADS.value)]
        for key, values in zip(("load_ms", "drawn_ms"), zip(*times, strict=True), strict=True):
            found[key + label] = [round(f(values)) for f in (statistics.median, min, max)]
    return found


def main(argv):
    del argv
    sys.path.insert(0, str(ROOT / "tests/helpers"))
    import chromium

    for name in RUNS:
        searched(name)
    with chromium.browser() as browser:
        pages = [measured(browser, name) for name in RUNS]
        version = browser.version
    entry = {"browser": f"Chromium {version}", "loads": LOADS.value, "slowed": SLOWED}
    record.append("report", {**entry, "pages": pages})


if __name__ == "__main__":
    app.run(main)
