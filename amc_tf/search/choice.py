"""The choice among the best plans of all policies, where scores alone may not tell them apart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from amc_tf import files
from amc_tf.graph.plan import PruningPlan
from amc_tf.runs import layout
from amc_tf.runs.choice import BY_REWARD, BY_SCORE, Candidate, Choice
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.base import Scorer
from amc_tf.scoring.resampling import Bootstrap, sampled
from amc_tf.search.env.base import Outcome
from amc_tf.search.merit import Merit
from amc_tf.search.settings import POLICIES
from amc_tf.training.divergence import divergence
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task
from amc_tf.training.uncertainty import Uncertainty

Chosen = tuple[str, Outcome[PruningPlan], Choice]


@dataclasses.dataclass(frozen=True, eq=False)
class Chooser:
    """A function that chooses one of the best plans of all policies.

    Of the plans whose scores are within one standard error of the best one, it takes that whose
    outputs are nearest the dense network's: a score counts right answers on some hundreds of
    samples, but the outputs hold what every sample says. Where nothing tells plans apart, the
    first policy of `POLICIES` is preferred.

    Attributes:
        score: scorer of networks as they are built.
        task: the task.
        model: the dense model.
        metric: what the scores are.
        uncertainty: how uncertain they are.
        priced: whether the reward prices a cost; then the reward decides, as outputs would always
            speak for the larger network.
    """

    score: Scorer[PruningPlan]
    task: Task
    model: keras.Model
    metric: Metric
    uncertainty: Uncertainty
    priced: bool

    def kept(
        self, finalists: Mapping[str, Sequence[Outcome[PruningPlan]]], folder: Workdir, of: Any
    ) -> Chosen:
        """Returns the choice, read from `choice.json` in the folder if it was made before.

        Args:
            finalists: see `__call__`.
            folder: the search's folder.
            of: what the plans' outputs depend on beside their counts and the run, as JSON.
        """
        told = [[name, o.counts, o.score] for name, found in finalists.items() for o in found]
        checksum = files.checksum({"finalists": told, "of": of})
        known = folder.read_json(layout.CHOICE, {})
        if known.get("of") == checksum:
            name = known["policy"]
            counts = tuple(known["counts"])
            outcome = next(o for o in finalists[name] if o.counts == counts)
            return name, outcome, Choice.from_json(known["choice"])
        name, outcome, choice = self(finalists)
        content = {"policy": name, "counts": outcome.counts, "choice": choice.to_json()}
        folder.write_json(layout.CHOICE, {"of": checksum, **content})
        return name, outcome, choice

    def __call__(self, finalists: Mapping[str, Sequence[Outcome[PruningPlan]]]) -> Chosen:
        """Chooses a plan.

        Args:
            finalists: best outcomes of each policy, the best first (see `Merit`); not all are cut.

        Returns:
            The policy, the outcome of its plan, and what decided.
        """
        distinct: dict[tuple[int, ...], tuple[str, Outcome[PruningPlan]]] = {}
        for name in sorted(finalists, key=POLICIES.index):
            for outcome in finalists[name]:
                if not outcome.cut:
                    distinct.setdefault(outcome.counts, (name, outcome))
        # Of equal ones, max and min take the first.
        merit = Merit(self.metric, self.priced)
        name, best = max(distinct.values(), key=lambda pair: merit(pair[1]))
        samples = self.uncertainty.samples.get("validation")
        alone = Choice(BY_SCORE, (Candidate(name, best.score),), samples)
        if self.priced:
            return name, best, dataclasses.replace(alone, by=BY_REWARD)
        spread = self._error(best)
        if spread is None:
            return name, best, alone
        # The standard error of a difference is at most the sum of the two.
        near = [
            (policy, outcome)
            for policy, outcome in distinct.values()
            if outcome is not best
            and self._behind(outcome, best) <= spread + (self._error(outcome) or 0.0)
        ]
        if not near:
            return name, best, alone
        return self._nearest((name, best), near, samples)

    def _error(self, outcome: Outcome) -> float | None:
        return self.uncertainty.standard_error(self.metric, outcome.score, "validation")

    def _behind(self, outcome: Outcome, best: Outcome) -> float:
        return self.metric.gain(best.score) - self.metric.gain(outcome.score)

    def _paired(self, deviation: float, samples: int) -> float:
        """Returns the standard error of a difference of scores on the same samples.

        To answers that are right or wrong, two samples are added of which each network alone has
        one right, as Bonett and Price advise: one right answer more is no certainty.
        """
        added = 2 if self.metric.per_sample else 0
        return math.sqrt(deviation**2 / samples + added / samples**2)

    def _nearest(
        self,
        first: tuple[str, Outcome[PruningPlan]],
        near: Sequence[tuple[str, Outcome[PruningPlan]]],
        samples: int | None,
    ) -> Chosen:
        """Compares the plan of the best score with others by the outputs of all."""
        best = first[1]
        dense, answers = sampled(self.score, None), sampled(self.score, best.plan)
        measure = divergence(self.task.twin(self.model))
        bootstrap = Bootstrap(self.task, self.model)
        comparable = answers.order == dense.order
        found: list[tuple[Candidate, str, Outcome[PruningPlan]]] = []
        for policy, outcome in (first, *near):
            error = self._error(outcome)
            distance = None
            if comparable:
                own = answers if outcome is best else sampled(self.score, outcome.plan)
                distance = measure.of(own.outputs, dense.outputs)
                deviation = bootstrap.deviation(own, answers)
                error = error if deviation is None else self._paired(deviation, own.seen)
            error = 0.0 if outcome is best else error
            behind = self._behind(outcome, best)
            if error is not None and behind <= error:
                candidate = Candidate(policy, outcome.score, behind, error, distance)
                found.append((candidate, policy, outcome))
        if comparable:
            found.sort(key=lambda entry: (entry[0].divergence, POLICIES.index(entry[1])))
        name, chosen = found[0][1:]
        # Outputs that are not finite are infinitely far, which JSON cannot say.
        told = tuple(
            dataclasses.replace(c, divergence=None) if c.divergence == math.inf else c
            for c, _, _ in found
        )
        by = measure.name if len(told) > 1 and told[0].divergence is not None else BY_SCORE
        return name, chosen, Choice(by, told, samples)
