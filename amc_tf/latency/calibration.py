"""From the sum of operators' times to the time of the network.

In a network the operators find their weights and inputs elsewhere in the caches
than when each runs alone over and over, and the runtime passes from one to the
next. How much that takes depends on the kind of the operator, so each kind's
sum has a factor, beside a constant and a cost of each megabyte of weights. They
are fitted to a few whole networks by least squares, never negative, and drawn
towards the plain sum, which is what remains where too little is measured. A
network that was timed while something else kept the device busy must not bend
them, so errors beyond what the others show count by their size alone (Huber,
"Robust Estimation of a Location Parameter", 1964).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

# Strength of the pull towards the plain sum. The errors fitted are relative ones: this is as much
# as the square of a tenth for a factor that is off by one.
_PULL = 0.01
# Relative error beyond which one counts by its size, not its square: what an undisturbed network
# is foreseen to. The weights settle within a few solves.
_UNDISTURBED = 0.05
_SOLVES = 20
_CONSTANT, _WEIGHTS = "constant", "weight_mb"

Sums = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Factors of a network's parts.

    Attributes:
        factors: of each kind of operator; `weight_mb` in milliseconds for each
            megabyte, `constant` in milliseconds.
    """

    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __call__(self, sums: Sums) -> float:
        """Milliseconds of a network.

        Args:
            sums: milliseconds of the operators by kind, and `weight_mb`.
        """
        get = self.factors.get
        parts = (ms * get(kind, float(kind != _WEIGHTS)) for kind, ms in sums.items())
        return sum(parts) + get(_CONSTANT, 0.0)


def calibrate(
    examples: Sequence[tuple[Sums, float]], corrections: Sequence[tuple[Sums, float]] = ()
) -> Calibration:
    """Fits the factors.

    Args:
        examples: a network's sums, and its measured milliseconds.
        corrections: the same of networks that were measured because it matters what they take:
            they count in full, however wrong they were foreseen.

    Returns:
        The `Calibration`; that of plain sums if there are no examples.
    """
    trusted = [False] * len(examples) + [True] * len(corrections)
    examples = [*examples, *corrections]
    if not examples:
        return Calibration()
    kinds = sorted({kind for sums, _ in examples for kind in sums} - {_WEIGHTS})
    measured = np.array([ms for _, ms in examples])
    plain = np.array([[sums.get(kind, 0.0) for kind in kinds] for sums, _ in examples])
    weights = np.array([[sums.get(_WEIGHTS, 0.0)] for sums, _ in examples])
    # Columns of one size, so that the pull is as strong for each.
    scale = np.concatenate([np.ones(len(kinds)), [measured.mean()], [_unit(weights, measured)]])
    columns = np.hstack([plain, np.ones_like(weights), weights]) * scale
    rows = columns / measured[:, None]
    prior = np.array([1.0] * len(kinds) + [0.0, 0.0])
    pull = np.sqrt(_PULL)
    found = prior
    for _ in range(_SOLVES):
        error = np.abs(rows @ found - 1)
        trust = np.sqrt(_UNDISTURBED / np.maximum(error, _UNDISTURBED))
        trust = np.where(trusted, 1.0, trust)
        a = np.vstack([rows * trust[:, None], pull * np.eye(len(prior))])
        b = np.concatenate([trust, pull * prior])
        found = nnls(a, b)[0]
    factors = found * scale
    return Calibration(dict(zip([*kinds, _CONSTANT, _WEIGHTS], factors.tolist(), strict=True)))


def _unit(weights: np.ndarray, measured: np.ndarray) -> float:
    """Milliseconds for a megabyte at which weights would take all of the time."""
    return float(measured.mean() / weights.mean()) if weights.any() else 1.0
