"""What the choice among the best plans of a search rested on, as a part of `result.json`."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from amc_tf.runs.result_parts import Part, record
from amc_tf.runs.vocabulary import policy_label
from amc_tf.training.metric import Metric

# What decides besides the measures of `amc_tf.training.divergence`.
BY_SCORE, BY_REWARD = "score", "reward"


@dataclasses.dataclass(frozen=True)
class Candidate(Part):
    """A plan that might have been chosen.

    Attributes:
        policy: name of its policy.
        score: its score on the validation data.
        behind: by how much it is worse than the best score.
        standard_error: standard error of that difference; None if it is not known.
        divergence: distance of its outputs from the dense network's; None if it is not known.
    """

    policy: str
    score: float
    behind: float = 0.0
    standard_error: float | None = None
    divergence: float | None = None


@dataclasses.dataclass(frozen=True)
class Choice(Part):
    """How a plan was chosen.

    Attributes:
        by: what decided: `score`; `reward`, where it prices a cost; or the measure by which its
            outputs are nearest the dense network's.
        candidates: plans whose scores are within one standard error of the best one, the chosen
            plan first; only that plan, where nothing is known of the standard errors.
        samples: number of validation samples; None if it is not known.
    """

    by: str
    candidates: tuple[Candidate, ...]
    samples: int | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Choice:
        """Reads the output of `to_json`."""
        candidates = tuple(map(Candidate.from_json, content.get("candidates", ())))
        return record(cls, {**content, "candidates": candidates})

    def sentence(self, metric: Metric) -> str:
        """Says which plans cannot be told apart, and what decided; empty if the score did alone."""
        if self.by == BY_REWARD:
            return "the plan was chosen by the reward, which prices the cost"
        if len(self.candidates) < 2:
            return ""
        plans = collections.Counter(policy_label(c.policy) for c in self.candidates)
        counted = ", ".join(f"{count} of {label}" for label, count in plans.items())
        samples = "the" if self.samples is None else f"{self.samples:,}"
        told = (
            f"the best plans ({counted}) cannot be told apart by {metric.title} on {samples} "
            f"validation samples; one of {policy_label(self.candidates[0].policy)} was chosen"
        )
        if self.by == BY_SCORE:
            return f"{told}, whose score is the best by chance, as the outputs cannot be compared"
        return (
            f"{told}, whose outputs are nearest the dense network's ({self.by} "
            f"{self.candidates[0].divergence:.3g})"
        )
