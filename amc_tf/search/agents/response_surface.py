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

from amc_tf.search.env.base import DecisionEnv

# Each group's curve is a sum of these powers of its share of pruned channels.
_POWERS = (1, 2)
# Ridge penalties to choose from, relative to the mean square of the features.
_RIDGES = np.logspace(-3, 1, 9)
# A plan this share of the way down the ranking has 1/e of the best plan's weight, because the
# curves need to be right around good plans.
_RANK_SCALE = 0.3
# In each of this many steps, a proposal changes by at most this share of a group's channels, so
# that the linear approximation of the cost holds.
_REACH, _STEPS = 0.08, 3
# Share of the posterior's standard deviation that is drawn: a whole one would explore too much
# for such short searches.
_TEMPERATURE = 0.3
# Most draws for one proposal, where they lead to plans that were tried before.
_DRAWS = 10
_LEAST = 1e-3  # least ratio before all are scaled by one factor, which divides by the least


class ResponseModel:
    """A Bayesian linear regression of the reward on each group's share of pruned channels.

    Args:
        groups: number of groups.
    """

    def __init__(self, groups: int):
        self._groups = groups
        self._ratios: list[np.ndarray] = []
        self._rewards: list[float] = []

    def __len__(self) -> int:
        """Number of episodes it has seen."""
        return len(self._rewards)

    def best(self, curves: np.ndarray) -> np.ndarray:
        """Returns the preserve ratios (groups,) of the episode that is best by curves of `draw`."""
        values = _powers(np.stack(self._ratios)) @ curves.ravel()
        return self._ratios[int(np.argmax(values))]

    def add(self, ratios: Sequence[float] | np.ndarray, reward: float) -> None:
        """Adds an episode: its preserve ratios, one for each group, and its reward."""
        self._ratios.append(np.asarray(ratios, np.float64))
        self._rewards.append(reward)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draws the curves' coefficients from the posterior, float64 (powers, groups)."""
        x = _powers(np.stack(self._ratios))
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
        return (mean + spread + vt.T @ (shrink * inside)).reshape(len(_POWERS), self._groups)


def _powers(ratios: np.ndarray) -> np.ndarray:
    return np.concatenate([(1 - ratios) ** k for k in _POWERS], axis=1)


def _left_out(
    u: np.ndarray, s: np.ndarray, side: np.ndarray, y: np.ndarray, penalty: float
) -> float:
    """Returns the sum of the squared errors of rows, each predicted from all others."""
    filtered = s**2 / (s**2 + penalty)
    residual = y - u @ (filtered * side)
    leverage = np.square(u) @ filtered
    return float(np.square(residual / np.maximum(1 - leverage, 1e-3)).sum())


def propose(env: DecisionEnv, curves: np.ndarray, start: np.ndarray) -> list[float]:
    """Searches near a start for the plan that is best by a model, within the budget.

    Each of a few steps treats the cost as linear and puts a price on a unit of
    it. At a price, each group takes the channel count whose worth exceeds its
    cost the most. The price is the lowest at which these counts meet the
    budget. The rest of the budget then goes to the groups where it is worth
    the most.

    Args:
        env: the environment, which holds the budget and the allowed counts.
        curves: coefficients (powers, groups) of curves of the share pruned.
        start: preserve ratios (groups,), within the budget.

    Returns:
        Preserve ratios, one for each group.
    """
    dense = env.problem.dense
    worth = [
        _powers(choices[:, None] / full) @ curve
        for choices, full, curve in zip(env.choices, dense, curves.T, strict=True)
    ]

    def value(counts: np.ndarray) -> float:
        places = (np.searchsorted(c, n) for c, n in zip(env.choices, counts, strict=True))
        return float(sum(table[at] for table, at in zip(worth, places, strict=True)))

    counts = np.rint(start * dense).astype(int)
    offered = _undercut_left_out(env, counts)
    for _ in range(_STEPS):
        near = [
            _near(choices, useful, now)
            for choices, useful, now in zip(env.choices, offered, counts, strict=True)
        ]
        reachable = [choices[n] for choices, n in zip(env.choices, near, strict=True)]
        tables = [table[n] for table, n in zip(worth, near, strict=True)]
        slopes = _slopes(env, counts, reachable)
        priced = _priced(env, counts, slopes, reachable, tables)
        moved = _filled(env, priced, slopes, reachable, tables)
        if value(moved) <= value(counts):
            break
        counts = moved
    return (counts / dense).tolist()


def _undercut_left_out(env: DecisionEnv, counts: np.ndarray) -> list[np.ndarray]:
    """Returns which of each group's choices cost less than every larger one (boolean).

    Latency is a staircase: within a step the largest count is as fast as the
    others, and a count above an edge may be faster than one below it.
    """
    if "latency" not in env.bounds:  # all other costs grow with the counts
        return [np.ones(len(choices), bool) for choices in env.choices]
    cost, useful = env.costs["latency"], []
    for t, choices in enumerate(env.choices):
        trials = np.repeat(counts[None], len(choices), axis=0)
        trials[:, t] = choices
        costs = np.array([cost(trial) for trial in trials])
        larger = np.minimum.accumulate(np.append(costs, np.inf)[::-1])[::-1][1:]
        useful.append(costs < larger)
    return useful


