"""The compression environment: groups one after another, a budget, a reward.

It knows nothing of agents: an episode is `reset`, one `step(action)` for each
group, `finish`. Costs and scores come in as callables of a plan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amc_tf.budget import REWARDS, Budget, CountCost, written
from amc_tf.channels import ChannelGraph
from amc_tf.costs import COSTS, Cost, dense_counts
from amc_tf.errors import AmcError
from amc_tf.importance import Importance, consumer_magnitude, strongest
from amc_tf.plan import PruningPlan

NUM_FEATURES = 11
# Where a bound is made use of in full, a staircase may go down again a little further up.
_STEPS_BEYOND = 24


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


class CompressionEnv:
    """Chooses channel counts group by group under a budget.

    An action is the preserve ratio of the group; it is rounded to the nearest
    allowed count and lowered to the largest with which the budget can still be
    met when every later group takes its minimum (AMC, algorithm 1). Rounding
    happens before that check, so the result is never over the budget.

    The state of group t is the paper's, for the layer whose input channels
    are pruned, where "the layer" is the group's first consumer and costs are
    those of all its consumers. Each feature is scaled to [0, 1]:

    0. t; 1. n, output channels of that layer; 2. c, channels of the group;
    3. h and 4. w of its input; 5. stride; 6. k; 7. MACs of all layers that
    read the group; 8. reduced, the MACs saved by the decisions so far; 9. rest,
    the MACs that only later groups can still save; 10. the previous action.

    Args:
        graph: the analysed model.
        score: accuracy of a plan, a fraction.
        budget: the bound; None for rewards that price the cost themselves.
        latency: milliseconds of one inference (`amc_tf.latency.LatencyCost`), for
            budgets and rewards that need it.
        reward: a name of `REWARDS`.
        rounding: channel counts are multiples of this (or the full count); one
            number, or one for each group in the order of `graph.groups`.
        min_preserve: least preserve ratio of a group, in (0, 1]; likewise.
        fill_budget: whether what an episode leaves of the budget is given out
            at its end, to all groups in proportion. The paper does not, and a
            random plan then wastes half of a budget: costs are products of
            neighbouring ratios.
        importance: which channels go first (see `amc_tf.importance`); default
            the consumers' magnitude.

    Raises:
        AmcError: no group can be pruned, the reward and the budget do not go
            together, or the budget cannot be reached (with the least that can).
    """

    def __init__(
        self,
        graph: ChannelGraph,
        score: Callable[[PruningPlan], float],
        budget: Budget | None,
        *,
        latency: CountCost | None = None,
        reward: str = "err",
        rounding: int | Sequence[int] = 8,
        min_preserve: float | Sequence[float] = 0.2,
        fill_budget: bool = True,
        importance: Importance | None = None,
    ):
        if not graph.groups:
            raise AmcError(
                f"model {graph.network.model.name!r} has no prunable group that is not frozen; "
                "amc-inspect says why each operation is"
            )
        if reward not in REWARDS:
            raise AmcError(f"unknown reward {reward!r}; choose one of {', '.join(REWARDS)}")
        if (reward == "err") != (budget is not None):
            raise AmcError(
                "reward 'err' needs a budget, e.g. Budget(macs=0.5)"
                if budget is None
                else f"reward {reward!r} prices the cost itself; leave the budget out"
            )
        self.graph = graph
        self.budget = budget
        exact = {name: make(graph) for name, make in COSTS.items()}
        measured = {} if latency is None else {"latency": latency}
        self.costs: dict[str, CountCost] = {**exact, **measured}
        if reward == "latency" and latency is None:
            raise AmcError("the reward 'latency' needs a device to measure it on")
        self.choices = allowed_counts(graph, rounding, min_preserve)
        self._dense = dense_counts(graph)
        self._least = np.array([choices[0] for choices in self.choices])
        self.bounds = {} if budget is None else budget.bounds(self.costs, self._dense)
        self._check_reachable()
        self._score = score
        self._fill_budget = fill_budget and budget is not None
        self._reward = REWARDS[reward]
        self._importance = consumer_magnitude(graph) if importance is None else importance
        self._macs = exact["macs"]
        self._features = _static_features(graph, self._macs)
        self._counts: list[int] = []
        self._actions: list[float] = []

    def _check_reachable(self) -> None:
        for name, bound in self.bounds.items():
            least, dense = (self.costs[name](counts) for counts in (self._least, self._dense))
            if least > bound:
                raise AmcError(
                    f"the budget of {written(name, bound)} cannot be reached: the smallest "
                    f"reachable is {written(name, least)} ({least / dense:.4f} of the dense "
                    f"{written(name, dense)}); raise the budget, lower min_preserve or rounding, "
                    "or freeze less"
                )

    def __len__(self) -> int:
        """Steps of an episode: one a group."""
        return len(self.choices)

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
            AmcError: the score or the reward is not finite.
        """
        if len(self._counts) != len(self):
            raise ValueError(f"{len(self) - len(self._counts)} groups are still to be decided")
        counts = self.filled(self._actions)
        plan = self.plan(counts)
        accuracy = self._score(plan)
        costs = {name: cost(np.array(counts)) for name, cost in self.costs.items()}
        reward = self._reward(accuracy, costs)
        if not math.isfinite(reward):
            raise AmcError(
                f"the reward of a plan is {reward} (accuracy {accuracy}); check evaluate"
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

    def plan(self, counts: Sequence[int]) -> PruningPlan:
        """The plan that keeps so many of each group's most important channels."""
        return strongest(self._importance, dict(zip(self.graph.groups, counts, strict=True)))

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
        cost = self._macs
        dense = cost(self._dense)
        so_far = np.array([*self._counts, *self._dense[t:]])
        state = self._features[t].copy()
        state[8] = (dense - cost(so_far)) / dense
        state[10] = self._actions[-1] if self._actions else 1.0
        return state.astype(np.float32)


def allowed_counts(
    graph: ChannelGraph,
    rounding: int | Sequence[int],
    min_preserve: float | Sequence[float],
) -> list[np.ndarray]:
    """The channel counts that each group may keep, ascending (see `CompressionEnv`).

    Raises:
        AmcError: a rounding or ratio is out of its range.
    """
    roundings = _for_each(graph, "rounding", rounding)
    ratios = _for_each(graph, "min_preserve", min_preserve)
    if not ((roundings >= 1).all() and ((ratios > 0) & (ratios <= 1)).all()):
        raise AmcError(
            "expected rounding of at least 1 and min_preserve in (0, 1], received "
            f"{rounding} and {min_preserve}"
        )
    return [
        _choices(group.channels, multiple, ratio)
        for group, multiple, ratio in zip(
            graph.groups.values(), roundings.tolist(), ratios.tolist(), strict=True
        )
    ]


def _for_each(graph: ChannelGraph, name: str, value: Any) -> np.ndarray:
    """A setting as an array, one value a group."""
    values = np.asarray(value)
    if values.ndim and values.shape != (len(graph.groups),):
        raise AmcError(
            f"expected {name} as one number or as {len(graph.groups)}, one a group, received an "
            f"array of shape {values.shape}"
        )
    return np.broadcast_to(values, len(graph.groups))


def _choices(channels: int, rounding: int, min_preserve: float) -> np.ndarray:
    """Allowed channel counts, ascending: multiples of the rounding, and all."""
    least = min_preserve * channels
    multiples = np.arange(rounding, channels, rounding)
    return np.append(multiples[multiples >= least - 1e-9], channels)


def _static_features(graph: ChannelGraph, macs: Cost) -> np.ndarray:
    """The features that no decision changes, scaled by their maximum over the groups."""
    rows = np.zeros((len(graph.groups), NUM_FEATURES))
    terms, touched = macs.terms(macs.dense), macs.touched()
    names = np.array(macs.sites)
    sites = {site.name: site for site in reversed(graph.sites)}
    for t, group in enumerate(graph.groups.values()):
        site = sites[group.consumers[0]]
        layer = site.call.operation
        shape = graph.network.tensors[site.call.inputs[0]].shape[1:-1]
        height, width = (*shape, 1, 1)[:2]
        rows[t, :8] = (
            t,
            graph.network.tensors[site.call.outputs[0]].shape[-1],
            group.channels,
            height,
            width,
            max(_pair_of(getattr(layer, "strides", 1))),
            max(_pair_of(getattr(layer, "kernel_size", 1))),
            terms[np.isin(names, group.consumers)].sum(),
        )
        later_only = touched[:, t + 1 :].any(axis=1) & ~touched[:, : t + 1].any(axis=1)
        rows[t, 9] = terms[later_only].sum()
    scale = rows.max(axis=0)
    scale[9] = max(terms.sum(), 1)
    return rows / np.where(scale > 0, scale, 1)


def _pair_of(value: int | Sequence[int]) -> Sequence[int]:
    return (value,) if isinstance(value, int) else value
