"""The words and numbers of a run's metric in tables and charts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from amc_tf.runs.result import ExportResult, RunResult, SparseResult
from amc_tf.runs.result_parts import record
from amc_tf.training.metric import ACCURACY, Metric
from amc_tf.training.uncertainty import Uncertainty


@dataclasses.dataclass(frozen=True)
class Scores:
    """How the scores of a run are written.

    Attributes:
        metric: what they are; an accuracy for runs of versions that knew nothing else.
        uncertainty: how uncertain they are.
        episode_samples: number of validation samples of an episode's score; None if unknown.
    """

    metric: Metric = ACCURACY
    uncertainty: Uncertainty = Uncertainty()
    episode_samples: int | None = None

    @classmethod
    def of(cls, result: RunResult | ExportResult | SparseResult) -> Scores:
        """Returns those of the content of a `result.json`."""
        uncertainty = result.uncertainty if isinstance(result, RunResult) else None
        return cls(result.metric or ACCURACY, uncertainty or Uncertainty())

    @classmethod
    def of_search(cls, search: Mapping[str, Any], result: RunResult) -> Scores:
        """Returns those of a run from its `search.json`, else from its `result.json`."""
        if "metric" not in search:
            return cls.of(result)
        uncertainty = search.get("uncertainty", {})
        return cls(
            record(Metric, search["metric"]),
            record(Uncertainty, uncertainty),
            search.get("episode_samples"),
        )

    def for_all(self, scores: Iterable[float]) -> Scores:
        """Returns these, without percentages if some scores are no fractions after all."""
        if not self.metric.fraction or all(0 <= score <= 1 for score in scores):
            return self
        return dataclasses.replace(self, metric=dataclasses.replace(self.metric, fraction=False))

    def cell(self, score: float | None) -> str:
        """Formats a final score, with its standard error if that is known; None as no text."""
        if score is None:
            return ""
        return self.uncertainty.cell(self.metric, score, self.metric.data)

    def number(self, score: float | None) -> str:
        """Formats a score without its standard error; None as no text."""
        return "" if score is None else self.metric.number(score)

    @property
    def note(self) -> str:
        """What the final scores are, for a note under a table."""
        better = "" if self.metric.mode == "max" else f" ({self.metric.better})"
        known = self.uncertainty.standard_error(self.metric, 0.5, self.metric.data) is not None
        error = ", ± its standard error" if known else ""
        return f"{self.metric.title}{better} on the {self.metric.data} data{error}"

    @property
    def axis(self) -> str:
        """Title of the axis of the search's scores."""
        title = f"validation {self.metric.title}"
        return title if self.metric.mode == "max" else f"{title} ({self.metric.better})"

    @property
    def part(self) -> str:
        """Says on how many samples episodes were scored; an empty text if on all, or unknown."""
        every = self.uncertainty.samples.get("validation")
        if not every or not self.episode_samples or self.episode_samples >= every:
            return ""
        return (
            f" An episode's plan was scored on {self.episode_samples:,} of {every:,} samples, the "
            "best plans then on all."
        )

    @property
    def ticks(self) -> str:
        """Number format of an axis, in the language of d3."""
        return ".3~p" if self.metric.fraction else ".4~g"

    @property
    def form(self) -> str:
        """Number format of a single score, in the language of d3."""
        return ".2%" if self.metric.fraction else ".4~g"

    def spread(self, dense: float | None) -> str:
        """Says how uncertain the scores of episodes are; an empty text if that is unknown.

        Args:
            dense: score of the dense network on the validation data, if it is known.
        """
        if dense is None:
            return ""
        uncertainty = self.uncertainty
        if self.episode_samples:
            samples = {**uncertainty.samples, "validation": self.episode_samples}
            uncertainty = dataclasses.replace(uncertainty, samples=samples)
        cell = uncertainty.cell(self.metric, dense, "validation")
        if "±" not in cell:
            return ""
        count = uncertainty.samples["validation"]
        error = cell.rpartition("± ")[2]
        return f"standard error {error} of a score like the dense network's ({count:,} samples)"
