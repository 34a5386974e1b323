"""A model of the reward that says which plan to try next.

Pruning one group hurts about as much whatever the others keep, so the reward
of a plan is close to a sum of one curve for each group. Such a sum has few
unknowns, and is known well after a few dozen episodes. Each proposal is the
best plan, within the budget, of one draw from what the model believes
(Thompson sampling): where it is unsure, draws differ, and the search explores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amc_tf.search.env.base import DecisionEnv

# Of the share of channels pruned: each group's curve is a sum of these powers.
_POWERS = (1, 2)
# Ridge terms relative to the features' mean square, of which the episodes choose.
_RIDGES = np.logspace(-3, 1, 9)
# Plans this share of the way down the ranking count 1/e as much as the best: what the curves are
# like around good plans is what matters.
_RANK_SCALE = 0.3
# A proposal differs from the plan it starts at by at most this share of a group's channels in
# each of these steps, so that the straight line taken for the cost holds.
_REACH, _STEPS = 0.08, 3
# Of the posterior's standard deviations: whole ones explore more than searches this short bear.
_TEMPERATURE = 0.3
# Draws for one proposal, where they lead to plans tried before.
_DRAWS = 10
_LEAST = 1e-3  # of a ratio, where all are scaled by one factor


class ResponseModel:
    """Bayesian linear regression of the reward on every group's share of pruned channels."""

    def __init__(self, groups: int):
        self._groups = groups
        self._ratios: list[np.ndarray] = []
        self._rewards: list[float] = []

    def __len__(self) -> int:
        """Episodes it has seen."""
        return len(self._rewards)

    def best(self, curves: np.ndarray) -> np.ndarray:
        """Preserve ratios of the episode that is best by curves as `draw` gives them (groups,)."""
        values = _powers(np.stack(self._ratios)) @ curves.ravel()
        return self._ratios[int(np.argmax(values))]

    def add(self, ratios: Sequence[float] | np.ndarray, reward: float) -> None:
        """Takes in an episode: its preserve ratios, one a group, and its reward."""
        self._ratios.append(np.asarray(ratios, np.float64))
        self._rewards.append(reward)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Coefficients drawn from the posterior, float64 (powers, groups)."""
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
        # Directions that no episode varies in keep the prior's spread, which is noise / penalty.
        spread = _TEMPERATURE * np.sqrt(noise / penalty) * rng.normal(size=x.shape[1])
        inside = vt @ spread
        shrink = np.sqrt(penalty / (s**2 + penalty)) - 1
        return (mean + spread + vt.T @ (shrink * inside)).reshape(len(_POWERS), self._groups)


def _powers(ratios: np.ndarray) -> np.ndarray:
    return np.concatenate([(1 - ratios) ** k for k in _POWERS], axis=1)


def _left_out(
    u: np.ndarray, s: np.ndarray, side: np.ndarray, y: np.ndarray, penalty: float
) -> float:
    """Squared error summed over the rows, each predicted from all the others."""
    filtered = s**2 / (s**2 + penalty)
    residual = y - u @ (filtered * side)
    leverage = np.square(u) @ filtered
    return float(np.square(residual / np.maximum(1 - leverage, 1e-3)).sum())


def propose(env: DecisionEnv, curves: np.ndarray, start: np.ndarray) -> list[float]:
    """The best plan of a model within the budget, near a start.

    In each of a few steps the cost is taken for linear; the price of a unit of
    cost is the lowest at which the channel counts that are worth theirs meet
    the budget; and what is then left of it goes to the groups where it is
    worth most.

    Args:
        env: the budget and the counts allowed.
        curves: of the share pruned, coefficients (powers, groups).
        start: preserve ratios (groups,), within the budget.

    Returns:
        Preserve ratios, one a group.
    """
    dense = np.array([choices[-1] for choices in env.choices])
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
    """Of each group's choices, which cost less than every larger one (boolean).

    Latency is a staircase: within a step the largest count is as fast as the
    others, and one behind an edge may be faster than one before it.
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
    """Which choices a step may go to (boolean): at least one useful one in each direction."""
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
    """The counts that are worth their cost, at the lowest price that meets the budget."""

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
    """The counts raised, a step at a time where it is worth most, while the budget allows."""
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
    """What a channel of each group costs, as a share of the bound that is used up most.

    It is that of the chord over all choices: the next step of a staircase
    (latency is one) says nothing of the steps behind it.
    """
    if not env.bounds:  # nothing is too dear where the reward prices the cost itself
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
    """Proposes what the model of the reward thinks best (a `Searcher`).

    Args:
        env: the environment the episodes are run in.
        start: preserve ratios of the first episode.
        warmup: episodes before the model is asked, scattered around the start.
        sigma: of these, standard deviation of a ratio.
        seed: of all draws.
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
        self._dense = np.array([choices[-1] for choices in env.choices])
        self._start = np.asarray(start)
        self._warmup = warmup
        self._sigma = sigma
        self._rng = np.random.default_rng(seed)
        self._model = ResponseModel(len(env))
        self._tried: set[tuple[int, ...]] = set()
        self._plan: Sequence[float] = ()

    def planned(self) -> Sequence[float]:
        """The actions to try next, one a group."""
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
        # The model is sure of itself; whether it is right shows beside its best plan.
        return self._env.fitted(np.maximum(self._scattered(best), _LEAST).tolist())

    def _scattered(self, ratios: np.ndarray) -> np.ndarray:
        return np.clip(ratios + self._sigma * self._rng.normal(size=len(ratios)), 0, 1)

    def learn(self, actions: Sequence[float], reward: float) -> None:
        """Takes in an episode, whoever proposed its actions."""
        counts = self._scored(actions)
        self._tried.add(counts)
        self._model.add(np.array(counts) / self._dense, reward)

    def _scored(self, actions: Sequence[float]) -> tuple[int, ...]:
        """What an episode scores: the budget that its actions leave is given out at its end."""
        return tuple(int(n) for n in self._env.filled(actions))

    def act(self, state: np.ndarray) -> float:
        """The next ratio of the episode's plan, whatever the state."""
        del state
        self._plan = self._plan or self.planned()
        first, *self._plan = self._plan
        return first

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Learns from the episode."""
        self.learn(actions, reward)
        return {}
