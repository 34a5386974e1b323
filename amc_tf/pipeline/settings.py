"""The settings of all stages."""

from __future__ import annotations

import dataclasses

from amc_tf.export.settings import ExportSettings
from amc_tf.latency.settings import LatencySettings
from amc_tf.search.settings import SearchSettings
from amc_tf.sparsity.settings import SparsitySettings
from amc_tf.training.finetune import FineTuneSettings


@dataclasses.dataclass(frozen=True)
class Settings:
    """All stages' settings.

    Attributes:
        train_dense: train the given model with the task's own fit first, and
            keep it as `dense.keras` (for models that come untrained).
        search: of the search.
        finetune: of the fine-tuning.
        export: of the TFLite files.
        latency: of the device, if the budget or the reward is of latency.
        sparsity: of fine-grained pruning, a stage of its own.
    """

    train_dense: bool = False
    search: SearchSettings = SearchSettings()
    finetune: FineTuneSettings = FineTuneSettings()
    export: ExportSettings = ExportSettings()
    latency: LatencySettings = LatencySettings()
    sparsity: SparsitySettings = SparsitySettings()


def nested(settings: type) -> dict[str, type]:
    """The sections of a class of settings: name of a field to the class of its settings."""
    return {
        field.name: type(field.default)
        for field in dataclasses.fields(settings)
        if dataclasses.is_dataclass(field.default)
    }
