"""The settings of fine-grained pruning."""

from __future__ import annotations

import dataclasses

from amc_tf.errors import AmcError


@dataclasses.dataclass(frozen=True)
class SparsitySettings:
    """Settings of `sparsify`.

    Attributes:
        densities: share of the prunable weights that each round keeps, in descending order.
        min_density: smallest density of a kernel, in (0, 1].
        refit: whether the weights that a round keeps are refitted before fine-tuning, by least
            squares on the task's calibration inputs, without labels.
    """

    densities: tuple[float, ...] = (0.5, 0.35, 0.25, 0.2)
    min_density: float = 0.05
    refit: bool = True

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.densities, self.densities[1:], strict=False))
        if not self.densities or not falling or not all(0 < d < 1 for d in self.densities):
            raise AmcError(
                "expected densities in (0, 1), each less than the one before it, received "
                f"{self.densities}"
            )
        if not 0 < self.min_density <= min(self.densities):
            raise AmcError(
                "expected min_density above 0 and at most the least of the densities "
                f"({min(self.densities)}), received {self.min_density}"
            )
