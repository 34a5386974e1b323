"""The conditions under which numbers are computed, on which their last digits depend."""

from __future__ import annotations

import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from amc_tf.runs.provenance import versions

# Raised when amc_tf itself begins to compute other numbers from the same inputs.
_NUMERICS = 1
_COMPUTE = ("tensorflow", "keras", "ai-edge-litert", "numpy", "tf-agents")


def conditions() -> dict[str, dict[str, Any]]:
    """Returns the versions of what computes, and the machine it runs on."""
    found = versions()
    return {
        "versions": {
            **{name: found[name] for name in _COMPUTE if name in found},
            "numerics of amc_tf": _NUMERICS,
        },
        "machine": {
            "processor": _processor(),
            "threads": tf.config.threading.get_intra_op_parallelism_threads()
            or len(os.sched_getaffinity(0)),
            "GPUs": len(tf.config.list_physical_devices("GPU")),
        },
    }


def told(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Returns the entries that differ, in words; empty if none does."""
    return ", ".join(
        f"{name} {old.get(name)} there, {new.get(name)} now"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    )


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
