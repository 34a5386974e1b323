"""The report of a run, or a comparison of several, as one HTML page."""

from __future__ import annotations

import html
import json
import os
import pathlib
from collections.abc import Sequence

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.report import charts, comparison, page
from amc_tf.report.rows import datasets
from amc_tf.report.run import Run, read_run, read_runs
from amc_tf.report.tables import budget_lines, tables
from amc_tf.runs import layout
from amc_tf.runs.vocabulary import QUANTITIES, policy_label


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
        text, usual = run_page(read_run(paths[0])), pathlib.Path(paths[0]) / layout.REPORT
    else:
        text, usual = comparison_page(read_runs(paths)), pathlib.Path(layout.COMPARISON)
    out = (usual if out is None else pathlib.Path(out)).expanduser()
    if not out.parent.is_dir():
        raise AmcError(
            f"the page cannot be written: there is no folder {out.parent}; make it first"
        )
    files.write_atomically(out, text.encode())
    return out


def run_page(run: Run) -> str:
    """Returns the page of one run."""
    title = run.search.get("name", run.name)
    head = f"<header><h1>{html.escape(title)}</h1><p>{html.escape(_state(run))}</p></header>"
    data = datasets(run)
    parts: list[page.Part] = [
        head,
        page.tiles(_figures(run)),
        page.facts("Budget and search", _asked(run)),
    ]
    parts += [*tables(run.result), *charts.charts(run, data)]
    parts.append(page.facts("How it was made", _made(run)))
    if run.config:
        parts.append(page.folded("Configuration", json.dumps(run.config, indent=1)))
    return page.page(f"{title}: report", parts, data)


def comparison_page(runs: Sequence[Run]) -> str:
    """Returns the page that compares runs."""
    names = ", ".join(run.name for run in runs)
    head = f"<header><h1>{len(runs)} runs compared</h1><p>{html.escape(names)}</p></header>"
    data = comparison.datasets(runs)
    parts = [head, *comparison.tables(runs), *comparison.charts(runs, data)]
    return page.page(f"{len(runs)} runs compared", parts, data)


def _state(run: Run) -> str:
    episodes = f"{len(run.episodes):,} episodes"
    done = f"stages done: {', '.join(run.result.seconds)}"
    if run.result.policies:
        return f"{run.name}: {episodes}; {done}"
    if run.episodes:
        return f"{run.name}: the search is running or was interrupted; {episodes} so far"
    return f"{run.name}: {done}"


def _figures(run: Run) -> list[tuple[str, str, str]]:
    """Returns the name, value and detail of each figure to show in large print."""
    result = run.result
    dense, pruned, tuned = result.dense, result.pruned, result.finetuned
    if not result.policies or dense is None or pruned is None:
        return []
    found = []
    bounds = result.budget or {}
    for kind in dict.fromkeys([*bounds, "macs"]):
        bound = bounds.get(kind)
        before, after = (
            (dense.costs[kind], pruned.costs[kind])
            if bound is None
            else (bound.dense, bound.reached)
        )
        if before and after is not None:
            asked = f"; asked {bound.bound / before:.1%}" if bound else ""
            value = f"{after / before:.1%}"
            amount = QUANTITIES[kind].amount
            amounts = f"{amount(after)} of {amount(before)}{asked}"
            found.append((f"{QUANTITIES[kind].title} left", value, amounts))
    scores = run.scores
    measured = f"{scores.metric.data} {scores.metric.title}"
    detail = f"dense {scores.cell(dense.score)}"
    if tuned is None:
        found.append((f"{measured}, not fine-tuned", scores.cell(pruned.score), detail))
    else:
        how = "fine-tuning" if tuned.trained else "recovery" if result.recoveries else ""
        detail += f", before {how} {scores.cell(pruned.score)}" if how else ", not fine-tuned"
        found.append((measured, scores.cell(tuned.score), detail))
    return found + _file_figures(run)


def _file_figures(run: Run) -> list[tuple[str, str, str]]:
    dense, fit = run.result.tflite.get(layout.compared_file("dense")), run.files
    if dense is None or not fit:
        return []
    own = [name for name in run.result.tflite if not layout.is_compared(name)]
    within = " within the tolerance" if len(fit) < len(own) else ""
    small = min(fit, key=lambda name: fit[name].bytes)
    size = fit[small].bytes
    found = [
        (
            f"smallest file{within}",
            f"{size / dense.bytes:.1%}",
            f"{small}: {size:,} of {dense.bytes:,} bytes of dense float32",
        )
    ]
    times = {name: file.latency.median_ms for name, file in fit.items() if file.latency}
    if dense.latency is not None and times:
        fast, whole = min(times, key=times.__getitem__), dense.latency.median_ms
        share = times[fast] / whole
        slower = share > 1
        found.append(
            (
                f"{'no file is faster' if slower else 'fastest file'}{within}",
                f"{share:.1f} times as slow" if slower else f"{share:.1%}",
                f"{fast}: {times[fast]:.4g} of {whole:.4g} ms of dense float32",
            )
        )
    return found


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
        ("warning", "" if dense is None else run.scores.uncertainty.warning(metric, dense)),
        ("the same answer to every input", run.scores.number(constant)),
        ("recovery", _recovery(run)),
        ("fine-tuning", _undone(run)),
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
