"""The allocation that loses least within the budget, if what the groups lose adds up."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from amc_tf.search.env.base import DecisionEnv


def knapsack(
    env: DecisionEnv, losses: Sequence[np.ndarray], whole: Collection[int] = ()
) -> list[float]:
    """Chooses counts within the budget whose summed losses are as small as can be found.

    From the dense network on, the decision whose next step saves most of the excess cost for its
    loss is lowered, along the lower convex hull of its losses, until the budget is met. Then steps
    up, alone or in exchange for steps down of another decision, are made while they lower the sum.
    Costs are asked for whole plans, so that they may be products of counts, or measured.

    Args:
        env: the decisions, and a budget.
        losses: loss of each allowed count of each decision, as `env.choices`; it does not rise.
        whole: decisions that keep everything, if the others can meet the budget without them.

    Returns:
        Executable preserve ratios, one for each decision.
    """
    least = [len(a) - 1 if t in whole else 0 for t, a in enumerate(env.choices)]
    if not env.meets([a[at] for a, at in zip(env.choices, least, strict=True)]):
        least = [0] * len(env)
    plan = _Plan(env, losses, least)
    plan.lower()
    plan.exchange()
    return (plan.counts / env.problem.dense).tolist()


class _Plan:
    """Counts that are changed step by step."""

    def __init__(self, env: DecisionEnv, losses: Sequence[np.ndarray], least: Sequence[int]):
        self._env, self._losses, self._least = env, losses, least
        self._at = [len(allowed) - 1 for allowed in env.choices]

    @property
    def counts(self) -> np.ndarray:
        return self._with({})

    def _with(self, steps: dict[int, int]) -> np.ndarray:
        """Returns the counts after moves of some decisions to other places in their choices."""
        places = [steps.get(t, place) for t, place in enumerate(self._at)]
        return np.array([a[i] for a, i in zip(self._env.choices, places, strict=True)])

    def _excess(self, counts: np.ndarray) -> float:
        """Returns the sum of the costs beyond their bounds, relative to these."""
        return sum(
            max(0.0, self._env.costs[name](counts) / bound - 1)
            for name, bound in self._env.bounds.items()
        )

    def lower(self) -> None:
        """Lowers counts until the budget is met."""
        hulls = [_hull(*pair) for pair in zip(self._env.choices, self._losses, strict=True)]
        excess = self._excess(self.counts)
        while excess > 0:
            best = (-np.inf, 0, 0, excess)
            for t, hull in enumerate(hulls):
                below = [i for i in hull if self._least[t] <= i < self._at[t]]
                if below:
                    left = self._excess(self._with({t: below[-1]}))
                    lost = self._losses[t][below[-1]] - self._losses[t][self._at[t]]
                    best = max(best, ((excess - left) / (lost + 1e-12), t, below[-1], left))
            if best[0] == -np.inf:
                return  # the least of all decisions; the environment has checked that it is within
            _, t, self._at[t], excess = best

    def exchange(self) -> None:
        """Makes steps up that pay, alone or for steps down elsewhere."""
        while (found := self._best_exchange()) is not None:
            for t, place in found.items():
                self._at[t] = place

    def _best_exchange(self) -> dict[int, int] | None:
        best, found = 1e-9, None
        for t, place in enumerate(self._at):
            if place + 1 == len(self._env.choices[t]):
                continue
            gain = float(self._losses[t][place] - self._losses[t][place + 1])
            up = {t: place + 1}
            if gain > best and self._env.meets(self._with(up)):
                best, found = gain, up
                continue
            for other, at in enumerate(self._at):
                if other == t or at == self._least[other]:
                    continue
                # As many steps down as pay, until the step up is paid for.
                for lower in range(at - 1, self._least[other] - 1, -1):
                    net = gain - float(self._losses[other][lower] - self._losses[other][at])
                    if net <= best:
                        break
                    if self._env.meets(self._with({**up, other: lower})):
                        best, found = net, {**up, other: lower}
                        break
                # As many steps up as one step down pays for.
                lost = float(self._losses[other][at - 1] - self._losses[other][at])
                for upper in range(place + 1, len(self._env.choices[t])):
                    if not self._env.meets(self._with({t: upper, other: at - 1})):
                        break
                    net = float(self._losses[t][place] - self._losses[t][upper]) - lost
                    if net > best:
                        best, found = net, {t: upper, other: at - 1}
        return found


def _hull(counts: np.ndarray, losses: np.ndarray) -> list[int]:
    """Returns the places on the lower convex hull of losses over counts, ascending."""
    hull: list[int] = []
    for i in range(len(counts)):
        while len(hull) > 1:
            a, b = hull[-2:]
            straight = (losses[i] - losses[a]) * (counts[b] - counts[a])
            if (losses[b] - losses[a]) * (counts[i] - counts[a]) < straight:
                break
            hull.pop()
        hull.append(i)
    return hull
