"""AMC: reinforcement-learned channel pruning of Keras models for TFLite.

Names are loaded on first use: the agent's process imports this package without
Keras 3, and `--help` should not wait for TensorFlow.
"""

import importlib
from typing import Any

_HOME = {
    "AmcError": "amc_tf.errors",
    "Compression": "amc_tf.pipeline.compression",
    "Budget": "amc_tf.search.env.budget",
    "Compressor": "amc_tf.pipeline.compressor",
    "Constraints": "amc_tf.graph.constraints",
    "DdpgSettings": "amc_tf.search.agents.ddpg.settings",
    "ExportSettings": "amc_tf.export.settings",
    "Exporter": "amc_tf.export.exporter",
    "FineTuneSettings": "amc_tf.training.finetune",
    "LatencySettings": "amc_tf.latency.settings",
    "LayerKind": "amc_tf.graph.layer_kinds",
    "LayerRule": "amc_tf.graph.layer_rule",
    "Product": "amc_tf.graph.layer_kinds",
    "PruningPlan": "amc_tf.graph.plan",
    "SearchSettings": "amc_tf.search.settings",
    "Settings": "amc_tf.pipeline.settings",
    "Task": "amc_tf.training.task",
    "analyze": "amc_tf.graph.analysis",
    "compress": "amc_tf.pipeline.compression",
    "describe": "amc_tf.graph.inspection.listing",
    "export_tflite": "amc_tf.export.exporter",
    "default_config": "amc_tf.pipeline.config",
    "fine_tune": "amc_tf.training.finetune",
    "from_keras2": "amc_tf.keras2.convert",
    "load_model": "amc_tf.runs.model_files",
    "macs": "amc_tf.graph.costs",
    "mask": "amc_tf.pruning.masking",
    "params": "amc_tf.graph.costs",
    "rebuild": "amc_tf.pruning.surgery",
    "register_layer": "amc_tf.graph.registration",
    "search_plan": "amc_tf.search.plan_search",
    "to_keras2": "amc_tf.keras2.convert",
    "verify": "amc_tf.pruning.verification",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'amc_tf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
