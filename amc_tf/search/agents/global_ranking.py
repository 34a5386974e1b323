"""The plan that ranks the channels of all groups at once and keeps those above one threshold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from amc_tf.errors import choice
from amc_tf.search.env.base import DecisionEnv

# What a group's scores are divided by, so that those of several groups can be compared.
NORMALISERS: Mapping[str, Callable[[np.ndarray], float]] = {
    "max": lambda scores: float(scores.max()),
    "mean": lambda scores: float(scores.mean()),
    "none": lambda scores: 1.0,
}


def global_ranking(
    env: DecisionEnv,
    scores: Sequence[np.ndarray],
    normaliser: str = "max",
    streams: Collection[int] = (),
) -> list[float]:
    """Chooses counts by one threshold over the channels of all groups.

    A group keeps the allowed count that is nearest to the number of its channels above the
    threshold. The threshold is the lowest within the budget. It is then lowered further, and each
    group on its own goes on to keep more as long as the budget allows that.

    Args:
        env: the decisions, and a budget.
        scores: scores of each decision's channels, float (channels,), not negative.
        normaliser: a name of `NORMALISERS`.
        streams: decisions that stay whole if the others can meet the budget without them, and
            are treated like the others if not. Many layers read and write a residual stream,
            and what a channel of it is worth to all of them shows in no single layer's scores.

    Returns:
        Executable preserve ratios, one for each decision.

    Raises:
        AmcError: there is no such normaliser.
    """
    divisor = choice("normaliser", normaliser, NORMALISERS)
    tiny = np.finfo(float).tiny
    relative = [np.sort(given / max(divisor(given), tiny)) for given in scores]
    choices = list(env.choices)
    whole = [a[-1:] if t in streams else a for t, a in enumerate(choices)]
    if env.meets([allowed[0] for allowed in whole]):
        choices = whole
    return (_ranked(env, relative, choices) / env.problem.dense).tolist()


def _ranked(
    env: DecisionEnv, ascending: Sequence[np.ndarray], choices: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns the counts, int (decisions,).

    Args:
        env: the decisions.
        ascending: comparable scores of each decision's channels, ascending.
        choices: counts that each decision may keep, ascending.
    """

    def above(threshold: float) -> np.ndarray:
        kept = [len(s) - np.searchsorted(s, threshold, "right") for s in ascending]
        return np.array([a[np.argmin(abs(a - n))] for a, n in zip(choices, kept, strict=True)])

    thresholds = [-np.inf, *np.unique(np.concatenate(ascending))]
    # All are tried in turn, as a cost need not be monotone. The last one keeps the least of all.
    at = next((i for i, t in enumerate(thresholds) if env.meets(above(t))), len(thresholds) - 1)
    counts = wanted = above(thresholds[at])
    for threshold in thresholds[:at][::-1]:
        before, wanted = wanted, above(threshold)
        for t in np.flatnonzero(wanted > before).tolist():
            # One by one, as of channels with equal scores some may fit.
            for count in choices[t][(choices[t] > counts[t]) & (choices[t] <= wanted[t])]:
                more = counts.copy()
                more[t] = count
                counts = more if env.meets(more) else counts
    return counts
