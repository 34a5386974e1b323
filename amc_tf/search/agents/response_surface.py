"""A model of the reward that proposes which plan to try next.

The loss from pruning one group hardly depends on what the others keep, so the
reward of a plan is close to a sum of one curve for each group. Such a sum has
few unknowns, and a few dozen episodes determine it well. For each proposal,
curves are drawn from the model's posterior, and the plan that is best by them
within the budget is proposed (Thompson sampling). Where the model is unsure,
the draws differ, and the search explores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amc_tf.search.agents.priced_plan import propose
from amc_tf.search.env.base import DecisionEnv

# Each group's curve is a sum of these powers of its share of pruned channels.
_POWERS = (1, 2)
# Scale of the sum of all losses: a ridge penalty hardly touches its coefficient.
_SHARED = 10.0
# Ridge penalties to choose from, relative to the mean square of the features.
_RIDGES = np.logspace(-3, 1, 9)
# A plan this share of the way down the ranking has 1/e of the best plan's weight, because the
# curves need to be right around good plans.
_RANK_SCALE = 0.3
# Share of the posterior's standard deviation that is drawn: a whole one would explore too much
# for such short searches.
_TEMPERATURE = 0.3
# Most draws for one proposal, where they lead to plans that were tried before.
_DRAWS = 10
# Proposals near each of several starts before the best plan decides where to go on.
_AROUND = 8
_LEAST = 1e-3  # least ratio before all are scaled by one factor, which divides by the least


class Features:
    """What the model sees of a plan: a few numbers for each group.

    They are the powers of the share of the group's channels that is pruned and, where it is known
    beforehand what the groups lose, that loss. One more number is the sum of all losses: that it
    is worth the same in all groups is taken to be likelier than anything else.

    Args:
        choices: allowed counts of each group, ascending.
        dense: number of channels of each group.
        losses: loss of each allowed count of each group, as `choices`, in any unit; None if they
            are not known.
    """

    def __init__(
        self,
        choices: Sequence[np.ndarray],
        dense: np.ndarray,
        losses: Sequence[np.ndarray] | None = None,
    ):
        self._choices = choices
        self._tables = [
            np.stack([(1 - c / n) ** k for k in _POWERS], axis=1)
            for c, n in zip(choices, dense, strict=True)
        ]
        self._shared = [np.zeros(len(c)) for c in choices]
        if losses is not None:
            shares = np.concatenate([table[:, 0] for table in self._tables])
            unit = np.concatenate(losses).mean() / shares.mean()
            scaled = [loss / max(unit, np.finfo(float).tiny) for loss in losses]
            self._shared = [_SHARED * loss for loss in scaled]
            self._tables = [
                np.column_stack([table, loss])
                for table, loss in zip(self._tables, scaled, strict=True)
            ]

    def of(self, counts: Sequence[int]) -> np.ndarray:
        """Returns a plan's numbers, float64 (features,)."""
        places = [int(np.searchsorted(c, n)) for c, n in zip(self._choices, counts, strict=True)]
        own = [table[at] for table, at in zip(self._tables, places, strict=True)]
        shared = sum(table[at] for table, at in zip(self._shared, places, strict=True))
        return np.concatenate([*own, [shared]])

    def worth(self, coefficients: np.ndarray) -> list[np.ndarray]:
        """Returns what each allowed count of each group is worth by some coefficients."""
        own = coefficients[:-1].reshape(len(self._tables), -1)
        return [
            table @ of_group + shared * coefficients[-1]
            for table, shared, of_group in zip(self._tables, self._shared, own, strict=True)
        ]


