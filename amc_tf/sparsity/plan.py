"""A plan of densities: what share of each kernel's weights is kept."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.graph.plan import read_plan
from amc_tf.sparsity.kernels import STEPS

_FORMAT = "amc_tf.DensityPlan/1"


@dataclasses.dataclass(frozen=True)
class DensityPlan:
    """Densities of kernels (a `Plan`); a kernel that is not named stays dense.

    Attributes:
        steps: density of each kernel by `layer/weight`, in twentieths, 1 to 20.

    Raises:
        AmcError: a density is not a whole number from 1 to 20.
    """

    steps: Mapping[str, int]

    def __post_init__(self) -> None:
        for name, steps in self.steps.items():
            if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= STEPS:
                raise AmcError(
                    f"kernel {name!r}: expected a density in twentieths, 1 to {STEPS}, received "
                    f"{steps!r}"
                )

    @property
    def counts(self) -> tuple[int, ...]:
        """The densities in twentieths."""
        return tuple(self.steps.values())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the plan as JSON; the file appears whole or not at all."""
        files.write_json(path, files.sealed({"format": _FORMAT, "steps": dict(self.steps)}))

    @classmethod
    def load(cls, path: str | os.PathLike) -> DensityPlan:
        """Reads a plan written by `save`.

        Raises:
            AmcError: the file is missing, is not JSON, or is not such a plan.
        """
        steps = read_plan(path, _FORMAT, "plan of densities").get("steps")
        if not isinstance(steps, dict):
            raise AmcError(
                f'{path} is no plan of densities: expected "steps" to map kernel to step'
            )
        return cls(steps=steps)
