"""The budget of a plan: bounds on its costs. `DecisionEnv` enforces it (`base.py`)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.runs.vocabulary import QUANTITIES


class CountCost(Protocol):
    """A function that returns a cost of a plan, given the groups' channel counts.

    It need not be monotone: latency is a staircase that goes down in places.
    """

    def __call__(self, counts: np.ndarray, /) -> float:
        """Returns the cost if group i (in the order of graph.groups) keeps `counts[i]` channels."""
        ...


class _Unknown:
    """A latency that nobody has measured yet."""

    def __call__(self, counts: np.ndarray, /) -> float:
        return 0.0


UNKNOWN_LATENCY: CountCost = _Unknown()


@dataclasses.dataclass(frozen=True)
class Budget:
    """Bounds on costs. They are never exceeded, as rounding is taken into account.

    Several may be given together, such as Budget(macs=0.5, latency_ms=12.0).

    Attributes:
        macs: bound on multiply-accumulates of one sample: a fraction of the
            dense model's (0 < macs <= 1), or an absolute number (more than 1).
        params: bound on parameters, likewise a fraction or an absolute number.
        latency_ms: bound on the milliseconds of one inference on the device.
        latency: bound on the same time as a fraction of the dense model's, at most 1.

    Raises:
        AmcError: none is given, one is not a positive number, latency is above 1, or latency is
            bounded twice.
    """

    macs: float | None = None
    params: float | None = None
    latency_ms: float | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        if not self.given:
            raise AmcError(
                "a budget bounds at least one of macs, params, latency_ms and latency, e.g. "
                "Budget(macs=0.5); received none"
            )
        for name, value in self.given.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise AmcError(
                    "a budget is a fraction of the dense cost (such as 0.5) or an absolute number, "
                    f"received {name}={value!r}"
                )
        if self.latency is not None and self.latency > 1:
            raise AmcError(
                "a budget of latency is a fraction of the dense model's, received "
                f"latency={self.latency!r}; in milliseconds it is latency_ms={self.latency!r}"
            )
        if self.latency is not None and self.latency_ms is not None:
            raise AmcError("a budget bounds latency once, by latency or by latency_ms")

    @property
    def given(self) -> dict[str, float]:
        """The bounds as they were given, by the name of the field."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def bounds_latency(self) -> bool:
        """Whether latency is bounded, so that a device is needed to check the budget."""
        return self.latency is not None or self.latency_ms is not None

    def bounds(self, costs: Mapping[str, CountCost], dense: np.ndarray) -> dict[str, float]:
        """Returns the bounds in absolute terms.

        Args:
            costs: cost functions by name: `macs`, `params` and, if it is bounded, `latency`.
            dense: the groups' full channel counts.

        Returns:
            Bounds by the name of the cost.

        Raises:
            AmcError: latency is bounded, but is not among the costs.
        """
        result: dict[str, float] = {}
        for field, value in self.given.items():
            name = next(name for name, cost in QUANTITIES.items() if field in (name, cost.key))
            if name not in costs:
                raise AmcError("a budget of latency needs a device to measure it on")
            dense_cost = costs[name](dense)
            if name == "latency":
                result[name] = self.latency_bound(dense_cost)
            else:
                result[name] = math.floor(value * dense_cost if value <= 1 else value)
        return result

    def latency_bound(self, dense_ms: float) -> float:
        """Returns the milliseconds allowed if the dense model takes `dense_ms`.

        They are infinite without a bound on latency.
        """
        if self.latency is not None:
            return self.latency * dense_ms
        return math.inf if self.latency_ms is None else self.latency_ms

    def tightened(self, factor: float) -> Budget:
        """Returns the same budget with its bound on latency divided by a factor."""
        fields = [name for name in self.given if name.startswith("latency")]
        return dataclasses.replace(self, **{f: self.given[f] / factor for f in fields})
