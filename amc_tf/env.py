"""The compression environment: groups one after another, a budget, a reward.

It knows nothing of agents: an episode is `reset`, one `step(action)` for each
group, `finish`. Costs and scores come in as callables of a plan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amc_tf.channels import ChannelGraph
from amc_tf.costs import COSTS, Cost, dense_counts
from amc_tf.errors import AmcError
from amc_tf.importance import Importance, consumer_magnitude, strongest
from amc_tf.plan import PruningPlan

NUM_FEATURES = 11


@dataclasses.dataclass(frozen=True)
class Budget:
    """A bound on one cost, never exceeded, rounding included.

    Attributes:
        macs: bound on multiply-accumulates of one sample: a fraction of the
            dense model's (0 < macs <= 1), or an absolute number (more than 1).
        params: the same for parameters.

    Raises:
        AmcError: not exactly one is given, or it is not a positive number.
    """

    macs: float | None = None
    params: float | None = None

    def __post_init__(self) -> None:
        given = [k for k in COSTS if getattr(self, k) is not None]
        if len(given) != 1:
            raise AmcError(
                "a budget bounds exactly one of macs and params, e.g. Budget(macs=0.5); received "
                f"{', '.join(given) or 'neither'}"
            )
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise AmcError(
                f"a budget is a fraction of the dense cost (such as 0.5) or an absolute number, "
                f"received {self.kind}={value!r}"
            )

    @property
    def kind(self) -> str:
        """`macs` or `params`."""
        return next(k for k in COSTS if getattr(self, k) is not None)

    @property
    def value(self) -> float:
        """The number as it was given."""
        return getattr(self, self.kind)

    def bound(self, cost: Cost) -> int:
        """The bound in absolute terms."""
        return math.floor(self.value * cost(cost.dense) if self.value <= 1 else self.value)


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
    """

    plan: PruningPlan
    counts: tuple[int, ...]
    actions: tuple[float, ...]
    accuracy: float
    reward: float
    macs: int
    params: int


def _err(accuracy: float, macs: int, params: int) -> float:
    return -(1 - accuracy)


def _flops(accuracy: float, macs: int, params: int) -> float:
    return -(1 - accuracy) * math.log(macs)


def _params(accuracy: float, macs: int, params: int) -> float:
    return -(1 - accuracy) * math.log(params)


# AMC, section 3.3. `err` needs a budget to prune at all; the others trade the
# cost against the error themselves.
REWARDS: Mapping[str, Callable[[float, int, int], float]] = {
    "err": _err,
    "flops": _flops,
    "params": _params,
}


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
        roundings = _for_each(graph, "rounding", rounding)
        ratios = _for_each(graph, "min_preserve", min_preserve)
        if not ((roundings >= 1).all() and ((ratios > 0) & (ratios <= 1)).all()):
            raise AmcError(
                "expected rounding of at least 1 and min_preserve in (0, 1], received "
                f"{rounding} and {min_preserve}"
            )
        self.graph = graph
        self.budget = budget
        self.costs = {name: make(graph) for name, make in COSTS.items()}
        self.choices = [
            _choices(group.channels, multiple, ratio)
            for group, multiple, ratio in zip(
                graph.groups.values(), roundings.tolist(), ratios.tolist(), strict=True
            )
        ]
        self._dense = dense_counts(graph)
        self._least = np.array([choices[0] for choices in self.choices])
        self.bound = None if budget is None else budget.bound(self.costs[budget.kind])
        self._check_reachable()
        self._score = score
        self._fill_budget = fill_budget and budget is not None
        self._reward = REWARDS[reward]
        self._importance = consumer_magnitude(graph) if importance is None else importance
        self._features = _static_features(graph, self.costs["macs"])
        self._counts: list[int] = []
        self._actions: list[float] = []

    def _check_reachable(self) -> None:
        if self.budget is None or self.bound is None:
            return
        cost = self.costs[self.budget.kind]
        least, dense = cost(self._least), cost(self._dense)
        if least > self.bound:
            raise AmcError(
                f"the budget of {self.bound:,} {self.budget.kind} cannot be reached: the smallest "
                f"reachable is {least:,} ({least / dense:.4f} of the dense {dense:,}); raise the "
                "budget, lower min_preserve or rounding, or freeze less"
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
        allowed = [c for c in choices if c <= wanted and self._can_still_meet(t, c)]
        # The least choice always can: reachability was checked, and earlier steps kept it.
        self._counts.append(int(allowed[-1]))
        self._actions.append(float(allowed[-1] / self._dense[t]))
        return (self._state() if t + 1 < len(self) else None), self._actions[-1]

    def _can_still_meet(self, t: int, count: int) -> bool:
        return self.meets([*self._counts, count, *self._least[t + 1 :]])

    def meets(self, counts: Sequence[int] | np.ndarray) -> bool:
        """Whether channel counts of all groups are within the budget."""
        if self.budget is None or self.bound is None:
            return True
        return self.costs[self.budget.kind](np.asarray(counts)) <= self.bound

    def finish(self) -> Outcome:
        """Scores the plan of a finished episode.

        Raises:
            ValueError: groups are left to decide.
            AmcError: the score or the reward is not finite.
        """
        if len(self._counts) != len(self):
            raise ValueError(f"{len(self) - len(self._counts)} groups are still to be decided")
        counts = self._counts
        if self._fill_budget:
            filled = np.array(self.fitted(self._actions)) * self._dense
            counts = [int(n) for n in np.rint(filled)]
        plan = self.plan(counts)
        accuracy = self._score(plan)
        macs, params = (self.costs[name](np.array(counts)) for name in ("macs", "params"))
        reward = self._reward(accuracy, macs, params)
        if not math.isfinite(reward):
            raise AmcError(
                f"the reward of a plan is {reward} (accuracy {accuracy}); check evaluate"
            )
        return Outcome(plan, tuple(counts), tuple(self._actions), accuracy, reward, macs, params)

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
