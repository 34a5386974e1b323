"""What is counted, and what plays: names, keys, units and labels."""

from __future__ import annotations

from collections.abc import Mapping

_LABELS = {"amc": "AMC"}


def policy_label(name: str) -> str:
    """What a policy is called in tables and charts."""
    return _LABELS.get(name, name)


def written(name: str, value: float) -> str:
    """A cost with its unit."""
    return f"{value:.4g} ms" if name == "latency" else f"{value:,} {name}"


# Name of a cost to its key in an episode's record.
COST_KEYS: Mapping[str, str] = {"macs": "macs", "params": "params", "latency": "latency_ms"}

COST_TITLES: Mapping[str, str] = {"macs": "MACs", "params": "parameters", "latency": "latency"}
