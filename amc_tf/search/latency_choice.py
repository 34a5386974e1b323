"""The choice of the best plan within a budget of latency, by measuring whole networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from amc_tf.latency.cost import LatencyCost
from amc_tf.search.env.base import Outcome
from amc_tf.search.env.budget import Budget

_MOST_ROUNDS = 6

Counts = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measured latency of a whole network.

    Attributes:
        ms: milliseconds of the plan's network.
        dense_ms: milliseconds of the dense network, timed in turn with it.
    """

    ms: float
    dense_ms: float

    def within(self, budget: Budget) -> bool:
        """Returns whether the network meets a budget of latency.

        A fraction refers to the dense network timed beside it.
        """
        return self.over(budget) <= 1

    def over(self, budget: Budget) -> float:
        """Returns the share of a budget of latency that is used; more than 1 exceeds it."""
        return self.ms / budget.latency_bound(self.dense_ms)


@dataclasses.dataclass(frozen=True, eq=False)
class Chooser:
    """A function that picks each policy's best plan that is within the budget when measured.

    Attributes:
        budget: a budget with a bound on latency.
        dense: the groups' full channel counts.
        measure: function that times the whole networks of outcomes.
        finalists: number of a policy's plans that are measured at a time.
    """

    budget: Budget
    dense: Counts
    measure: Callable[[Sequence[Outcome]], list[Measured]]
    finalists: int

    def __call__(
        self,
        ranked: Mapping[str, Sequence[Outcome]],
        cost: LatencyCost,
        known: dict[Counts, Measured],
    ) -> dict[str, Outcome]:
        """Measures the best plans, then the next best, until each policy has one or gives up.

        A plan that exceeds the budget is rejected, and its measurement corrects
        the predicted latency. Plans that are then predicted to exceed the budget
        are skipped.

        Args:
            ranked: outcomes of each policy, the best first.
            cost: predicted latency.
            known: earlier measurements; new ones are added.

        Returns:
            Each policy's best outcome that is within the budget as measured, with
            the measured latency; policies without one are left out.
        """
        for _ in range(_MOST_ROUNDS):
            corrected = cost.corrected({c: self._as_predicted(m, cost) for c, m in known.items()})
            wanted: dict[Counts, Outcome] = {}
            for outcomes in ranked.values():
                wanted.update(self._next(outcomes, corrected, known))
            if not wanted:
                break
            results = self.measure([*wanted.values()])
            known.update(zip(wanted, results, strict=True))
        best = {name: self._best(outcomes, known) for name, outcomes in ranked.items()}
        return {name: outcome for name, outcome in best.items() if outcome is not None}

    def _as_predicted(self, measured: Measured, cost: LatencyCost) -> float:
        """Returns a measurement on the scale of the predicted milliseconds, as the bound is."""
        if self.budget.latency is None:
            return measured.ms
        return measured.ms / measured.dense_ms * cost(self.dense)

    def _next(
        self,
        outcomes: Sequence[Outcome],
        cost: LatencyCost,
        known: Mapping[Counts, Measured],
    ) -> dict[Counts, Outcome]:
        """Returns the plans to measure before a policy's best plan is known."""
        bound = self.budget.latency_bound(cost(self.dense))
        wanted: dict[Counts, Outcome] = {}
        for outcome in outcomes:
            if outcome.counts in known:
                if known[outcome.counts].within(self.budget):
                    break
            elif cost(outcome.counts) <= bound:
                wanted.setdefault(outcome.counts, outcome)
            if len(wanted) == self.finalists:
                break
        return wanted

    def _best(
        self, outcomes: Sequence[Outcome], known: Mapping[Counts, Measured]
    ) -> Outcome | None:
        for outcome in outcomes:
            measured = known.get(outcome.counts)
            if measured is not None and measured.within(self.budget):
                return dataclasses.replace(outcome, latency_ms=measured.ms)
        return None
