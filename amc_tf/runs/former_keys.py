"""Keys that earlier versions wrote, read under the names of now; and settings they lacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Up to format 1, every metric was called an accuracy.
_NOW: Mapping[str, str] = {
    "accuracy": "score",
    "search_accuracy": "search_score",
    "finetuned_accuracy": "finetuned_score",
}


# What earlier versions did where their configuration says nothing of a setting: its value then.
FORMER_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "search": {"sensitivity": False, "episode_samples": None, "allow_approximate": False},
    "export": {"qat_distill": 0.0},
    "finetune": {"distill": 0.0, "temperature": 3.0, "distill_features": 0.0, "steps": 1},
}

# Settings beside the sections, which not every command writes: their value then.
FORMER_OPTIONS: Mapping[str, Any] = {"fold_residuals": False}


def with_names_of_now(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record of any version by the names of this one."""
    return {_NOW.get(key, key): value for key, value in content.items()}
