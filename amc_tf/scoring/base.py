"""The interface of all scorers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from amc_tf.graph.plan import Plan, PlanT, PlanT_contra, PruningPlan
from amc_tf.pruning.refit.methods import Refit
from amc_tf.scoring.batches import Batch
from amc_tf.training.score import Score


class Scorer(Protocol[PlanT_contra]):
    """A function that scores plans on the task's validation data."""

    def __call__(self, plan: PlanT_contra | None, beat: float | None = None) -> Score:
        """Returns the score of the network under a plan, before fine-tuning.

        A scorer that was asked to compare outputs measures the divergence, too, once the dense
        network was scored.

        Args:
            plan: the plan; None for the dense network.
            beat: score to beat; a `Score` with a divergence is beaten by a smaller one. Where the
                plan's is well behind it, estimates from part of the images may be returned.

        Raises:
            AmcError: the user's metric or evaluate does not give a usable number.
        """
        ...

    def no_divergence(self) -> str | None:
        """Returns why scores have no divergence, in words; None if they have one.

        It is to be asked when the dense network was scored: only then is it known whether data
        comes in the same order each time.
        """
        ...

    def can_change(self, weights: Mapping[str, np.ndarray]) -> bool:
        """Returns whether a refit may change these weights of the model, by `layer/weight`."""
        ...

    def refitted_by(self, refit: Refit[PlanT_contra]) -> Scorer[PlanT_contra]:
        """Makes a scorer like this one with another refit; both may be used."""
        ...

    def on_part(self, images: int) -> Scorer[PlanT_contra]:
        """Makes a scorer like this one of part of the validation data.

        It is to be asked when the dense network was scored. Samples are chosen at random by what
        they hold, so that neither their order nor the batches say which. Where data may be
        another in each pass, or its samples have different shapes, it is this scorer itself.

        Args:
            images: number of samples.
        """
        ...

    @property
    def images(self) -> int | None:
        """Number of samples of a scorer of part of the data; None of one of all."""
        ...

    def run(self, plan: PlanT_contra | None) -> Iterator[list[np.ndarray]]:
        """Runs the network under a plan, a batch of the validation data at a time.

        Yields:
            One array (images, ...) for each model output.
        """
        ...

    def played(self, plan: PlanT_contra | None) -> Iterator[tuple[Batch, list[np.ndarray]]]:
        """Runs the network as `run` does, and yields each batch beside its outputs."""
        ...

    def outputs(self, plan: PlanT_contra | None) -> list[np.ndarray]:
        """Returns what `run` yields, for all of the validation data at once."""
        ...


def refitted_weights(refit: Refit[PlanT] | None, plan: PlanT | None) -> dict[str, np.ndarray]:
    """Returns the weights that a refit changes when a plan is scored, by `layer/weight`."""
    return {} if refit is None or plan is None else refit.refit(plan)


def channels(plan: Plan | None) -> PruningPlan | None:
    """Returns the plan if it prunes channels; None, which keeps all of them, if it does not."""
    return plan if isinstance(plan, PruningPlan) else None


def concatenated(batches: Iterator[list[np.ndarray]]) -> list[np.ndarray]:
    """Joins the outputs of all batches, each output to one array."""
    return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
