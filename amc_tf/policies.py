"""Hand-crafted policies of the paper, as opponents in the same environment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Relative preserve ratios at the first and the last group, linear in between
# (AMC, table 2: "shallow" prunes the first layers most, "deep" the last).
PROFILES: Mapping[str, tuple[float, float]] = {
    "uniform": (1.0, 1.0),
    "shallow": (0.5, 1.0),
    "deep": (1.0, 0.5),
}


def profile(name: str, groups: int) -> np.ndarray:
    """Relative preserve ratios of a hand-crafted policy, float64 (groups,)."""
    return np.linspace(*PROFILES[name], groups)