class ResponseModel:
    """A Bayesian linear regression of the reward on the features of plans."""

    def __init__(self) -> None:
        self._features: list[np.ndarray] = []
        self._rewards: list[float] = []

    def __len__(self) -> int:
        """Number of episodes it has seen."""
        return len(self._rewards)

    def best(self, coefficients: np.ndarray, among: Sequence[int]) -> int:
        """Returns which of some episodes, by their numbers, is best by coefficients of `draw`."""
        return among[int(np.argmax([self._features[n] @ coefficients for n in among]))]

    def add(self, features: np.ndarray, reward: float) -> None:
        """Adds an episode: the features of its plan, and its reward."""
        self._features.append(features)
        self._rewards.append(reward)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draws coefficients from the posterior, float64 (features,)."""
        x = np.stack(self._features)
        y = np.asarray(self._rewards)
        order = np.argsort(np.argsort(-y, kind="stable"))
        weight = np.exp(-order / (_RANK_SCALE * len(y)))
        weight /= weight.sum()
        x, y = x - weight @ x, y - weight @ y
        root = np.sqrt(weight)[:, None]
        u, s, vt = np.linalg.svd(x * root, full_matrices=False)
        side = u.T @ (y * root[:, 0])
        penalties = _RIDGES * max(np.mean(s**2), 1e-12)
        errors = [_left_out(u, s, side, y * root[:, 0], p) for p in penalties]
        best = int(np.argmin(errors))
        penalty, noise = penalties[best], errors[best] / max(len(y), 1)
        mean = vt.T @ (s / (s**2 + penalty) * side)
        # Directions in which no episode varies keep the prior's variance, noise / penalty.
        spread = _TEMPERATURE * np.sqrt(noise / penalty) * rng.normal(size=x.shape[1])
        inside = vt @ spread
        shrink = np.sqrt(penalty / (s**2 + penalty)) - 1
        return mean + spread + vt.T @ (shrink * inside)


def _left_out(
    u: np.ndarray, s: np.ndarray, side: np.ndarray, y: np.ndarray, penalty: float
) -> float:
    """Returns the sum of the squared errors of rows, each predicted from all others."""
    filtered = s**2 / (s**2 + penalty)
    residual = y - u @ (filtered * side)
    leverage = np.square(u) @ filtered
    return float(np.square(residual / np.maximum(1 - leverage, 1e-3)).sum())


class ResponseSearcher:
    """A `Searcher` that proposes the plans that are best by a model of the reward.

    A proposal is near a plan that was tried, as the model is right only there. So plans that are
    far apart are each a start: the model cannot tell how good what lies between them is.

    Args:
        env: the environment of the episodes.
        start: preserve ratios of the first episode.
        losses: what each group is known to lose at each allowed count, as `env.choices`.
        warmup: number of episodes before the model is used; they are scattered around the start.
            None for 10, or 3 if losses are known.
        sigma: standard deviation of a ratio in these episodes.
        seed: seed of all draws.
        others: preserve ratios of other plans from which proposals begin, too, until it is clear
            where the best one lies.
    """

    def __init__(
        self,
        env: DecisionEnv,
        start: Sequence[float],
        losses: Sequence[np.ndarray] | None = None,
        warmup: int | None = None,
        sigma: float = 0.15,
        seed: int = 0,
        others: Sequence[Sequence[float]] = (),
    ):
        self._env = env
        self._dense = env.problem.dense
        self._start = np.asarray(start)
        self._starts = np.array([start, *others])
        self._filled = np.array([env.filled(ratios) for ratios in self._starts]) / self._dense
        self._around: list[list[int]] = [[] for _ in self._starts]
        self._begun = [0] * len(self._starts)
        known = 3 if losses is not None else 10
        self._warmup = known if warmup is None else warmup
        self._sigma = sigma
        self._rng = np.random.default_rng(seed)
        self._features = Features(env.choices, self._dense, losses)
        self._model = ResponseModel()
        self._counts: list[tuple[int, ...]] = []
        self._tried: set[tuple[int, ...]] = set()
        self._planned: Sequence[float] | None = None
        self._worth: list[np.ndarray] | None = None
        self._left: Sequence[float] = ()

    @property
    def worth(self) -> list[np.ndarray] | None:
        """What each allowed count is worth by the draw of the last plan; None before the first."""
        return self._worth

    def planned(self) -> Sequence[float]:
        """Returns the actions to try next, one for each group; the same until it learns more."""
        if self._planned is None:
            self._planned = self._proposed()
        return self._planned

    def _proposed(self) -> Sequence[float]:
        for start in self._starts[: len(self._model) + 1]:
            if self._scored(start) not in self._tried:
                return start.tolist()
        if len(self._model) < self._warmup:
            return self._scattered(self._start).tolist()
        best, among = self._start, self._due()
        for _ in range(_DRAWS):
            drawn = self._model.draw(self._rng)
            best = np.array(self._counts[self._model.best(drawn, among)]) / self._dense
            self._worth = self._features.worth(drawn)
            plan = propose(self._env, self._worth, best)
            if self._scored(plan) not in self._tried:
                return plan
        # The model is certain; plans scattered around its best one show whether it is right.
        return self._env.fitted(np.maximum(self._scattered(best), _LEAST).tolist())

    def _due(self) -> Sequence[int]:
        """Returns the numbers of the episodes near one of which the next proposal is to be.

        They are those around the start from which fewest proposals began, as long as it had few.
        """
        at = int(np.argmin(self._begun))
        self._begun[at] += 1
        if len(self._begun) > 1 and self._begun[at] <= _AROUND and self._around[at]:
            return self._around[at]
        return range(len(self._model))

    def _scattered(self, ratios: np.ndarray) -> np.ndarray:
        return np.clip(ratios + self._sigma * self._rng.normal(size=len(ratios)), 0, 1)

    def learn(self, actions: Sequence[float], reward: float) -> None:
        """Learns from an episode, whichever searcher proposed its actions."""
        self._planned = None
        counts = self._scored(actions)
        distances = np.abs(self._filled - np.asarray(counts) / self._dense).sum(axis=1)
        self._around[int(np.argmin(distances))].append(len(self._counts))
        self._tried.add(counts)
        self._counts.append(counts)
        self._model.add(self._features.of(counts), reward)

    def _scored(self, actions: Sequence[float]) -> tuple[int, ...]:
        """Returns the counts that are scored: the rest of the budget is given out at the end."""
        return tuple(int(n) for n in self._env.filled(actions))

    def act(self, state: np.ndarray) -> float:
        """Returns the next ratio of the episode's plan; the state is ignored."""
        del state
        first, *self._left = self._left or self.planned()
        return first

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Learns from the episode."""
        self.learn(actions, reward)
        return {}
