"""What came of a run: a verdict in a sentence, what to beware of, and the figures in large."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from amc_tf.report.run import Run
from amc_tf.report.speeds import slower_than_float
from amc_tf.runs import layout
from amc_tf.runs.result_parts import Exported
from amc_tf.runs.vocabulary import QUANTITIES

# Times that differ by less are as good as equal.
_ALIKE = 0.05


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure in large print.

    Attributes:
        name: what it is of.
        value: the figure.
        detail: what to compare it with.
        bad: whether it is worse than before.
    """

    name: str
    value: str
    detail: str
    bad: bool = False


def verdict(run: Run) -> str:
    """Returns a sentence on what came out; empty before the search has ended."""
    result = run.result
    if result.dense is None or result.pruned is None or not result.policies:
        return ""
    work = f"{result.pruned.macs / result.dense.macs:.0%} of the MACs"
    score = f"{run.scores.metric.data} {_score(run)}"
    best = _best_file(run)
    if best is None:
        done = "it is not exported yet" if result.finetuned else "it is not fine-tuned yet"
        return f"The pruned network has {work} and {score}; {done}."
    name, file, dense = best
    size = _times(dense.bytes / file.bytes, "smaller", "larger", "as large")
    speed = ""
    if file.latency is not None and dense.latency is not None:
        ratio = dense.latency.median_ms / file.latency.median_ms
        speed = f" and {_times(ratio, 'faster', 'slower', 'as fast')}"
    return f"{name} is {size}{speed} than the dense float32 file, with {work} and {score}."


def warnings(run: Run) -> list[str]:
    """Returns what a reader should know before the figures, as sentences."""
    return list(_warnings(run))


def _warnings(run: Run) -> Iterator[str]:
    result, scores = run.result, run.scores
    slow = slower_than_float(result.tflite)
    for name, file in result.tflite.items():
        if layout.is_compared(name):
            continue
        if not file.within_tolerance:
            tuned = result.finetuned
            keras = "" if tuned is None else f" where Keras has {scores.number(tuned.score)}"
            yield f"{name} lost more than its tolerance: {scores.number(file.score)}{keras}"
        if name in slow:
            yield f"{name} is {slow[name]}"
    if result.policies and scores.metric.data != "test":
        yield (
            "there were no test data: all scores are of the data by which the plan was chosen, and "
            "so better than on others"
        )
    dense = run.dense.get("score")
    if dense is not None and (unsure := scores.uncertainty.warning(scores.metric, dense)):
        yield unsure
    tuned = result.finetuned
    if tuned is not None and tuned.undone:
        yield "fine-tuning made the network worse, so that the one from before it is used"
    known = result.dense
    if tuned is None or not tuned.trained or known is None or known.longer_score is not None:
        return
    if scores.metric.gain(tuned.score) > scores.metric.gain(known.score):
        yield (
            "the pruned network was trained for longer than the dense one, which may be all of its "
            'gain: FineTuneSettings(compare=("dense_longer",)) trains both for as long'
        )


def figures(run: Run) -> list[Figure]:
    """Returns the figures to show in large print; none before the search has ended."""
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
        if before and after:
            asked = f"; asked {bound.bound / before:.1%}" if bound else ""
            amount, better = QUANTITIES[kind].amount, "faster" if kind == "latency" else "fewer"
            worse = "slower" if kind == "latency" else "more"
            detail = f"{amount(after)} of {amount(before)}, {after / before:.1%}{asked}"
            value = _times(before / after, better, worse, "as many")
            found.append(Figure(QUANTITIES[kind].title, value, detail, after > before))
    scores = run.scores
    detail = _against_dense(run) + f" ({scores.cell(dense.score)})"
    name = f"{scores.metric.data} {scores.metric.title}"
    if tuned is None:
        found.append(Figure(f"{name}, not fine-tuned", scores.cell(pruned.score), detail))
    else:
        how = "fine-tuning" if tuned.trained else "recovery" if result.recoveries else ""
        detail += f"; before {how} {scores.cell(pruned.score)}" if how else "; not fine-tuned"
        found.append(Figure(name, scores.cell(tuned.score), detail))
    return found + _file_figures(run)


def _file_figures(run: Run) -> list[Figure]:
    dense, fit = run.result.tflite.get(layout.compared_file("dense")), run.files
    if dense is None or not fit:
        return []
    own = [name for name in run.result.tflite if not layout.is_compared(name)]
    within = " within the tolerance" if len(fit) < len(own) else ""
    small = min(fit, key=lambda name: fit[name].bytes)
    size = fit[small].bytes
    found = [
        Figure(
            f"smallest file{within}",
            _times(dense.bytes / size, "smaller", "larger", "as large"),
            f"{small}: {size:,} of {dense.bytes:,} bytes of dense float32",
            size > dense.bytes,
        )
    ]
    times = {name: file.latency.median_ms for name, file in fit.items() if file.latency}
    if dense.latency is not None and times:
        fast, whole = min(times, key=times.__getitem__), dense.latency.median_ms
        ratio = whole / times[fast]
        found.append(
            Figure(
                f"fastest file{within}",
                _times(ratio, "faster", "slower", "as fast"),
                f"{fast}: {times[fast]:.4g} of {whole:.4g} ms of dense float32 on this host",
                ratio < 1 - _ALIKE,
            )
        )
    return found


def _best_file(run: Run) -> tuple[str, Exported, Exported] | None:
    """Returns the fastest file within the tolerance, else the smallest, and the dense one."""
    dense, fit = run.result.tflite.get(layout.compared_file("dense")), run.files
    if dense is None or not fit:
        return None

    def rank(name: str) -> tuple[float, int]:
        latency = fit[name].latency
        return (0.0 if latency is None else latency.median_ms, fit[name].bytes)

    best = min(fit, key=rank)
    return best, fit[best], dense


def _score(run: Run) -> str:
    """Writes the score of the network that is shipped, beside the dense network's."""
    found = run.result.finetuned or run.result.pruned
    assert found is not None  # both callers have looked
    return f"{run.scores.metric.written(found.score)}, {_against_dense(run)}"


def _against_dense(run: Run) -> str:
    """Says how far a score is from the dense network's, which way and beyond chance or not."""
    dense, found = run.result.dense, run.result.finetuned or run.result.pruned
    assert dense is not None and found is not None
    metric, difference = run.scores.metric, found.score - dense.score
    if difference == 0:
        return "equal to dense"
    share = metric.number(dense.score).endswith("%") and metric.number(found.score).endswith("%")
    if share:
        size = f"{abs(difference) * 100:.2g} points"
    elif dense.score:
        size = f"{abs(difference / dense.score):.1%}"
    else:
        size = f"{abs(difference):.3g}"
    error = run.scores.uncertainty.standard_error(metric, dense.score, metric.data)
    doubt = ", within its standard error" if error is not None and abs(difference) < error else ""
    return f"{size} {'above' if difference > 0 else 'below'} dense{doubt}"


def _times(ratio: float, better: str, worse: str, alike: str) -> str:
    """Writes how many times better something is: `2.0x smaller`, `1.3x slower`."""
    if abs(ratio - 1) <= _ALIKE:
        return alike
    return f"{ratio:.1f}x {better}" if ratio > 1 else f"{1 / ratio:.1f}x {worse}"
