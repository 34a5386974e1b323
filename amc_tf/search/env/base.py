"""The environment of all searches: it decides how many units are kept, under a budget.

It knows neither agents, nor which units are kept, nor score. An episode is a call of `reset`,
one of `step(action)` for each decision, one of `finish`, and one of `outcome` when the plan has its
score. `amc_tf.search.env.channels` makes the problem of channels, `amc_tf.sparsity.problem` the
problem of single weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Generic

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.costs import Cost
from amc_tf.graph.plan import PlanT
from amc_tf.runs.vocabulary import QUANTITIES
from amc_tf.search.env.budget import Budget
from amc_tf.search.env.problem import Problem
from amc_tf.search.env.rewards import ERROR, prices_cost, reward_of
from amc_tf.training.metric import ACCURACY, Metric
from amc_tf.training.score import Score

# Above the largest scale found within the bounds, a staircase may go down again: this many more
# steps are tried.
_STEPS_BEYOND = 24


@dataclasses.dataclass(frozen=True, eq=False)
class Decided(Generic[PlanT]):
    """The decisions of an episode.

    Attributes:
        plan: plan of the units kept.
        counts: number of units that each decision keeps.
        actions: executed preserve ratio of each decision, before the rest of
            the budget was given out.
        costs: costs of the plan, by name.
    """

    plan: PlanT
    counts: tuple[int, ...]
    actions: tuple[float, ...]
    costs: Mapping[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome(Generic[PlanT]):
    """The end of an episode.

    Attributes:
        plan: plan of the units kept.
        counts: see `Decided`.
        actions: see `Decided`.
        score: score of the plan.
        reward: reward that the agent receives.
        macs: MACs of the plan's network.
        params: parameters of the plan's network.
        latency_ms: latency of the plan's network, predicted or measured; None where latency is
            not a cost.
        cut: whether score and divergence are estimates from part of the images, of a hopeless
            plan.
        divergence: how far its outputs are from the dense network's; None if it was not measured.
    """

    plan: PlanT
    counts: tuple[int, ...]
    actions: tuple[float, ...]
    score: float
    reward: float
    macs: int
    params: int
    latency_ms: float | None = None
    cut: bool = False
    divergence: float | None = None


class DecisionEnv(Generic[PlanT]):
    """An environment in which each decision chooses how many units are kept, under a budget.

    An action is the share to keep. It is rounded to the nearest allowed count
    and then lowered to the largest count with which the budget can still be met
    when every later decision takes its minimum (AMC, algorithm 1). Rounding
    happens before this check, so the result is never over the budget.

    The state is the paper's, each feature scaled to [0, 1]. Features 0 to 7 and
    9 come from the problem and do not change; 8, reduced, is the MACs saved by
    the decisions so far; 10 is the previous action.

    Args:
        problem: the decisions to make.
        budget: the bounds on costs; None for rewards that price the cost themselves.
        reward: a name of `REWARDS`; `divergence` needs scores that have one.
        fill_budget: whether the rest of the budget is given out at the end of an
            episode, to all decisions in proportion. The paper does not do this,
            and a random plan then wastes half of the budget, as costs are
            products of neighbouring ratios.
        metric: what the scores are.

    Attributes:
        reward_name: name of the reward.

    Raises:
        AmcError: the reward and the budget or the metric do not go together, or
            the budget cannot be reached (the message gives the least that can).
    """

    def __init__(
        self,
        problem: Problem[PlanT],
        budget: Budget | None,
        *,
        reward: str = ERROR,
        fill_budget: bool = True,
        metric: Metric = ACCURACY,
    ):
        self._reward = reward_of(reward, metric)
        self.reward_name = reward
        if prices_cost(reward) == (budget is not None):
            raise AmcError(
                f"reward {reward!r} needs a budget, e.g. Budget(macs=0.5)"
                if budget is None
                else f"reward {reward!r} prices the cost itself; leave the budget out"
            )
        if reward == "latency" and "latency" not in problem.costs:
            raise AmcError("the reward 'latency' needs a device to measure it on")
        self.problem = problem
        self.metric = metric
        self.choices = problem.choices
        self.costs = problem.costs
        self.budget = budget
        self._dense, self._least = problem.dense, problem.least
        self.bounds = {} if budget is None else budget.bounds(self.costs, self._dense)
        self._check_reachable()
        self._fill_budget = fill_budget and budget is not None
        self._counts: list[int] = []
        self._actions: list[float] = []

    def _check_reachable(self) -> None:
        for name, bound in self.bounds.items():
            cost = self.costs[name]
            least, dense = cost(self._least), cost(self._dense)
            if least > bound:
                written = QUANTITIES[name].written
                most = ""
                if isinstance(cost, Cost):
                    layer, part = max(cost.by_layer(self._least).items(), key=lambda item: item[1])
                    most = f", the largest part, {written(part)}, in {layer!r}"
                raise AmcError(
                    f"the budget of {written(bound)} cannot be reached: the smallest "
                    f"reachable is {written(least)} ({least / dense:.4f} of the dense "
                    f"{written(dense)}){most}; raise the budget, lower min_preserve or rounding, "
                    "or freeze less"
                )

    def __len__(self) -> int:
        """Number of steps of an episode, one for each decision."""
        return len(self.problem)

    def reset(self) -> np.ndarray:
        """Begins an episode; returns the first state, float32 (11,)."""
        self._counts, self._actions = [], []
        return self._state()

    def step(self, action: float) -> tuple[np.ndarray | None, float]:
        """Makes the next decision.

        Args:
            action: proposed preserve ratio, clipped to [0, 1].

        Returns:
            The next state (None after the last decision) and the ratio executed.

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
        # All counts are tried in turn, as a cost need not be monotone. The least one always meets
        # the budget: this was checked at the start, and earlier steps kept it so.
        allowed = next(c for c in choices[::-1] if c <= wanted and self._can_still_meet(t, c))
        self._counts.append(int(allowed))
        self._actions.append(float(allowed / self._dense[t]))
        return (self._state() if t + 1 < len(self) else None), self._actions[-1]

    def _can_still_meet(self, t: int, count: int) -> bool:
        return self.meets([*self._counts, count, *self._least[t + 1 :]])

    def meets(self, counts: Sequence[int] | np.ndarray) -> bool:
        """Returns whether the counts of all decisions are within the budget."""
        counts = np.asarray(counts)
        return all(self.costs[name](counts) <= bound for name, bound in self.bounds.items())

    def total(self, tables: Sequence[np.ndarray], counts: Sequence[int] | np.ndarray) -> float:
        """Returns the sum over decisions of what tables, as `choices`, say of their counts."""
        return float(sum(self.each(tables, counts)))

    def each(self, tables: Sequence[np.ndarray], counts: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns what tables, as `choices`, say of each decision's count (decisions,)."""
        parts = zip(self.choices, counts, tables, strict=True)
        return np.array([table[np.searchsorted(allowed, n)] for allowed, n, table in parts])

    def finish(self) -> Decided[PlanT]:
        """Returns the decisions of a finished episode.

        Raises:
            ValueError: decisions are left to make.
        """
        if len(self._counts) != len(self):
            raise ValueError(f"{len(self) - len(self._counts)} groups are still to be decided")
        counts = self.filled(self._actions)
        return Decided(
            plan=self.problem.plan(counts),
            counts=tuple(counts),
            actions=tuple(self._actions),
            costs={name: cost(np.array(counts)) for name, cost in self.costs.items()},
        )

    def outcome(self, decided: Decided[PlanT], score: float) -> Outcome[PlanT]:
        """Returns the decisions together with their score and its reward.

        Args:
            decided: the decisions.
            score: their score; a `Score`, if its divergence is known or it was cut short.

        Raises:
            AmcError: the reward is not finite, or cannot be made of the score.
        """
        score = Score.of(score)
        reward = self.reward(score, decided.costs)
        return Outcome(
            plan=decided.plan,
            counts=decided.counts,
            actions=decided.actions,
            score=float(score),
            reward=reward,
            macs=int(decided.costs["macs"]),
            params=int(decided.costs["params"]),
            latency_ms=decided.costs.get("latency"),
            cut=score.cut,
            divergence=score.divergence,
        )

    def reward(self, score: float, costs: Mapping[str, float]) -> float:
        """Returns the reward of a score at some costs.

        Raises:
            AmcError: see `outcome`.
        """
        reward = self._reward(self.metric, Score.of(score), costs)
        if not math.isfinite(reward):
            raise AmcError(
                f"the reward of a plan is {reward:g} ({self.metric.name} {score:g}), expected a "
                "finite number; let evaluate return one"
            )
        return reward

    def filled(self, actions: Sequence[float]) -> list[int]:
        """Returns the counts of a finished episode, after the rest of the budget is given out."""
        ratios = self.fitted(actions) if self._fill_budget else actions
        return [int(n) for n in np.rint(np.array(ratios) * self._dense)]

    def fitted(self, ratios: Sequence[float]) -> list[float]:
        """Returns preserve ratios in given proportions, as large as the budget allows.

        All are scaled by one factor, the largest within the budget. What
        rounding leaves of the budget goes to the decisions that it cut the most.

        Args:
            ratios: wanted proportions, one for each decision, at least 0. A decision of 0
                keeps the least that it may.

        Returns:
            Executable preserve ratios, one for each decision.
        """
        wanted = np.asarray(ratios, float)
        positive = wanted[wanted > 0]

        def counts_at(scale: float) -> np.ndarray:
            units = np.minimum(1, scale * wanted) * self._dense
            return np.array(
                [
                    c[max(0, np.searchsorted(c, u, "right") - 1)]
                    for c, u in zip(self.choices, units, strict=True)
                ]
            )

        low, high = 0.0, 1 / min(positive, default=1.0)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.meets(counts_at(middle)) else (low, middle)
        # The factors at which some count goes up. They are rounded up, so that it does go up.
        steps = np.unique(
            np.concatenate(
                [c / u for c, u in zip(self.choices, wanted * self._dense, strict=True) if u > 0]
                or [[]]
            )
        ) * (1 + 1e-12)
        for scale in steps[steps > low][:_STEPS_BEYOND]:
            low = scale if self.meets(counts_at(scale)) else low
        counts = counts_at(low)
        shortfall = low * wanted * self._dense / counts
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
        state = self.problem.features[t].copy()
        state[8] = (dense - cost(so_far)) / max(1, dense)
        state[10] = self._actions[-1] if self._actions else 1.0
        return state.astype(np.float32)
