"""The protocol of every searcher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Searcher(Protocol):
    """Proposes one action for each decision and learns from the reward of a whole episode.

    An episode is a call of `act` for each decision, in order, and then one call of `finish`.
    """

    def act(self, state: np.ndarray) -> float:
        """Proposes the action of one decision.

        Args:
            state: float32 [num_features], each feature in [0, 1].

        Returns:
            The proposed share to keep, in [0, 1]. The environment may execute a different one.
        """

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Ends the episode.

        Args:
            actions: the actions that were executed, in [0, 1], one for each call of `act`.
            reward: the episode's reward; higher is better.

        Returns:
            Diagnostics of the searcher by name; may be empty.
        """


class EarningSearcher(Protocol):
    """A `Searcher` that may also be told what each of its actions earned by itself."""

    def act(self, state: np.ndarray) -> float:
        """See `Searcher.act`."""
        ...

    def finish(self, actions: Sequence[float], reward: float | Sequence[float]) -> dict[str, float]:
        """Ends the episode.

        Args:
            actions: see `Searcher.finish`.
            reward: the episode's reward, or what each action earned, whatever came after it.

        Returns:
            See `Searcher.finish`.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Allocations:
    """What is known of a problem before the first episode.

    Attributes:
        plans: preserve ratios of the policies that are a few plans, by the policy's name.
        losses: what each decision loses at each allowed count; None if that is not known.
    """

    plans: Mapping[str, Sequence[Sequence[float]]] = dataclasses.field(default_factory=dict)
    losses: Sequence[np.ndarray] | None = None
