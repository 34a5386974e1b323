"""The best plans, measured whole before one is chosen."""

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
    """A whole network on the device.

    Attributes:
        ms: milliseconds of the plan's network.
        dense_ms: of the dense one, timed in turn with it.
    """

    ms: float
    dense_ms: float

    def within(self, budget: Budget) -> bool:
        """Whether it meets a budget of latency; a fraction is one of the dense model beside it."""
        return self.over(budget) <= 1

    def over(self, budget: Budget) -> float:
        """The share of a budget of latency that it takes; more than 1 breaks it."""
        return self.ms / budget.latency_bound(self.dense_ms)


@dataclasses.dataclass(frozen=True, eq=False)
class Chooser:
    """Picks each policy's best plan that is within the budget when measured.

    Attributes:
        budget: with a bound on latency.
        dense: the groups' full channel counts.
        measure: times whole networks, given their plans.
        finalists: how many of a policy's plans are measured at a time.
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

        What breaks the budget is rejected and corrects the predicted latency, and
        plans that are then predicted to break it are passed over.

        Args:
            ranked: a policy's outcomes, the best first.
            cost: predicts latency.
            known: what was measured before; more is added.

        Returns:
            Policy to its best outcome that was measured to be within the budget,
            with the latency measured; policies that have none are left out.
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
        """A measurement in the milliseconds in which the bound is predicted."""
        if self.budget.latency is None:
            return measured.ms
        return measured.ms / measured.dense_ms * cost(self.dense)

    def _next(
        self,
        outcomes: Sequence[Outcome],
        cost: LatencyCost,
        known: Mapping[Counts, Measured],
    ) -> dict[Counts, Outcome]:
        """Plans to be measured before it is known which is the best."""
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
