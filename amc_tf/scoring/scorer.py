"""The score of a plan, without rebuilding or retracing a model."""

from __future__ import annotations

import logging

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PlanT
from amc_tf.pruning.refit.methods import Refit
from amc_tf.scoring.base import Scorer
from amc_tf.scoring.batch_norm_folding import NotCarriedError
from amc_tf.scoring.masked_scorer import MaskedScorer
from amc_tf.scoring.tflite_scorer import LiteScorer
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)


def fastest_scorer(
    graph: ChannelGraph, task: Task, refit: Refit[PlanT] | None, stop_at: float | None = None
) -> Scorer[PlanT]:
    """The fastest scorer that the network and the user's code allow.

    Args:
        graph: the analysed model.
        task: its data and scoring code.
        refit: restores the weights of a plan before it is scored.
        stop_at: standard errors below `beat` at which a plan is given up; None
            for never. A scorer that is not the fast one never does.
    """
    try:
        return LiteScorer(graph, task, refit, stop_at)
    except NotCarriedError as reason:
        _LOG.info("plans are scored with a full-size masked model: %s", reason)
        return MaskedScorer(graph, task, refit)
