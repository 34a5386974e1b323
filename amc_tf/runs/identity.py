"""What a run is: the inputs that each stage depends on, and what follows when one is another.

`config.json` holds the settings of all stages and, under `of`, fingerprints of the inputs of each
stage. The search and the training before it cannot go on with other inputs: they are refused. The
results of later stages are made again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from amc_tf.runs.former_keys import FORMER_OPTIONS, FORMER_SETTINGS
from amc_tf.runs.layout import DENSE
from amc_tf.training.fingerprint import PAIRS

# The section of fingerprints, by stage.
OF = "of"
# Notes on what a run made, beside the configuration; they are compared where they are read.
MODEL = "model"
CALIBRATION = "calibration"
PLAN = "plan"
CONDITIONS = "conditions"
EVALUATE = "evaluate"
REWARD = "reward"
NOTES = (MODEL, CALIBRATION, PLAN, CONDITIONS, EVALUATE, REWARD)
# Parts that are neither sections of settings nor the user's own, and that a run cannot change.
BUDGET = "budget"
FIT = "fit"  # arguments of `Compressor.fit`

# Parts of the configuration that only later stages read, and the sections of the result to drop
# when one of them changes. Any other part is of the search or of what comes before it.
_TUNED = ("finetuned", "tflite", "sparse")
DROPPED: Mapping[str, tuple[str, ...]] = {
    "recovery": _TUNED,
    "finetune": _TUNED,
    "export": ("tflite",),
    "sparsity": ("sparse",),
    f"{OF}.finetune": _TUNED,
    f"{OF}.export": ("tflite",),
    # Every network of the run is measured on the test data.
    f"{OF}.measures": ("dense", "policies", "pruned", *_TUNED),
}

# Sections of settings, which always hold all that a version knows.
_SETTINGS = (
    "train_dense",
    "fold_residuals",
    "rehearse",
    "search",
    "latency",
    "recovery",
    "finetune",
    "export",
    "sparsity",
    "fine_grained",
)

# What a message calls the fingerprints.
_WORDS: Mapping[str, str] = {
    MODEL: "a model with other weights",
    "architecture": "a model of another architecture",
    "weights": "a model with other weights before its training (set a seed before the model is "
    f"built, or go on with the run's own {DENSE.name})",
    "train": "other training data",
    "validation": "other validation data",
    "test": "other test data",
    "calibration": "other calibration data",
    "calibration_size": "another number of calibration inputs",
    "metric": "another metric",
    "metrics": "other metrics in compile",
    "loss": "another loss",
    "optimizer": "another optimizer",
    "fit": "other training code or arguments of fit",
    "qat": "other code of quantisation-aware training",
    "evaluate": "other code of evaluate",
}
# Parts of fingerprints that earlier versions did not write.
_NEWER = (PAIRS,)


_SETTING = "another configuration "  # told once of several settings


@dataclasses.dataclass(frozen=True)
class Difference:
    """A value that is another than in a folder's configuration.

    Attributes:
        path: keys that lead to the value.
        before: value in the folder; None if it has none.
        after: value now; None if there is none.
        own: whether it is a key of the user's own. What it changes in the search shows in
            fingerprints.
    """

    path: tuple[str, ...]
    before: Any
    after: Any
    own: bool = False

    @property
    def drops(self) -> tuple[str, ...] | None:
        """The sections of the result to drop; None where the run cannot go on."""
        if self.own:
            return _TUNED
        for part, sections in DROPPED.items():
            keys = tuple(part.split("."))
            if self.path[: len(keys)] == keys:
                return sections
        return None

    def __str__(self) -> str:
        if self.path[0] == MODEL:
            return _WORDS[MODEL]
        values = f"{self.before!r} there, {self.after!r} now"
        if self.path[0] != OF:
            return f"{_SETTING}({'.'.join(self.path)}: {values})"
        aspect, *inner = self.path[2:]
        words = _WORDS[aspect]
        if not inner:
            return words
        told = all(isinstance(value, (int, float)) for value in (self.before, self.after))
        return f"{words} ({inner[-1]}{f': {values}' if told else ''})"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Returns what differs between two configurations.

    A section of settings, or a setting, that only one of them has tells nothing, as not
    every command and version knows all of them; likewise a stage's fingerprints. Settings that
    earlier versions lacked, and that change what a search does, had their `FORMER_SETTINGS`
    and `FORMER_OPTIONS`.
    """
    old, new = {**FORMER_OPTIONS, **old}, {**FORMER_OPTIONS, **new}
    before, after = old.get(OF, {}), new.get(OF, {})
    told = "search" in before and "search" in after
    found: list[Difference] = []
    for name in sorted({*old, *new} - {*NOTES, OF}):
        settings = name in _SETTINGS
        if not settings or (name in old and name in new):
            known = old.get(name)
            if settings and isinstance(known, dict):
                known = {**FORMER_SETTINGS.get(name, {}), **known}
            leaves = _leaves((name,), known, new.get(name), only_common=settings)
            own = not settings and name not in (BUDGET, FIT) and told
            found += [dataclasses.replace(leaf, own=own) for leaf in leaves]
    for stage in sorted(set(before) & set(after)):
        for name in sorted(set(before[stage]) & set(after[stage])):
            found += _leaves((OF, stage, name), before[stage][name], after[stage][name])
    if MODEL in old and MODEL in new:
        found += _leaves((MODEL,), old[MODEL], new[MODEL])
    return found


def told(different: list[Difference]) -> str:
    """Returns the differences as a list of words, the first three of them."""
    words = list(dict.fromkeys(map(str, different)))
    shown = [
        word.removeprefix(_SETTING) if i and words[i - 1].startswith(_SETTING) else word
        for i, word in enumerate(words[:3])
    ]
    return f"{', '.join(shown)}{', ...' if len(words) > 3 else ''}"


def _leaves(
    path: tuple[str, ...], old: Any, new: Any, only_common: bool = False
) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        common = {*old} & {*new}
        for name in sorted(common if only_common else {*old, *new} - ({*_NEWER} - common)):
            yield from _leaves((*path, name), old.get(name), new.get(name), only_common)
    elif old != new:
        yield Difference(path, old, new)
