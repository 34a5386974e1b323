"""The importance of channels, the same whenever a search is resumed."""

from __future__ import annotations

import numpy as np

from amc_tf import files
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.importance.criteria import IMPORTANCES, Importance
from amc_tf.runs import layout
from amc_tf.runs.workdir import Workdir
from amc_tf.training.task import Task


def kept_importance(
    graph: ChannelGraph, task: Task, criterion: str, workdir: Workdir
) -> Importance:
    """Returns the importance of channels, read from `workdir` if it was computed before.

    It is not computed again: shuffled training data would rank the channels
    differently, and the logged scores would then belong to other plans.

    Args:
        graph: the analysed network.
        task: the network's data, for criteria that use it.
        criterion: a name of `IMPORTANCES`.
        workdir: work directory, where `importance.json` is read, or written if it is absent or
            of another criterion or network.

    Raises:
        AmcError: see `amc_tf.pruning.importance.criteria.taylor`.
    """
    shapes = {name: (group.channels,) for name, group in graph.groups.items()}
    known = workdir.read_json(layout.IMPORTANCE, {})
    if known.get("criterion") == criterion:
        scores = {name: np.array(values) for name, values in known["scores"].items()}
        if {name: values.shape for name, values in scores.items()} == shapes:
            return scores
    scores = IMPORTANCES[criterion](graph, task)
    lists = {name: values.tolist() for name, values in scores.items()}
    workdir.write_json(layout.IMPORTANCE, {"criterion": criterion, "scores": lists})
    return scores


def ranks_of(importance: Importance) -> str:
    """Returns a checksum of the channels' ranks.

    A logged score is valid only for the same ranks and settings.
    """
    return files.checksum(
        {name: np.argsort(-scores, kind="stable").tolist() for name, scores in importance.items()}
    )
