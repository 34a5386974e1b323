"""Units kept, one decision after another, under a budget: what is alike in all searches.

It knows nothing of agents, nor of what is kept: an episode is `reset`, one
`step(action)` for each decision, `finish`. `amc_tf.search.env.channel_env` decides the channels of
groups, `amc_tf.sparsity.env` the weights of kernels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.plan import PruningPlan
from amc_tf.runs.vocabulary import QUANTITIES
from amc_tf.search.env.budget import Budget, CountCost
from amc_tf.search.env.rewards import REWARDS

NUM_FEATURES = 11
# Where a bound is made use of in full, a staircase may go down again a little further up.
_STEPS_BEYOND = 24
# An agent cannot learn from errors a million times those of a network that guesses, and what it
# learns from them would drown all else.
_LARGEST_REWARD = 1e6


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The end of an episode.

    Attributes:
        plan: the channels kept.
        counts: how many each group keeps.
        actions: the preserve ratios that were executed, one a group, before
            what was left of the budget was given out.
        accuracy: the score of the plan.
        reward: what the agent is told.
        macs: cost of the plan.
        params: cost of the plan.
        latency_ms: of the plan, foreseen or measured; None where no device was asked.
    """

    plan: PruningPlan
    counts: tuple[int, ...]
    actions: tuple[float, ...]
    accuracy: float
    reward: float
    macs: int
    params: int
    latency_ms: float | None = None


