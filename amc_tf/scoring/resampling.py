"""The standard errors of scores and of their differences, by resampling the validation data."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.graph.plan import PlanT
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
        kept = sampled(score, None)
        samples["validation"] = kept.seen
        deviation = Bootstrap(task, model).deviation(kept)
    return Uncertainty({name: count for name, count in samples.items() if count}, deviation)


@dataclasses.dataclass(frozen=True, eq=False)
class Sampled:
    """What a network answers to evenly spaced samples of the validation data.

    Attributes:
        seen: number of all validation samples.
        labels: labels of the samples that are kept, in the user's structure.
        outputs: one array (samples, ...) for each model output.
        weight: sample weights; None if there are none.
        order: checksum of all inputs in their order. Data may come in another one with each pass,
            and then the answers of two networks are not to the same samples.
    """

    seen: int
    labels: Any
    outputs: list[np.ndarray]
    weight: Any
    order: int


def sampled(score: Scorer[PlanT], plan: PlanT | None) -> Sampled:
    """Runs the network under a plan (None: the dense one) on the validation data."""
    parts: list[Any] = []
    seen, size, step, order = 0, 0, 1, 0
    for batch, outputs in score.played(plan):
        for array in batch.inputs:
            order = zlib.crc32(np.asarray(array).tobytes(), order)
        part = batch.labels, list(outputs), batch.sample_weight
        count = len(outputs[0])
        parts.append(_every(part, slice(-seen % step, None, step)))
        seen, size = seen + count, size + _bytes(parts[-1])
        while size > _MOST_BYTES and seen > _FEWEST * step:
            parts, step = [_every(_joined(parts), slice(0, None, 2))], 2 * step
            size = _bytes(parts[0])
    labels, outputs, weight = _joined(parts)
    return Sampled(seen, labels, outputs, weight, order)


class Bootstrap:
    """The spread of a task's metric over draws, with replacement, from samples."""

    def __init__(self, task: Task, model: keras.Model):
        self._like = task.twin(model)
        self._metric = task.metric
        self._structure = nesting(model, "outputs")

    def deviation(self, of: Sampled, than: Sampled | None = None) -> float | None:
        """Returns the standard error of the metric times the root of the number of samples.

        Args:
            of: answers of a network.
            than: answers of another network to the same samples, for the standard error of the
                difference of the two networks' metrics.

        Returns:
            The number; None if the metric is not computed from the outputs.
        """
        count = len(of.outputs[0])
        rng = np.random.default_rng(0)
        found = []
        for _ in range(_DRAWS):
            drawn = rng.integers(0, count, count)
            value = self._value(of, drawn)
            other = 0.0 if than is None else self._value(than, drawn)
            if value is None or other is None or not math.isfinite(value - other):
                return None
            found.append(value - other)
        return float(np.std(found, ddof=1)) * math.sqrt(count)

    def _value(self, of: Sampled, drawn: np.ndarray) -> float | None:
        labels, outputs, weight = _every((of.labels, of.outputs, of.weight), drawn)
        outputs = pack(self._structure, outputs)
        return metric_value(self._like, self._metric, labels, outputs, weight)


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
