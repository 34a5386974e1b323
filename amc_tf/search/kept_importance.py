"""The importance of channels, the same whenever a search is resumed."""

from __future__ import annotations

import numpy as np

from amc_tf import files
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.importance.criteria import (
    BY_GRADIENTS,
    IMPORTANCES,
    Importance,
    elimination,
)
from amc_tf.pruning.importance.halves import Halves
from amc_tf.runs import layout
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.workdir import Workdir
from amc_tf.training.fingerprint import of_data
from amc_tf.training.task import Task


def kept_importance(
    halves: Halves, task: Task, criterion: str, workdir: Workdir, of_search: bool = True
) -> Importance:
    """Returns the importance of channels, read from `workdir` if it was computed before.

    It is not computed again: shuffled training data would rank the channels
    differently, and the logged scores would then belong to other plans.

    Args:
        halves: statistics of the analysed network on calibration images.
        task: the network's data, for criteria that use it.
        criterion: a name of `IMPORTANCES`.
        workdir: work directory, where the file is read, or written if it is absent or of another
            criterion, network or training data.
        of_search: whether the search's plans keep channels by it, so that it is in
            `importance.json`; any other criterion has a file of its own.

    Raises:
        AmcError: see `amc_tf.pruning.importance.criteria.taylor`.
    """
    graph = halves.graph
    of = _of(graph, task, criterion)
    shapes = {name: (group.channels,) for name, group in graph.groups.items()}
    file = layout.IMPORTANCE if of_search else layout.importance_file(criterion)
    known = workdir.read_json(file, {})
    if known.get("criterion") == criterion and known.get("of", of) == of:
        scores = {name: np.array(values) for name, values in known["scores"].items()}
        if {name: values.shape for name, values in scores.items()} == shapes:
            return scores
    if criterion == elimination.__name__:
        # From statistics that the search needs for its curves, too.
        scores = elimination(graph, task, halves)
    else:
        scores = IMPORTANCES[criterion](graph, task)
    lists = {name: values.tolist() for name, values in scores.items()}
    workdir.write_json(file, {"criterion": criterion, "of": of, "scores": lists})
    return scores


def _of(graph: ChannelGraph, task: Task, criterion: str) -> str:
    """Returns a checksum of what the importance is computed from."""
    data = of_data(task.train) if criterion in BY_GRADIENTS else None
    return files.checksum({"model": fingerprint(graph.network.model), "train": data})


def ranks_of(importance: Importance) -> str:
    """Returns a checksum of the channels' ranks.

    A logged score is valid only for the same ranks and settings.
    """
    return files.checksum(
        {name: np.argsort(-scores, kind="stable").tolist() for name, scores in importance.items()}
    )
