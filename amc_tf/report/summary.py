"""What came of a run: a verdict in a sentence, what to beware of, and the figures in large."""

from __future__ import annotations

import dataclasses
import math
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
    macs = result.dense.macs
    work = f"{result.pruned.macs / macs:.0%} of the MACs" if macs else "no MACs"
    best = _best_file(run)
    if best is None:
        score = _written(run, (result.finetuned or result.pruned).score)
        done = "is not fine-tuned yet" if result.finetuned is None else "is not exported yet"
        if result.tflite:
            done = "has no file within the tolerance beside the dense network's"
        return f"The pruned network has {work} and {score}; it {done}."
    name, file, dense = best
    size = _times(dense.bytes, file.bytes, "smaller", "larger", "as large")
    speed = ""
    if file.latency is not None and dense.latency is not None:
        times = dense.latency.median_ms, file.latency.median_ms
        speed = f" and {_times(*times, 'faster', 'slower', 'as fast')}"
    score = _written(run, file.score)
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
    gains = scores.metric.gain(tuned.score) > scores.metric.gain(known.score)
    if gains and scores.number(tuned.score) != scores.number(known.score):
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
            value = _times(before, after, better, worse, "as many")
            found.append(Figure(QUANTITIES[kind].title, value, detail, after > before))
    scores = run.scores
    detail = f"{_against_dense(run, (tuned or pruned).score)} ({scores.cell(dense.score)})"
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
            _times(dense.bytes, size, "smaller", "larger", "as large"),
            f"{small}: {size:,} of {dense.bytes:,} bytes of dense float32",
            size > dense.bytes,
        )
    ]
    times = {name: file.latency.median_ms for name, file in fit.items() if file.latency}
    if dense.latency is not None and times:
        fast, whole = min(times, key=times.__getitem__), dense.latency.median_ms
        found.append(
            Figure(
                f"fastest file{within}",
                _times(whole, times[fast], "faster", "slower", "as fast"),
                f"{fast}: {times[fast]:.4g} of {whole:.4g} ms of dense float32 on this host",
                whole < times[fast] * (1 - _ALIKE),
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
        return (math.inf if latency is None else latency.median_ms, fit[name].bytes)

    best = min(fit, key=rank)
    return best, fit[best], dense


def _written(run: Run, score: float) -> str:
    """Writes a score on the final data, beside the dense network's."""
    metric = run.scores.metric
    return f"{metric.data} {metric.written(score)}, {_against_dense(run, score)}"


def _against_dense(run: Run, score: float) -> str:
    """Says how far a score is from the dense network's, which way, and whether that is chance."""
    dense = run.result.dense
    assert dense is not None  # all callers have looked
    metric, difference = run.scores.metric, score - dense.score
    if not math.isfinite(difference):
        return "which cannot be compared with dense"
    if metric.number(score) == metric.number(dense.score):
        return "equal to dense"
    way = "above" if difference > 0 else "below"
    if all(metric.number(s).endswith("%") for s in (score, dense.score)):
        points = abs(difference) * 100
        size = f"{points:.1f} points" if points >= 0.1 else f"{points:.2f} points"
    else:
        size = f"{abs(difference / dense.score):.1%}" if dense.score else f"{abs(difference):.3g}"
    error = run.scores.uncertainty.standard_error(metric, dense.score, metric.data)
    doubt = ", within its standard error" if error is not None and abs(difference) < error else ""
    return f"{size} {way} dense{doubt}"


def _times(before: float, after: float, better: str, worse: str, alike: str) -> str:
    """Writes how many times better something is: `2.0x smaller`, `1.3x slower`."""
    if not before or not after or abs(before / after - 1) <= _ALIKE:
        return alike
    return f"{before / after:.1f}x {better}" if before > after else f"{after / before:.1f}x {worse}"
