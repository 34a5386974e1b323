"""The report of a run, or a comparison of several, as one HTML page."""

from __future__ import annotations

import html
import json
import os
import pathlib
from collections.abc import Sequence

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.report import charts, comparison, page, summary
from amc_tf.report.rows import datasets
from amc_tf.report.run import Run, read_run, read_runs
from amc_tf.report.tables import budget_lines, tables
from amc_tf.runs import layout
from amc_tf.runs.vocabulary import policy_label


def write_report(
    paths: Sequence[str | os.PathLike], out: str | os.PathLike | None = None
) -> pathlib.Path:
    """Writes the page of one run, or of a comparison of several.

    Args:
        paths: work directories, at least one. They may belong to searches that are still running.
        out: the file to write; by default `report.html` in the work directory, or
            `comparison.html` in the current folder if there are several.

    Returns:
        The path of the file.

    Raises:
        AmcError: see `read_runs`; or the file's folder does not exist.
    """
    if len(paths) == 1:
        usual = pathlib.Path(paths[0]) / layout.REPORT
        base = None if out is None else pathlib.Path(out).expanduser().parent
        text = run_page(read_run(paths[0]), base)
    else:
        text, usual = comparison_page(read_runs(paths)), pathlib.Path(layout.COMPARISON)
    out = (usual if out is None else pathlib.Path(out)).expanduser()
    if not out.parent.is_dir():
        raise AmcError(
            f"the page cannot be written: there is no folder {out.parent}; make it first"
        )
    files.write_atomically(out, text.encode())
    return out


def run_page(run: Run, base: pathlib.Path | None = None) -> str:
    """Returns the page of one run.

    Args:
        run: the run.
        base: folder of the page, from which its links lead; by default that of the run.
    """
    title = run.search.get("name", run.name)
    head = f"<header><h1>{html.escape(title)}</h1><p>{html.escape(_state(run))}</p></header>"
    data = datasets(run)
    first, *others = charts.charts(run, data) or [None]
    parts: list[page.Part | None] = [
        first,
        *tables(run.result),
        page.facts("Budget and search", _asked(run)),
        *others,
        page.links("Files beside this page", _files(run, base)),
        page.facts("How it was made", _made(run)),
        page.folded("Configuration", json.dumps(run.config, indent=1)) if run.config else None,
    ]
    shown = [part for part in parts if part is not None]
    top = [
        head,
        page.verdict(summary.verdict(run)),
        page.warnings(summary.warnings(run)),
        page.tiles(summary.figures(run)),
        page.contents(shown),
    ]
    return page.page(f"{title}: report", [*top, *shown], data)


def comparison_page(runs: Sequence[Run]) -> str:
    """Returns the page that compares runs."""
    names = ", ".join(run.name for run in runs)
    head = f"<header><h1>{len(runs)} runs compared</h1><p>{html.escape(names)}</p></header>"
    data = comparison.datasets(runs)
    parts = [head, *comparison.tables(runs), *comparison.charts(runs, data)]
    return page.page(f"{len(runs)} runs compared", parts, data)


def _files(run: Run, base: pathlib.Path | None) -> list[tuple[str, str, str]]:
    """Returns the files to ship and to go on with: name, address from the page, what it is."""
    tflite = {name: "a TFLite file, checked" for name in run.result.tflite}
    own = {name: about for name, about in tflite.items() if not layout.is_compared(name)}
    known = {
        layout.FINETUNED.name: "the small network, plain Keras",
        **own,
        layout.RESULT: "all numbers of this page",
        layout.PLAN: "the channels that are kept",
        layout.EPISODES: "every plan that was tried",
    }
    folder = pathlib.Path("" if base is None else os.path.relpath(run.path, base))
    return [
        (name, (folder / name).as_posix(), about)
        for name, about in known.items()
        if (run.path / name).exists()
    ]


