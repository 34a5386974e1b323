"""What there is to decide, whatever the budget."""

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
    """The decisions of a search: built once, and posed under one budget or another.

    Attributes:
        choices: counts that each decision may keep, ascending, the last one all.
        costs: functions of the counts, `macs` and `params` at least.
        features: the state's unchanging part, float64 (decisions, 11).
        plan: makes a plan of the counts.
    """

    choices: Sequence[np.ndarray]
    costs: Mapping[str, CountCost]
    features: np.ndarray
    plan: Callable[[Sequence[int]], PlanT]

    def __len__(self) -> int:
        """How many decisions there are."""
        return len(self.choices)

    @property
    def dense(self) -> np.ndarray:
        """The counts of the dense network."""
        return np.array([allowed[-1] for allowed in self.choices])

    @property
    def least(self) -> np.ndarray:
        """The least counts allowed."""
        return np.array([allowed[0] for allowed in self.choices])

    @property
    def dense_costs(self) -> dict[str, float]:
        """Costs of the dense network, by name."""
        return {name: cost(self.dense) for name, cost in self.costs.items()}

    def with_latency(self, latency: CountCost) -> Problem[PlanT]:
        """The same where milliseconds of one inference are a cost, too."""
        return dataclasses.replace(self, costs={**self.costs, "latency": latency})
