"""What is counted, and what plays: names, keys, units and titles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A cost of a network.

    Attributes:
        name: of the cost, in budgets' bounds and in results.
        title: the name in tables and charts.
        key: the name in an episode's record, where it may tell the unit.
        unit: the unit of a measured cost; empty for what is counted.
        form: the number's format.
    """

    name: str
    title: str
    key: str
    unit: str = ""
    form: str = ","

    @property
    def share(self) -> str:
        """The name of its share of the dense network's."""
        return f"{self.name}_share"

    def amount(self, value: float) -> str:
        """A value, with its unit if it has one."""
        return f"{value:{self.form}} {self.unit}".rstrip()

    def written(self, value: float) -> str:
        """A value and what it is of, for a sentence."""
        return f"{value:{self.form}} {self.unit or self.name}"


QUANTITIES: Mapping[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("macs", "MACs", "macs"),
        Quantity("params", "parameters", "params"),
        Quantity("latency", "latency", "latency_ms", "ms", ".4g"),
    )
}
# Costs that follow from a network's shapes; the others are measured on a device.
COUNTED = tuple(name for name, quantity in QUANTITIES.items() if not quantity.unit)

AGENT = "amc"  # the policy that every search plays
_LABELS: Mapping[str, str] = {AGENT: "AMC"}


def policy_label(name: str) -> str:
    """What a policy is called in tables and charts."""
    return _LABELS.get(name, name)
