"""What a fine-tuning compares on the way through the dense network."""

from __future__ import annotations

from collections.abc import Sequence

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.features import Feature
from amc_tf.graph.plan import PruningPlan
from amc_tf.recovery.imitation import features
from amc_tf.training.finetune import FineTuneSettings, distillation_of
from amc_tf.training.task import Task


def followed_features(
    graph: ChannelGraph, plan: PruningPlan, task: Task, settings: FineTuneSettings
) -> Sequence[Feature]:
    """Returns the values of the dense network that a fine-tuning compares with its own."""
    return features(graph, plan) if distillation_of(task, settings).features else ()
