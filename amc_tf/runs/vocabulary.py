"""The vocabulary of costs and policies: names, keys, units and titles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A cost of a network.

    Attributes:
        name: name of the cost in the bounds of budgets and in results.
        title: name in tables and charts.
        key: name in an episode's record; it may include the unit.
        unit: unit of a measured cost; empty for a cost that is counted.
        form: format of the number.
    """

    name: str
    title: str
    key: str
    unit: str = ""
    form: str = ","

    @property
    def share(self) -> str:
        """Name of the share of the dense network's cost."""
        return f"{self.name}_share"

    def amount(self, value: float) -> str:
        """Formats a value with its unit, if it has one."""
        return f"{value:{self.form}} {self.unit}".rstrip()

    def written(self, value: float) -> str:
        """Formats a value with its unit or name, for a sentence."""
        return f"{value:{self.form}} {self.unit or self.title}"


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
_LABELS: Mapping[str, str] = {
    AGENT: "AMC",
    "global_l2": "global L2",
    "global_taylor": "global Taylor",
    "global_bn": "global BN",
}


def policy_label(name: str) -> str:
    """Returns the name of a policy in tables and charts."""
    return _LABELS.get(name, name)
