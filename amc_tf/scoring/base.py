"""What every scorer can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from amc_tf.graph.plan import Plan, PlanT, PlanT_contra, PruningPlan
from amc_tf.pruning.refit.methods import Refit


class Scorer(Protocol[PlanT_contra]):
    """Scores plans on the task's validation data."""

    def __call__(self, plan: PlanT_contra | None, beat: float | None = None) -> float:
        """The accuracy of the network under a plan (None: dense), before fine-tuning.

        Args:
            plan: the plan.
            beat: an accuracy of which it is enough to know that the plan's is
                well below; its estimate from part of the images then does.

        Raises:
            AmcError: the user's metric or evaluate does not give a usable number.
        """
        ...

    def can_change(self, weights: Mapping[str, np.ndarray]) -> bool:
        """Whether a refit may change these weights of the model, by `layer/weight`."""
        ...

    def refitted_by(self, refit: Refit[PlanT_contra]) -> Scorer[PlanT_contra]:
        """This scorer with another refit; both may be used."""
        ...

    def run(self, plan: PlanT_contra | None) -> Iterator[list[np.ndarray]]:
        """Runs the network under a plan, a batch of the validation data at a time.

        Yields:
            One array (images, ...) for each model output.
        """
        ...

    def outputs(self, plan: PlanT_contra | None) -> list[np.ndarray]:
        """What `run` yields, for all of the validation data at once."""
        ...


def refitted_weights(refit: Refit[PlanT] | None, plan: PlanT | None) -> dict[str, np.ndarray]:
    """The weights that a plan is scored with beside the model's own, by `layer/weight`."""
    return {} if refit is None or plan is None else refit.refit(plan)


def channels(plan: Plan | None) -> PruningPlan | None:
    """What a plan says of channels; None where it keeps them all."""
    return plan if isinstance(plan, PruningPlan) else None


def concatenated(batches: Iterator[list[np.ndarray]]) -> list[np.ndarray]:
    """The outputs of all batches, each output as one array."""
    return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
