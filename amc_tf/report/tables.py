"""The closing tables of a run as text; `amc_tf.report.html` shows the same on a page."""

from __future__ import annotations

from amc_tf.report.scores import Scores
from amc_tf.report.speeds import slower_than_float
from amc_tf.report.table import Table, aligned, milliseconds, percent
from amc_tf.runs import layout
from amc_tf.runs.result import RunResult, SparseResult
from amc_tf.runs.result_parts import DenseNetwork, Exported, Milliseconds, PolicyNetwork
from amc_tf.runs.vocabulary import QUANTITIES, policy_label


def table(result: RunResult) -> str:
    """Returns the budget and the results of a run as text.

    Args:
        result: the content of `result.json`, of all stages run so far.

    Returns:
        The budget's lines, then the tables of the networks, of the exported files and of the
        rounds of fine-grained pruning, as far as there are any, then the seconds.
    """
    lines = budget_lines(result)
    for shown in tables(result):
        lines += aligned([shown.header, *shown.rows])
        lines += [*([shown.note] if shown.note else []), ""]
    seconds = (f"{name} {value:.1f}" for name, value in result.seconds.items())
    lines.append("seconds: " + ", ".join(seconds))
    return "\n".join(lines)


def budget_lines(result: RunResult) -> list[str]:
    """Returns a line for each bound: the bound itself, and the chosen network's cost."""
    lines = []
    for kind, bound in (result.budget or {}).items():
        asked, reached = (
            f"{QUANTITIES[kind].written(value)} ({value / bound.dense:.1%} of dense)"
            for value in (bound.bound, bound.reached)
        )
        lines.append(f"budget: {asked}; reached {reached}")
    return lines


def tables(result: RunResult) -> list[Table]:
    """Returns the tables of all stages that are in `result.json`."""
    found = []
    scores = Scores.of(result)
    if result.dense is not None and result.policies:
        found.append(_networks(result.dense, result, scores))
    if any(not layout.is_compared(name) for name in result.tflite):
        found.append(_files(result, scores))
    if result.sparse is not None:
        own = result.sparse.metric is not None  # not in files of earlier versions
        found.append(_rounds(result.sparse, Scores.of(result.sparse) if own else scores))
    return found


def _rounds(sparse: SparseResult, scores: Scores) -> Table:
    header = (
        "fine-grained pruning",
        "density",
        "before fine-tuning",
        scores.metric.title,
        "MACs not zero",
        "parameters not zero",
    )
    rows = [
        (
            f"{layout.SPARSE}/{layout.round_model(number).name}",
            f"{found.density:.1%}",
            scores.number(found.before),
            scores.number(found.score),
            f"{found.macs:,}",
            f"{found.params:,}",
        )
        for number, found in enumerate(sparse.rounds, start=1)
    ]
    before = None if sparse.dense is None else sparse.dense.score
    start = ("before", "100.0%", "", scores.number(before), "", "")
    note = f"{scores.metric.title} on the {scores.metric.data} data"
    return Table("Fine-grained pruning", header, [start, *rows], note)


def _networks(dense: DenseNetwork, result: RunResult, scores: Scores) -> Table:
    files, chosen = result.tflite, result.chosen
    title = scores.metric.title
    trained = result.finetuned is None or result.finetuned.trained
    after = "fine-tuned" if trained else "recovered" if result.recoveries else "not fine-tuned"
    header = ("network", title, after, "MACs", "parameters", "float32 file", "latency")
    own = files.get(layout.compared_file("dense"))
    rows = [_row(scores, "dense", dense, dense.longer_score, own)]
    for name, policy in result.policies.items():
        own = layout.tflite_file("float32") if name == chosen else layout.compared_file(name)
        label = policy_label(name) + (" *" if name == chosen else "")
        rows.append(_row(scores, label, policy, policy.finetuned_score, files.get(own)))
    made = "exported" if files else "chosen"
    how = "" if result.choice is None else result.choice.sentence(scores.metric)
    note = f"* the network that was {made}; {scores.note}{f'; {how}' if how else ''}"
    return Table("Networks", header, rows, note)


def _remarks(file: Exported, slower: str) -> str:
    """Says whether a file is beyond the tolerance, and since where, and whether it is slow."""
    worst = ", ".join(list(file.worst_tensors)[:2])
    beyond = f"WORSE than the tolerance{f', most in {worst}' if worst else ''}"
    return "; ".join(filter(None, ("" if file.within_tolerance else beyond, slower)))


def _files(result: RunResult, scores: Scores) -> Table:
    slower = slower_than_float(result.tflite)
    rows = [
        (
            *_file(name, scores.number(file.score), file.bytes, file.latency),
            f"{file.max_abs_error:.2g}",
            percent(file.agreement),
            _remarks(file, slower.get(name, "")),
        )
        for name, file in result.tflite.items()
        if not layout.is_compared(name)
    ]
    if (tuned := result.finetuned) is not None:
        score = scores.number(tuned.score)
        first = _file(layout.FINETUNED.name, score, tuned.bytes, tuned.latency)
        rows.insert(0, (*first, "", "", ""))
    return Table(
        "Files",
        ("file", scores.metric.title, "bytes", "latency (range)", "max abs error", "agreement", ""),
        rows,
        f"{scores.metric.title} of the file itself on the {scores.metric.data} data, run by "
        "LiteRT; latency on this host: of .tflite files "
        "one thread in fresh processes, of Keras a compiled graph with all threads",
    )


def _row(
    scores: Scores,
    label: str,
    network: DenseNetwork | PolicyNetwork,
    tuned: float | None,
    file: Exported | None,
) -> tuple[str, ...]:
    return (
        label,
        scores.cell(network.score),
        scores.cell(tuned),
        f"{network.macs:,}",
        f"{network.params:,}",
        "" if file is None else f"{file.bytes:,}",
        "" if file is None else milliseconds(file.latency),
    )


def _file(name: str, score: str, size: int | None, latency: Milliseconds | None) -> tuple[str, ...]:
    spread = "" if latency is None else f" ({latency.min_ms:.4g} to {latency.max_ms:.4g})"
    return (
        name,
        score,
        "" if size is None else f"{size:,}",
        milliseconds(latency) + spread,
    )
