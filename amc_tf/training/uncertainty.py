"""How uncertain a score is, because it is measured on a sample of data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from amc_tf.training.metric import Metric

# Above this share of the metric's unit, a standard error hides the differences between plans.
_TOO_UNCERTAIN = 0.05


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """What the standard errors of scores follow from.

    Attributes:
        samples: number of samples of each kind of data, `validation` and `test`, where it is
            known. A dataset's may be an estimate from its number of batches.
        deviation: standard error of the dense network's score on the validation data times the
            root of their number, so that it holds for other numbers of samples; None if unknown.
    """

    samples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    deviation: float | None = None

    def standard_error(self, metric: Metric, score: float, data: str) -> float | None:
        """Returns the standard error of a score; None if it is not known.

        The standard error of a share of right samples follows from the share (with two right and
        two wrong samples added, as Agresti and Coull advise: ten of ten right are no certainty).
        That of any other metric is the dense network's.

        Args:
            metric: what the score is.
            score: the score.
            data: the data it was measured on, `validation` or `test`.
        """
        count = self.samples.get(data)
        if not count or self.deviation is None:
            return None
        if metric.per_sample and 0 <= score <= 1:
            share = (score * count + 2) / (count + 4)
            return math.sqrt(share * (1 - share) / (count + 4))
        return self.deviation / math.sqrt(count)

    def cell(self, metric: Metric, score: float, data: str) -> str:
        """Formats a score with its standard error, where that is known."""
        error = self.standard_error(metric, score, data)
        return metric.number(score) + ("" if error is None else f" ± {_like(metric, score, error)}")

    def sentence(self, metric: Metric, score: float) -> str:
        """Says how uncertain the scores of a search are."""
        count, error = self.samples.get("validation"), self._of_search(metric, score)
        samples = "an unknown number of" if count is None else f"{count:,}"
        spread = "unknown" if error is None else _like(metric, score, error)
        return (
            f"plans are scored by {metric.title} ({metric.better}) on {samples} validation "
            f"samples; the dense network has {metric.number(score)}, with a standard error of "
            f"{spread}"
        )

    def warning(self, metric: Metric, score: float) -> str:
        """Says that plans cannot be told apart, if so; else an empty text."""
        error, unit = self._of_search(metric, score), metric.unit(score)
        if error is None or error <= _TOO_UNCERTAIN * unit:
            return ""
        of = "" if unit == 1.0 else f" of {unit:.4g}"
        return (
            f"plans whose {metric.title} differs by less than about "
            f"{_like(metric, score, 2 * error)} cannot be told apart: the standard error of a "
            f"score is more than {_TOO_UNCERTAIN:.0%}{of}; give more validation data"
        )

    def _of_search(self, metric: Metric, score: float) -> float | None:
        return self.standard_error(metric, score, "validation")


def _like(metric: Metric, score: float, error: float) -> str:
    """Formats a standard error as its score is."""
    return f"{error:.2%}" if metric.number(score).endswith("%") else f"{error:.2g}"