def _state(run: Run) -> str:
    episodes = f"{len(run.episodes):,} episodes"
    when = "" if run.changed is None else f"; {run.changed:%d %B %Y, %H:%M}"
    done = f"stages done: {', '.join(run.result.seconds)}"
    if run.result.policies:
        return f"{run.name}: {episodes}; {done}{when}"
    if run.episodes:
        return f"{run.name}: the search is running or was interrupted; {episodes} so far"
    return f"{run.name}: {done}{when}"


def _asked(run: Run) -> list[tuple[str, str]]:
    search = run.config.get("search", {})
    bounds = run.config.get("budget") or {}
    asked = ", ".join(f"{name} {value:,.10g}" for name, value in bounds.items())
    reached = [("in numbers", line.removeprefix("budget: ")) for line in budget_lines(run.result)]
    policies = ", ".join(map(policy_label, run.policies))
    metric, dense = run.scores.metric, run.dense.get("score")
    constant = None if run.result.dense is None else run.result.dense.constant_score
    values = [
        ("budget", asked or "none: the reward prices the cost"),
        ("metric", f"{metric.title}, {metric.better}"),
        ("uncertainty of the search", run.scores.spread(dense)),
        ("the same answer to every input", run.scores.number(constant)),
        ("recovery", _recovery(run)),
        ("fine-tuning", _undone(run)),
        ("training of the dense network", _longer(run)),
        ("reward", run.reward),
        ("episodes of each searcher", str(search.get("episodes", run.result.episodes or ""))),
        ("policies", policies),
        ("chosen", policy_label(run.chosen) if run.chosen else ""),
    ]
    given = [(name, value) for name, value in values if value]
    return [given[0], *reached, *given[1:]]


def _recovery(run: Run) -> str:
    """Says what a training without labels did to the chosen network, if there was one."""
    found = run.result.recoveries.get(run.chosen or "")
    if found is None:
        return ""
    kept = f"that after epoch {found.kept} is kept: the {found.measure} from the dense network is"
    if not found.kept:
        kept = f"none was nearer to the dense network, so that of before is kept: {found.measure}"
    return (
        f"{found.epochs} epochs over {found.images:,} calibration images, without labels; {kept} "
        f"{found.after:.4g}, before {found.before:.4g} (on {found.held_out:,} validation inputs)"
    )


def _undone(run: Run) -> str:
    """Says that fine-tuning made the network worse, if so."""
    tuned, number = run.result.finetuned, run.scores.number
    if tuned is None or not tuned.undone:
        return ""
    scores = ""
    if tuned.validation_before is not None:
        before, after = number(tuned.validation_before), number(tuned.validation_after)
        scores = f" ({before} before, {after} after)"
    return (
        f"it made the network worse on the validation data{scores}, so that the network from "
        "before it is used"
    )


def _longer(run: Run) -> str:
    """Says whether the dense network was trained for as long as the pruned one."""
    tuned, dense = run.result.finetuned, run.result.dense
    if tuned is None or dense is None or not tuned.trained:
        return ""
    if dense.longer_score is not None:
        return f"fine-tuned like the pruned one, it has {run.scores.cell(dense.longer_score)}"
    return (
        "it was not fine-tuned as the pruned one was, which may gain by the longer training alone; "
        'FineTuneSettings(compare=("dense_longer",)) does it'
    )


def _made(run: Run) -> list[tuple[str, str]]:
    """Returns the commands, the seed, the versions and the time, by name."""
    commands: dict[str, list[str]] = {}
    for stage, command in run.result.commands.items():
        commands.setdefault(command, []).append(stage)
    values = [(f"command ({', '.join(stages)})", text) for text, stages in commands.items()]
    seed = run.result.seed
    if seed is None:
        seed = run.config.get("search", {}).get("seed")
    if seed is not None:
        values.append(("seed", str(seed)))
    versions = run.result.versions
    if versions:
        values.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    seconds = run.result.seconds
    if seconds:
        values.append(("seconds", ", ".join(f"{k} {v:.1f}" for k, v in seconds.items())))
    return values
