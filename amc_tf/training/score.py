"""The score of a plan, and what else one pass over the validation data says of it."""

from __future__ import annotations


class Score(float):
    """A score: the value of the task's metric.

    It lies here, and not beside the scorers, because logs and rewards are made of it, too.

    Attributes:
        divergence: how far the outputs are from the dense network's, at most
            `amc_tf.training.divergence.FARTHEST`; None if that was not measured.
        cut: whether score and divergence are estimates from part of the samples, of a plan that
            is hopeless against the one to beat.
    """

    divergence: float | None
    cut: bool

    def __new__(cls, value: float, divergence: float | None = None, cut: bool = False) -> Score:
        """Makes the score of a value."""
        score = super().__new__(cls, value)
        score.divergence = divergence
        score.cut = cut
        return score

    @classmethod
    def of(cls, value: float) -> Score:
        """Returns a number as a score; a score is returned as it is."""
        return value if isinstance(value, Score) else cls(value)
