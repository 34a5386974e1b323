"""The number by which networks are compared: which way is better, and how it is written.

It needs neither TensorFlow nor Keras; `directions` finds out what a model's own metric is.
"""

from __future__ import annotations

import dataclasses

MODES = ("max", "min")


@dataclasses.dataclass(frozen=True)
class Metric:
    """The task's metric.

    Attributes:
        name: name under which the model reports it.
        mode: `max` if more is better, `min` if less is.
        title: name in tables and charts, such as "MAE".
        fraction: whether it is a share of 1, which is written as a percentage.
        per_sample: whether it is the share of samples that are right, so that its standard error
            follows from the share itself.
        signed: whether it may be below zero although less is better (the loss of cosine
            similarity, for instance).
        data: name of the data that the final results are measured on: `test`, or `validation` for
            a task without test data. The search always measures the validation data.
    """

    name: str = "accuracy"
    mode: str = "max"
    title: str = "accuracy"
    fraction: bool = True
    per_sample: bool = True
    signed: bool = False
    data: str = "test"

    def gain(self, score: float) -> float:
        """Returns the score on a scale where more is better, whatever the mode."""
        return score if self.mode == "max" else -score

    def error(self, score: float) -> float:
        """Returns what stands in the place of the paper's error; less is better.

        It is one minus a fraction of which more is better, the value itself where less is better,
        and the negative value of any other metric.
        """
        return 1 - score if self.fraction and self.mode == "max" else -self.gain(score)

    @property
    def has_error(self) -> bool:
        """Whether `error` measures from zero, the best, so that a cost can price it."""
        return self.fraction if self.mode == "max" else not self.signed

    def unit(self, score: float) -> float:
        """Returns what differences from a score are compared with.

        That is 1 for a fraction, and the score's own size for metrics of any size.
        """
        return 1.0 if self._is_share(score) else abs(score)

    def _is_share(self, score: float) -> bool:
        # What the user's evaluate returns was only said to be a fraction.
        return self.fraction and 0 <= score <= 1

    def number(self, score: float) -> str:
        """Formats a score: a fraction as a percentage, any other with four digits."""
        return f"{score:.2%}" if self._is_share(score) else f"{score:.4g}"

    def written(self, score: float) -> str:
        """Formats a score with the metric's title, for a sentence."""
        return f"{self.title} {self.number(score)}"

    @property
    def better(self) -> str:
        """Which way is better, in words."""
        return "higher is better" if self.mode == "max" else "lower is better"


ACCURACY = Metric()  # the paper's
