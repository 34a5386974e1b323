"""The choice of a scorer."""

from __future__ import annotations

import logging

from amc_tf import story
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
    graph: ChannelGraph,
    task: Task,
    refit: Refit[PlanT] | None,
    stop_at: float | None = None,
    compare: bool = False,
) -> Scorer[PlanT]:
    """Makes the fastest scorer that the network and the user's code allow.

    Args:
        graph: the analysed model.
        task: its data and scoring code.
        refit: the refit that restores the weights of a plan before it is scored; None for none.
        stop_at: number of standard errors below `beat` at which the scoring of a plan
            ends early; None for never. A `MaskedScorer` never ends early.
        compare: whether scores have a divergence, where that can be measured (see
            `Scorer.no_divergence`).
    """
    try:
        return LiteScorer(graph, task, refit, stop_at, compare)
    except NotCarriedError as reason:
        story.remark(_LOG, "plans are scored with a full-size masked model: %s", reason)
        return MaskedScorer(graph, task, refit)
