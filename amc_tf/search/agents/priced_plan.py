"""The plan of the greatest worth within a budget, near a start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amc_tf.search.env.base import DecisionEnv

# In each of this many steps, a proposal changes by at most this share of a group's channels, so
# that the linear approximation of the cost holds.
_REACH, _STEPS = 0.08, 3


def propose(
    env: DecisionEnv, worth: Sequence[np.ndarray], start: Sequence[float] | np.ndarray
) -> list[float]:
    """Searches near a start for the plan of the greatest worth within the budget.

    Each of a few steps treats the cost as linear and puts a price on a unit of
    it. At a price, each group takes the channel count whose worth exceeds its
    cost the most. The price is the lowest at which these counts meet the
    budget. The rest of the budget then goes to the groups where it is worth
    the most.

    Args:
        env: the environment, which holds the budget and the allowed counts.
        worth: worth of each allowed count of each group, as `env.choices`; a plan's is the sum.
        start: preserve ratios (groups,), within the budget.

    Returns:
        Preserve ratios, one for each group.
    """
    dense = env.problem.dense
    counts = np.rint(np.asarray(start) * dense).astype(int)
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
        if env.total(worth, moved) <= env.total(worth, counts):
            break
        counts = moved
    return (counts / dense).tolist()


def advantages(
    env: DecisionEnv, worth: Sequence[np.ndarray], plan: Sequence[int]
) -> list[np.ndarray]:
    """Returns what each count of each group is worth beyond a plan's, less the price of its cost.

    The price is what the plan's groups would lose, in the median, by a step up or down for the
    cost that it saves. So at a plan that is the best by its worths, every other count has an
    advantage below 0.

    Args:
        env: the environment, which holds the budget and the allowed counts.
        worth: worth of each allowed count of each group, as `env.choices`; a plan's is the sum.
        plan: counts of all groups, of the allowed ones.

    Returns:
        Advantages, as `env.choices`.
    """
    slopes = _slopes(env, np.asarray(plan), env.choices)
    places = [int(np.searchsorted(c, n)) for c, n in zip(env.choices, plan, strict=True)]
    prices = []
    for allowed, table, slope, at in zip(env.choices, worth, slopes, places, strict=True):
        low, high = max(at - 1, 0), min(at + 1, len(allowed) - 1)
        if high > low:
            step = allowed[high] - allowed[low]
            prices.append(float((table[high] - table[low]) / (slope * step)))
    price = max(float(np.median(prices)), 0.0) if prices else 0.0
    return [
        table - table[at] - price * slope * (allowed - allowed[at])
        for allowed, table, slope, at in zip(env.choices, worth, slopes, places, strict=True)
    ]


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
