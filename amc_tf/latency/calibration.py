"""From the sum of operators' times to the time of the network.

In a network, an operator finds its weights and inputs in other caches than when
it runs alone over and over, and the runtime has to go from one operator to the
next. The time of this depends on the kind of operator, so the sum of each kind
has a factor; there are also a constant, and a cost for each megabyte of
weights. All are fitted to a few whole networks by least squares. They are never
negative, and are drawn towards the plain sum, which remains where too little is
measured. A network that was timed while the device was busy with something else
must not distort the fit, so a large error counts by its size, not by its square
(Huber, "Robust Estimation of a Location Parameter", 1964).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

# Strength of the pull towards the plain sum: a factor that is off by one costs as much as a
# relative error of a tenth, squared.
_PULL = 0.01
# Relative error beyond which an error counts by its size, not by its square: undisturbed networks
# are predicted to within this.
_UNDISTURBED = 0.05
_SOLVES = 20  # of the weighted least squares; a few are enough
_CONSTANT, _WEIGHTS = "constant", "weight_mb"

Sums = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Factors of a network's parts.

    Attributes:
        factors: factor of each kind of operator; `weight_mb` in milliseconds for
            each megabyte, `constant` in milliseconds.
    """

    factors: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __call__(self, sums: Sums) -> float:
        """Returns the milliseconds of a network.

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
        examples: sums and measured milliseconds of networks.
        corrections: the same for networks that were measured because their latency matters:
            they count in full, however wrong their prediction was.

    Returns:
        The `Calibration`; that of plain sums if there are no networks.
    """
    trusted = [False] * len(examples) + [True] * len(corrections)
    examples = [*examples, *corrections]
    if not examples:
        return Calibration()
    kinds = sorted({kind for sums, _ in examples for kind in sums} - {_WEIGHTS})
    measured = np.array([ms for _, ms in examples])
    plain = np.array([[sums.get(kind, 0.0) for kind in kinds] for sums, _ in examples])
    weights = np.array([[sums.get(_WEIGHTS, 0.0)] for sums, _ in examples])
    # Columns of one size, so that the pull is equally strong for each.
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
    """Milliseconds for a megabyte at which the weights would account for all of the time."""
    return float(measured.mean() / weights.mean()) if weights.any() else 1.0