def _near(choices: np.ndarray, useful: np.ndarray, now: int) -> np.ndarray:
    """Returns which choices a step may reach (boolean).

    At least one useful choice in each direction is among them, if there is one.
    """
    distance = choices - now
    up = distance[useful & (distance > 0)].min(initial=np.iinfo(int).max)
    down = distance[useful & (distance < 0)].max(initial=-np.iinfo(int).max)
    reach = _REACH * choices[-1]
    near = (distance <= max(reach, up)) & (distance >= min(-reach, down))
    return (useful & near) | (distance == 0)


def _priced(
    env: DecisionEnv,
    counts: np.ndarray,
    slopes: np.ndarray,
    choices: Sequence[np.ndarray],
    worth: Sequence[np.ndarray],
) -> np.ndarray:
    """Returns the best counts at the lowest price that meets the budget.

    The result is `counts` where no price meets it.
    """

    def at(price: float) -> np.ndarray:
        best = [
            np.argmax(w - price * s * c) for c, w, s in zip(choices, worth, slopes, strict=True)
        ]
        return np.array([c[b] for c, b in zip(choices, best, strict=True)])

    low, high = -9.0, 9.0  # powers of ten
    if env.meets(at(10**low)):
        return at(10**low)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if env.meets(at(10**middle)) else (middle, high)
    return at(10**high) if env.meets(at(10**high)) else counts


def _filled(
    env: DecisionEnv,
    counts: np.ndarray,
    slopes: np.ndarray,
    choices: Sequence[np.ndarray],
    worth: Sequence[np.ndarray],
) -> np.ndarray:
    """Raises the counts while the budget allows, each time by the step that is worth the most."""
    places = [int(np.searchsorted(c, n)) for c, n in zip(choices, counts, strict=True)]
    open_ = set(range(len(choices)))
    while open_:
        gains = {}
        for t in open_:
            if places[t] + 1 < len(choices[t]):
                step = choices[t][places[t] + 1] - choices[t][places[t]]
                gains[t] = (worth[t][places[t] + 1] - worth[t][places[t]]) / (slopes[t] * step)
        raised = max(gains, key=gains.__getitem__, default=None)
        if raised is None or gains[raised] <= 0:
            break
        trial = counts.copy()
        trial[raised] = choices[raised][places[raised] + 1]
        if env.meets(trial):
            counts, places[raised] = trial, places[raised] + 1
        else:
            open_.discard(raised)
    return counts


def _slopes(env: DecisionEnv, counts: np.ndarray, choices: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the cost of a channel of each group, as a share of the bound that is used up most.

    It is the slope of the chord over all choices: the next step of a staircase
    (latency is one) says nothing about the steps after it.
    """
    if not env.bounds:  # the reward prices the cost itself, so there is no limit
        return np.full(len(env), 1e-12)
    used = {name: env.costs[name](counts) / bound for name, bound in env.bounds.items()}
    name = max(used, key=used.__getitem__)
    slopes = []
    for t, ends in enumerate((c[0], c[-1]) for c in choices):
        costs = []
        for end in ends:
            moved = counts.copy()
            moved[t] = end
            costs.append(env.costs[name](moved) / env.bounds[name])
        slopes.append((costs[1] - costs[0]) / max(ends[1] - ends[0], 1))
    return np.maximum(slopes, 1e-12)


class ResponseSearcher:
    """A `Searcher` that proposes the plans that are best by a model of the reward.

    Args:
        env: the environment of the episodes.
        start: preserve ratios of the first episode.
        warmup: number of episodes before the model is used; they are scattered around the start.
        sigma: standard deviation of a ratio in these episodes.
        seed: seed of all draws.
    """

    def __init__(
        self,
        env: DecisionEnv,
        start: Sequence[float],
        warmup: int = 10,
        sigma: float = 0.15,
        seed: int = 0,
    ):
        self._env = env
        self._dense = env.problem.dense
        self._start = np.asarray(start)
        self._warmup = warmup
        self._sigma = sigma
        self._rng = np.random.default_rng(seed)
        self._model = ResponseModel(len(env))
        self._tried: set[tuple[int, ...]] = set()
        self._plan: Sequence[float] = ()

    def planned(self) -> Sequence[float]:
        """Returns the actions to try next, one for each group."""
        if len(self._model) == 0:
            return self._start.tolist()
        if len(self._model) < self._warmup:
            return self._scattered(self._start).tolist()
        best = self._start
        for _ in range(_DRAWS):
            curves = self._model.draw(self._rng)
            best = self._model.best(curves)
            plan = propose(self._env, curves, best)
            if self._scored(plan) not in self._tried:
                return plan
        # The model is certain; plans scattered around its best one show whether it is right.
        return self._env.fitted(np.maximum(self._scattered(best), _LEAST).tolist())

    def _scattered(self, ratios: np.ndarray) -> np.ndarray:
        return np.clip(ratios + self._sigma * self._rng.normal(size=len(ratios)), 0, 1)

    def learn(self, actions: Sequence[float], reward: float) -> None:
        """Learns from an episode, whichever searcher proposed its actions."""
        counts = self._scored(actions)
        self._tried.add(counts)
        self._model.add(np.array(counts) / self._dense, reward)

    def _scored(self, actions: Sequence[float]) -> tuple[int, ...]:
        """Returns the counts that are scored: the rest of the budget is given out at the end."""
        return tuple(int(n) for n in self._env.filled(actions))

    def act(self, state: np.ndarray) -> float:
        """Returns the next ratio of the episode's plan; the state is ignored."""
        del state
        self._plan = self._plan or self.planned()
        first, *self._plan = self._plan
        return first

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Learns from the episode."""
        self.learn(actions, reward)
        return {}
