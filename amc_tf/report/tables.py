"""The closing tables of a run, as text; `amc_tf.report.html` shows the same on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_tf.report.table import Table, aligned, percent
from amc_tf.runs import layout
from amc_tf.runs.vocabulary import QUANTITIES, policy_label


def table(result: Mapping[str, Any]) -> str:
    """What was asked and reached, as text.

    Args:
        result: the content of `result.json`, of all stages run so far.

    Returns:
        A table of dense, compared and chosen networks, then of the exported
        files, then of the rounds of fine-grained pruning; of what there is.
    """
    lines = budget_lines(result)
    for shown in tables(result):
        lines += aligned([shown.header, *shown.rows])
        lines += [*([shown.note] if shown.note else []), ""]
    seconds = result.get("seconds", {})
    lines.append("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    return "\n".join(lines)


def budget_lines(result: Mapping[str, Any]) -> list[str]:
    """Each bound: what was asked, and what the chosen network reached."""
    lines = []
    for kind, bound in (result.get("budget") or {}).items():
        asked, reached = (
            f"{QUANTITIES[kind].written(bound[key])} ({bound[key] / bound['dense']:.1%} of dense)"
            for key in ("bound", "reached")
        )
        lines.append(f"budget: {asked}; reached {reached}")
    return lines


def tables(result: Mapping[str, Any]) -> list[Table]:
    """The tables of all stages that `result.json` tells of."""
    found = []
    if "policies" in result:
        found.append(_networks(result))
    if any(not layout.is_compared(name) for name in result.get("tflite", {})):
        found.append(_files(result))
    if "sparse" in result:
        found.append(_rounds(result["sparse"]))
    return found


def _rounds(sparse: Mapping[str, Any]) -> Table:
    header = (
        "fine-grained pruning",
        "density",
        "before fine-tuning",
        "accuracy",
        "MACs not zero",
        "parameters not zero",
    )
    rows = [
        (
            f"{layout.SPARSE}/{layout.round_model(number).name}",
            f"{found['density']:.1%}",
            percent(found["before"]),
            percent(found["accuracy"]),
            f"{found['macs']:,}",
            f"{found['params']:,}",
        )
        for number, found in enumerate(sparse["rounds"], start=1)
    ]
    start = ("before", "100.0%", "", percent(sparse["dense"]["accuracy"]), "", "")
    return Table("Fine-grained pruning", header, [start, *rows])


def _networks(result: Mapping[str, Any]) -> Table:
    files = result.get("tflite", {})
    chosen = result["chosen"]
    header = ("network", "accuracy", "fine-tuned", "MACs", "parameters", "float32 file", "latency")
    rows = [_row("dense", result["dense"], files.get(layout.compared_file("dense")))]
    for name, policy in result["policies"].items():
        own = layout.tflite_file("float32") if name == chosen else layout.compared_file(name)
        label = policy_label(name) + (" *" if name == chosen else "")
        rows.append(_row(label, policy, files.get(own)))
    note = "* the network that was exported; accuracy on the test data"
    return Table("Networks", header, rows, note)


def _files(result: Mapping[str, Any]) -> Table:
    exported = [(n, f) for n, f in result["tflite"].items() if not layout.is_compared(n)]
    exported.insert(0, (layout.FINETUNED.name, result["finetuned"]))
    return Table(
        "Files",
        ("file", "accuracy", "bytes", "latency (range)", "max abs error", "agreement", ""),
        [_file_row(name, file) for name, file in exported],
        "accuracy of the file itself, run by LiteRT; latency on this host: of .tflite files "
        "one thread in fresh processes, of Keras a compiled graph with all threads",
    )


def _row(label: str, measures: Mapping[str, Any], file: Mapping[str, Any] | None) -> tuple:
    tuned = measures.get("finetuned_accuracy")
    return (
        label,
        f"{measures['accuracy']:.2%}",
        percent(tuned),
        f"{measures['macs']:,}",
        f"{measures['params']:,}",
        "" if file is None else f"{file['bytes']:,}",
        "" if file is None else f"{file['latency_ms']:.3f} ms",
    )


def _file_row(name: str, file: Mapping[str, Any]) -> tuple:
    spread = f"({file['latency_ms_min']:.3f} to {file['latency_ms_max']:.3f})"
    return (
        name,
        f"{file['accuracy']:.2%}",
        f"{file['bytes']:,}",
        f"{file['latency_ms']:.3f} ms {spread}",
        f"{file['max_abs_error']:.2g}" if "max_abs_error" in file else "",
        percent(file.get("agreement")),
        "" if file.get("within_tolerance", True) else "WORSE than the tolerance",
    )
