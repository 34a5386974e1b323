"""The decisions of a search, independent of the budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

import numpy as np

from amc_tf.graph.plan import PlanT
from amc_tf.search.env.budget import CountCost

NUM_FEATURES = 11


@dataclasses.dataclass(frozen=True, eq=False)
class Problem(Generic[PlanT]):
    """The decisions of a search. They are built once and posed under different budgets.

    Attributes:
        choices: counts that each decision may keep, ascending.
        costs: costs as functions of the counts, by name; `macs` and `params` at least.
        features: constant part of the states, float64 (decisions, 11).
        plan: function that makes a plan of the counts.
        widths: counts of the dense network; None if they are the last ones of `choices`.
    """

    choices: Sequence[np.ndarray]
    costs: Mapping[str, CountCost]
    features: np.ndarray
    plan: Callable[[Sequence[int]], PlanT]
    widths: Sequence[int] | None = None

    def __len__(self) -> int:
        """Number of decisions."""
        return len(self.choices)

    @property
    def dense(self) -> np.ndarray:
        """The counts of the dense network."""
        if self.widths is not None:
            return np.array(self.widths)
        return np.array([allowed[-1] for allowed in self.choices])

    @property
    def priced(self) -> list[np.ndarray]:
        """The counts whose costs are asked for: those of plans, and of the dense network."""
        return [np.union1d(c, [n]) for c, n in zip(self.choices, self.dense, strict=True)]

    @property
    def least(self) -> np.ndarray:
        """The least allowed counts."""
        return np.array([allowed[0] for allowed in self.choices])

    @property
    def dense_costs(self) -> dict[str, float]:
        """Costs of the dense network, by name."""
        return {name: cost(self.dense) for name, cost in self.costs.items()}

    def with_latency(self, latency: CountCost) -> Problem[PlanT]:
        """Returns the same problem with the milliseconds of one inference as another cost."""
        return dataclasses.replace(self, costs={**self.costs, "latency": latency})
