"""The standard error of the dense network's score, by resampling the validation data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from amc_tf.graph.keras_structure import nesting, pack, uncompiled
from amc_tf.scoring.base import Scorer
from amc_tf.training.data import Data
from amc_tf.training.forms import batches_of
from amc_tf.training.task import Task
from amc_tf.training.uncertainty import Uncertainty

_DRAWS = 30  # of as many samples each; their spread is then known to about an eighth
_MOST_BYTES = 2**25  # of outputs and labels; of more, evenly spaced ones are resampled
_FEWEST = 100  # samples that are kept, however large they are


def uncertainty(score: Scorer, task: Task, model: keras.Model) -> Uncertainty:
    """Returns how uncertain the scores of a task are.

    The metric is computed anew for draws, with replacement, from the outputs of the dense
    network (the bootstrap), so that the result holds for any metric, a mean or not. What the
    user's own `evaluate` or `test_step` computes is not known sample by sample: its standard error
    is unknown.

    Args:
        score: scorer of the task's plans.
        task: the task.
        model: the dense model.
    """
    samples = {"test": _count("test", task.test, task.batch_size)}
    deviation = None
    if task.evaluate is not None:
        samples["validation"] = _count("validation", task.validation, task.batch_size)
    else:
        samples["validation"], kept = _kept(score)
        deviation = _deviation(task, model, kept)
    return Uncertainty({name: count for name, count in samples.items() if count}, deviation)


def _kept(score: Scorer) -> tuple[int, Any]:
    """Returns the number of samples, and labels, outputs and weights of evenly spaced ones."""
    parts: list[Any] = []
    seen, size, step = 0, 0, 1
    for batch, outputs in score.played(None):
        part = batch.labels, list(outputs), batch.sample_weight
        count = len(outputs[0])
        parts.append(_every(part, slice(-seen % step, None, step)))
        seen, size = seen + count, size + _bytes(parts[-1])
        while size > _MOST_BYTES and seen > _FEWEST * step:
            parts, step = [_every(_joined(parts), slice(0, None, 2))], 2 * step
            size = _bytes(parts[0])
    return seen, _joined(parts)


def _deviation(task: Task, model: keras.Model, kept: Any) -> float | None:
    """Returns the standard error of the metric times the root of the number of samples."""
    like = task.compiled(uncompiled(model), model)
    structure = nesting(model, "outputs")
    count = len(keras.tree.flatten(kept)[0])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_DRAWS):
        labels, outputs, weight = _every(kept, rng.integers(0, count, count))
        value = metric_value(like, task.metric, labels, pack(structure, outputs), weight)
        if value is None or not math.isfinite(value):
            return None
        found.append(value)
    return float(np.std(found, ddof=1)) * math.sqrt(count)


def metric_value(
    model: keras.Model, name: str, labels: Any, outputs: Any, weight: Any
) -> float | None:
    """Returns a metric of a compiled model for given outputs; None if it is not computed so."""
    if name == "loss":
        return float(model.compute_loss(None, labels, outputs, weight, training=False))
    model.reset_metrics()
    model.compute_metrics(None, labels, outputs, weight)
    value = model.get_metrics_result().get(name)
    return None if value is None or np.ndim(value) else float(value)


def _every(part: Any, which: Any) -> Any:
    return keras.tree.map_structure(lambda a: None if a is None else np.asarray(a)[which], part)


def _joined(parts: list[Any]) -> Any:
    return keras.tree.map_structure(
        lambda *arrays: None if arrays[0] is None else np.concatenate(arrays), *parts
    )


def _bytes(part: Any) -> int:
    return sum(a.nbytes for a in keras.tree.flatten(part) if a is not None)


def _count(split: str, data: Data, batch_size: int) -> int | None:
    """Returns the number of samples, by a pass over them where they are not arrays.

    The length of a dataset counts its batches, the last of which may be smaller.
    """
    if data is None or isinstance(data, Iterator):  # a pass would use an iterator up
        return None
    if isinstance(data, tuple):
        return len(keras.tree.flatten(data[0])[0])
    return sum(len(keras.tree.flatten(x)[0]) for x, _, _ in batches_of(split, data, batch_size))