class DecisionEnv:
    """Chooses how many units each decision keeps under a budget.

    An action is the share kept; it is rounded to the nearest allowed count and
    lowered to the largest with which the budget can still be met when every
    later decision takes its minimum (AMC, algorithm 1). Rounding happens before
    that check, so the result is never over the budget.

    The state is the paper's, each feature scaled to [0, 1]: 0 to 7 and 9 are
    given, and do not change; 8, reduced, is the MACs saved by the decisions so
    far; 10 is the previous action.

    Args:
        choices: counts that each decision may keep, ascending, the last one all.
        costs: functions of the counts, `macs` and `params` at least.
        features: the state's unchanging part, float64 (decisions, 11).
        plan: makes a plan of the counts.
        score: accuracy of a plan, a fraction.
        budget: the bound; None for rewards that price the cost themselves.
        reward: a name of `REWARDS`.
        fill_budget: whether what an episode leaves of the budget is given out
            at its end, to all decisions in proportion. The paper does not, and a
            random plan then wastes half of a budget: costs are products of
            neighbouring ratios.

    Raises:
        AmcError: the reward and the budget do not go together, or the budget
            cannot be reached (with the least that can).
    """

    def __init__(
        self,
        choices: Sequence[np.ndarray],
        costs: Mapping[str, CountCost],
        features: np.ndarray,
        plan: Callable[[Sequence[int]], PruningPlan],
        score: Callable[[PruningPlan], float],
        budget: Budget | None,
        *,
        reward: str = "err",
        fill_budget: bool = True,
    ):
        if reward not in REWARDS:
            raise AmcError(f"unknown reward {reward!r}; choose one of {', '.join(REWARDS)}")
        if (reward == "err") != (budget is not None):
            raise AmcError(
                "reward 'err' needs a budget, e.g. Budget(macs=0.5)"
                if budget is None
                else f"reward {reward!r} prices the cost itself; leave the budget out"
            )
        if reward == "latency" and "latency" not in costs:
            raise AmcError("the reward 'latency' needs a device to measure it on")
        self.choices = list(choices)
        self.costs = dict(costs)
        self.plan = plan
        self.budget = budget
        self._dense = np.array([c[-1] for c in choices])
        self._least = np.array([c[0] for c in choices])
        self.bounds = {} if budget is None else budget.bounds(self.costs, self._dense)
        self._check_reachable()
        self._score = score
        self._fill_budget = fill_budget and budget is not None
        self._reward = REWARDS[reward]
        self._features = features
        self._counts: list[int] = []
        self._actions: list[float] = []

    def _check_reachable(self) -> None:
        for name, bound in self.bounds.items():
            least, dense = (self.costs[name](counts) for counts in (self._least, self._dense))
            if least > bound:
                written = QUANTITIES[name].written
                raise AmcError(
                    f"the budget of {written(bound)} cannot be reached: the smallest "
                    f"reachable is {written(least)} ({least / dense:.4f} of the dense "
                    f"{written(dense)}); raise the budget, lower min_preserve or rounding, "
                    "or freeze less"
                )

    def __len__(self) -> int:
        """Steps of an episode: one a group."""
        return len(self.choices)

    @property
    def dense_costs(self) -> dict[str, float]:
        """Costs where every decision keeps all, by name."""
        return {name: cost(self._dense) for name, cost in self.costs.items()}

    def reset(self) -> np.ndarray:
        """Begins an episode; returns the first state, float32 (11,)."""
        self._counts, self._actions = [], []
        return self._state()

    def step(self, action: float) -> tuple[np.ndarray | None, float]:
        """Decides the next group.

        Args:
            action: proposed preserve ratio, clipped to [0, 1].

        Returns:
            The next state (None after the last group) and the ratio executed.

        Raises:
            ValueError: the action is not a finite number, or the episode is over.
        """
        t = len(self._counts)
        if t == len(self):
            raise ValueError("the episode is over: call finish(), then reset()")
        if not math.isfinite(action):
            raise ValueError(f"expected a preserve ratio in [0, 1], received {action}")
        choices = self.choices[t]
        wanted = choices[int(np.argmin(np.abs(choices - np.clip(action, 0, 1) * self._dense[t])))]
        # One after another, as a cost need not be monotone. The least always can: reachability was
        # checked, and earlier steps kept it.
        allowed = next(c for c in choices[::-1] if c <= wanted and self._can_still_meet(t, c))
        self._counts.append(int(allowed))
        self._actions.append(float(allowed / self._dense[t]))
        return (self._state() if t + 1 < len(self) else None), self._actions[-1]

    def _can_still_meet(self, t: int, count: int) -> bool:
        return self.meets([*self._counts, count, *self._least[t + 1 :]])

    def meets(self, counts: Sequence[int] | np.ndarray) -> bool:
        """Whether channel counts of all groups are within the budget."""
        counts = np.asarray(counts)
        return all(self.costs[name](counts) <= bound for name, bound in self.bounds.items())

    def finish(self) -> Outcome:
        """Scores the plan of a finished episode.

        Raises:
            ValueError: groups are left to decide.
            AmcError: the score or the reward is not finite, or beyond all measure.
        """
        if len(self._counts) != len(self):
            raise ValueError(f"{len(self) - len(self._counts)} groups are still to be decided")
        counts = self.filled(self._actions)
        plan = self.plan(counts)
        accuracy = self._score(plan)
        costs = {name: cost(np.array(counts)) for name, cost in self.costs.items()}
        reward = self._reward(accuracy, costs)
        if not abs(reward) <= _LARGEST_REWARD:  # NaN is not either
            raise AmcError(
                f"the reward of a plan is {reward:g} (accuracy {accuracy:g}), expected a number "
                f"within {_LARGEST_REWARD:g} of 0; let evaluate return something of the order of 1"
            )
        return Outcome(
            plan=plan,
            counts=tuple(counts),
            actions=tuple(self._actions),
            accuracy=accuracy,
            reward=reward,
            macs=int(costs["macs"]),
            params=int(costs["params"]),
            latency_ms=costs.get("latency"),
        )

    def filled(self, actions: Sequence[float]) -> list[int]:
        """The channel counts of a finished episode, what was left of the budget given out."""
        ratios = self.fitted(actions) if self._fill_budget else actions
        return [int(n) for n in np.rint(np.array(ratios) * self._dense)]

    def fitted(self, ratios: Sequence[float]) -> list[float]:
        """Preserve ratios in given proportions, as large as the budget allows.

        All are scaled by one factor, the largest within the budget; what
        rounding leaves over goes to the groups that it cut most.

        Args:
            ratios: wanted proportions, one a group.

        Returns:
            Executable preserve ratios, one a group.
        """

        def counts_at(scale: float) -> np.ndarray:
            wanted = np.minimum(1, scale * np.asarray(ratios)) * self._dense
            return np.array(
                [
                    c[max(0, np.searchsorted(c, w, "right") - 1)]
                    for c, w in zip(self.choices, wanted, strict=True)
                ]
            )

        low, high = 0.0, 1 / min(ratios)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.meets(counts_at(middle)) else (low, middle)
        # The factors at which some count goes up; rounded up, so that it does.
        per_unit = np.asarray(ratios) * self._dense
        steps = np.unique(
            np.concatenate([c / unit for c, unit in zip(self.choices, per_unit, strict=True)])
        ) * (1 + 1e-12)
        for scale in steps[steps > low][:_STEPS_BEYOND]:
            low = scale if self.meets(counts_at(scale)) else low
        counts = counts_at(low)
        shortfall = low * np.asarray(ratios) * self._dense / counts
        for t in np.argsort(-shortfall, kind="stable"):
            larger = [c for c in self.choices[t] if c > counts[t]]
            raised = counts.copy()
            raised[t] = larger[0] if larger else counts[t]
            if shortfall[t] > 1 and self.meets(raised):
                counts = raised
        return (counts / self._dense).tolist()

    def _state(self) -> np.ndarray:
        t = len(self._counts)
        cost = self.costs["macs"]
        dense = cost(self._dense)
        so_far = np.array([*self._counts, *self._dense[t:]])
        state = self._features[t].copy()
        state[8] = (dense - cost(so_far)) / dense
        state[10] = self._actions[-1] if self._actions else 1.0
        return state.astype(np.float32)
