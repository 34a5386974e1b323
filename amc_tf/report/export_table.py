"""The closing table of `amc-export` for a file."""

from __future__ import annotations

from amc_tf.errors import printable
from amc_tf.report.scores import Scores
from amc_tf.report.speeds import slower_than_float
from amc_tf.report.table import aligned, milliseconds, percent
from amc_tf.runs.result import ExportResult
from amc_tf.runs.result_parts import Exported
from amc_tf.training.metric import Metric


def table(result: ExportResult, tolerance: float) -> str:
    """Returns the result of `export_model` as text: a row for each file, then notes."""
    scores = Scores.of(result)
    header = ("file", scores.metric.title, "agreement", "max abs error", "bytes", "latency", "")
    score = None if result.keras is None else result.keras.score
    rows = [header, ("Keras", scores.number(score), *[""] * 5)]
    notes = []
    for name, file in result.tflite.items():
        mark = "" if file.within_tolerance else "WORSE"
        rows.append(
            (
                name,
                scores.number(file.score),
                percent(file.agreement),
                f"{file.max_abs_error:.2g}",
                f"{file.bytes:,}",
                milliseconds(file.latency),
                mark,
            )
        )
        notes += _notes(name, file, tolerance, scores.metric)
    notes += [f"{name}: {text}" for name, text in slower_than_float(result.tflite).items()]
    return "\n".join([*aligned(rows), *map(printable, notes)])


def _notes(name: str, file: Exported, tolerance: float, metric: Metric) -> list[str]:
    notes = []
    if not file.within_tolerance:
        worst = ", ".join(f"{n} ({e:.1%})" for n, e in file.worst_tensors.items())
        amount = f"{tolerance:g}" if metric.fraction else f"{tolerance:.4g} of it"
        notes.append(f"{name}: {metric.title} is worse than Keras' by more than {amount}")
        if worst:
            notes.append(f"  error arises most at: {worst}")
    for what, names in (
        ("float operators", file.float_operators),
        ("operators of the Flex delegate", file.flex_operators),
        ("layers trained without rounding", file.float_layers),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            notes.append(f"{name}: {what}: {', '.join(names[:5])}{more}")
    if file.sparse_weights:
        kept = file.sparse_weights.values()
        notes.append(
            f"{name}: {len(kept)} weights without their zeros, {min(kept):.0%} to {max(kept):.0%} "
            "kept; LiteRT makes most of them dense again when it loads them (see docs/export.md)"
        )
    return notes
