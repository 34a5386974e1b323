"""The settings of all stages."""

from __future__ import annotations

import dataclasses

from amc_tf.export.settings import ExportSettings
from amc_tf.latency.settings import LatencySettings
from amc_tf.recovery.settings import RecoverySettings
from amc_tf.search.settings import SearchSettings
from amc_tf.sparsity.settings import SparsitySettings
from amc_tf.training.finetune import FineTuneSettings


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of all stages.

    Attributes:
        train_dense: whether the given model is first trained with the task's own fit and
            kept as `dense.keras` (for untrained models).
        fold_residuals: whether residual blocks are first turned into plain ones that compute the
            same (see `amc_tf.fold_residuals`), so that no addition ties channels. Shares in a
            budget stay those of the given model.
        rehearse: whether the whole way to the files is walked once before the search, so that
            what would fail at its end is told at once.
        search: settings of the search.
        recovery: settings of the training without labels before fine-tuning.
        finetune: settings of fine-tuning.
        export: settings of the export to TFLite files.
        latency: settings of the device, for a budget or reward of latency.
        sparsity: settings of fine-grained pruning, a separate stage.
    """

    train_dense: bool = False
    fold_residuals: bool = False
    rehearse: bool = True
    search: SearchSettings = SearchSettings()
    recovery: RecoverySettings = RecoverySettings()
    finetune: FineTuneSettings = FineTuneSettings()
    export: ExportSettings = ExportSettings()
    latency: LatencySettings = LatencySettings()
    sparsity: SparsitySettings = SparsitySettings()


def nested(settings: type) -> dict[str, type]:
    """Returns the sections of a class of settings: each section's class by its field's name."""
    return {
        field.name: type(field.default)
        for field in dataclasses.fields(settings)
        if dataclasses.is_dataclass(field.default)
    }
