"""The score of a plan, without rebuilding or retracing a model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.keras_structure import uncompiled
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.masked_model import MaskedModel
from amc_tf.pruning.refit.batch_norm import Reestimated
from amc_tf.pruning.refit.methods import Refit
from amc_tf.scoring.batch_norm_folding import NotCarriedError, fold
from amc_tf.scoring.early_stopping import hopeless, order
from amc_tf.scoring.tflite_engine import LiteEngine
from amc_tf.training.task import Data, Task, inputs_of

_LOG = logging.getLogger(__name__)
_MOST_IN_MEMORY = 2**31  # bytes of a dataset's batches


class Scorer(Protocol):
    """Scores plans on the task's validation data."""

    def __call__(self, plan: PruningPlan | None, beat: float | None = None) -> float:
        """The accuracy of the network under a plan (None: dense), before fine-tuning.

        Args:
            plan: the plan.
            beat: an accuracy of which it is enough to know that the plan's is
                well below; its estimate from part of the images then does.

        Raises:
            AmcError: the owner's metric or evaluate does not give a usable number.
        """
        ...

    def refitted_by(self, reconstruction: Refit) -> Scorer:
        """This scorer with another refit; both may be used."""
        ...

    def run(self, plan: PruningPlan | None) -> Iterator[list[np.ndarray]]:
        """Runs the network under a plan, a batch of the validation data at a time.

        Yields:
            One array (images, ...) for each model output.
        """
        ...

    def outputs(self, plan: PruningPlan | None) -> list[np.ndarray]:
        """What `run` yields, for all of the validation data at once."""
        ...


def scorer(
    graph: ChannelGraph, task: Task, reconstruction: Refit | None, stop_at: float | None = None
) -> Scorer:
    """The fastest scorer that the network and the owner's code allow.

    Args:
        graph: the analysed model.
        task: its data and scoring code.
        reconstruction: restores the weights of a plan before it is scored.
        stop_at: standard errors below `beat` at which a plan is given up; None
            for never. A scorer that is not the fast one never does.
    """
    try:
        return LiteScorer(graph, task, reconstruction, stop_at)
    except NotCarriedError as reason:
        _LOG.info("plans are scored with a full-size masked model: %s", reason)
        return MaskedScorer(graph, task, reconstruction)


class LiteScorer:
    """Scores plans by running their TFLite files, which are as small as the plan is.

    The files give the outputs; the owner's compiled Keras metrics turn them
    into the score.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        task: Task,
        reconstruction: Refit | None,
        stop_at: float | None = None,
    ):
        """Prepares the engine (see `LiteEngine`; the arguments are `scorer`'s).

        Raises:
            NotCarriedError: the network or the owner's score does not allow it.
            AmcError: the model cannot be compiled.
        """
        if task.evaluate is not None:
            raise NotCarriedError("Task(evaluate=...) wants a Keras model")
        if "loss" in task.metric:
            raise NotCarriedError(f"{task.metric!r} is no metric but a loss")
        model = graph.network.model
        self._task = task
        self._reconstruction = reconstruction
        self._stop_at = stop_at
        self._metrics = task.compiled(uncompiled(model), model)
        self._batches = _Batches(task.validation, task.batch_size, model)
        first = next(iter(self._batches)).inputs
        self._folding = fold(graph)
        if self._folding.fixed and isinstance(reconstruction, Reestimated):
            raise NotCarriedError("statistics of batch norms that cannot be folded change")
        self._engine = LiteEngine(
            self._folding.graph,
            batch_size=_divisor(len(first[0])),
            fixed=self._folding.fixed,
            inputs=first,
        )

    def carries(self, weights: Mapping[str, np.ndarray]) -> bool:
        """Whether plans may change these weights of the model, by `layer/weight`."""
        return self._engine.carries(self._folding.weights(weights))

    def __call__(self, plan: PruningPlan | None, beat: float | None = None) -> float:
        """See `Scorer`."""
        images = self._batches.images
        if beat is None or self._stop_at is None or images is None:
            return self._task.score(_Played(self._metrics), self._played(plan))

        def enough(scores: Sequence[float], sizes: Sequence[int]) -> bool:
            return hopeless(scores, sizes, images, beat, self._stop_at)

        # Data may be sorted by class, so that its first batches tell nothing of the others.
        batches = self._batches.shuffled()
        return self._task.score(
            _Played(self._metrics, self._task.metric, enough), self._played(plan, batches)
        )

    def refitted_by(self, reconstruction: Refit) -> LiteScorer:
        """See `Scorer`."""
        other = copy.copy(self)
        other._reconstruction = reconstruction
        return other

    def run(self, plan: PruningPlan | None) -> Iterator[list[np.ndarray]]:
        """See `Scorer`."""
        return (outputs for _, outputs in self._played(plan))

    def outputs(self, plan: PruningPlan | None) -> list[np.ndarray]:
        """See `Scorer`."""
        return _concatenated(self.run(plan))

    def _played(
        self, plan: PruningPlan | None, batches: Iterable[_Batch] | None = None
    ) -> Iterator[tuple[_Batch, list[np.ndarray]]]:
        weights = self._folding.weights(_refitted(self._reconstruction, plan))
        network = self._engine.network(plan, weights)
        batches = self._batches if batches is None else batches
        return ((batch, network(batch.inputs)) for batch in batches)


class MaskedScorer:
    """Scores plans on the validation data with one full-size model.

    The owner's own compile and evaluate see an ordinary Keras model, compiled
    and traced once (see `MaskedModel`).
    """

    def __init__(self, graph: ChannelGraph, task: Task, reconstruction: Refit | None):
        self._task = task
        self._reconstruction = reconstruction
        self._data = task.prepared(task.validation)
        self._masked = MaskedModel(graph)
        self._model = task.compiled(self._masked.model, graph.network.model)

    def __call__(self, plan: PruningPlan | None, beat: float | None = None) -> float:
        """See `Scorer`; runs all images, whatever `beat`."""
        del beat  # the owner's evaluate takes all data at once
        self._assign(plan)
        return self._task.score(self._model, self._data)

    def refitted_by(self, reconstruction: Refit) -> MaskedScorer:
        """See `Scorer`."""
        other = copy.copy(self)
        other._reconstruction = reconstruction
        return other

    def run(self, plan: PruningPlan | None) -> Iterator[list[np.ndarray]]:
        """See `Scorer`."""
        self._assign(plan)
        batches = _Batches(self._task.validation, self._task.batch_size, self._model)
        for batch in batches:
            x = keras.tree.pack_sequence_as(_structure(self._model, "inputs"), batch.inputs)
            yield keras.tree.flatten(self._model.predict_on_batch(x))

    def outputs(self, plan: PruningPlan | None) -> list[np.ndarray]:
        """See `Scorer`."""
        return _concatenated(self.run(plan))

    def _assign(self, plan: PruningPlan | None) -> None:
        self._masked.assign(plan, _refitted(self._reconstruction, plan))


class _Batch(NamedTuple):
    inputs: list[np.ndarray]  # in the order of the model's
    labels: Any
    sample_weight: Any


class _Batches:
    """The owner's data as arrays, in the owner's batches.

    A dataset is read once and kept if it is not too large, because its
    decoding may cost more than the network.

    Attributes:
        images: how many there are; None until they were read once.
    """

    def __init__(self, data: Data, batch_size: int, model: keras.Model):
        self._data = data
        self._batch_size = batch_size
        self._model = model
        self._kept: list[_Batch] | None = None
        self.images: int | None = None

    def __iter__(self) -> Iterator[_Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[_Batch] | None = []
        size = images = 0
        for element in self._elements():
            x, y, weight = keras.utils.unpack_x_y_sample_weight(element)
            batch = _Batch(inputs_of(x, self._model), y, weight)
            size += sum(a.nbytes for a in keras.tree.flatten(element))
            if size > _MOST_IN_MEMORY:
                kept = None
            images += len(batch.inputs[0])
            if kept is not None:
                kept.append(batch)
            yield batch
        self._kept, self.images = kept, images

    def shuffled(self) -> Iterable[_Batch]:
        """The batches in another, fixed order, if they are kept."""
        if self._kept is None:
            return self
        return [self._kept[i] for i in order(len(self._kept))]

    def _elements(self) -> Iterator[Any]:
        if not isinstance(self._data, tuple):
            for element in self._data:
                yield keras.tree.map_structure(np.asarray, element)
            return
        x, *rest = self._data
        rest = [np.asarray(a) if isinstance(a, list) else a for a in rest]
        arrays = keras.tree.map_structure(np.asarray, (x, *rest))
        for start in range(0, len(keras.tree.flatten(x)[0]), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield keras.tree.map_structure(lambda a, part=part: a[part], arrays)


class _Played:
    """The face of a compiled model for outputs that exist already: `Task.score` evaluates it.

    Args:
        model: its metrics are used.
        metric: the one that `enough` judges.
        enough: tells from the mean score and the size of each batch so far
            whether the rest is not wanted; default: it always is.
    """

    def __init__(
        self,
        model: keras.Model,
        metric: str = "",
        enough: Callable[[Sequence[float], Sequence[int]], bool] | None = None,
    ):
        self._model = model
        self._metric = metric
        self._enough = enough

    def evaluate(
        self, played: Iterator[tuple[_Batch, list[np.ndarray]]], **_: Any
    ) -> dict[str, float]:
        """The metrics of the model's compile settings (but no loss)."""
        model, structure = self._model, _structure(self._model, "outputs")
        model.reset_metrics()
        scores: list[float] = []
        sizes: list[int] = []
        before = 0.0
        for batch, outputs in played:
            predicted = keras.tree.pack_sequence_as(structure, outputs)
            model.compute_metrics(None, batch.labels, predicted, batch.sample_weight)
            if self._enough is None:
                continue
            # A metric is taken for a mean over the images, as most are.
            sizes.append(len(batch.inputs[0]))
            summed = sum(sizes) * float(model.get_metrics_result().get(self._metric, 0.0))
            scores.append((summed - before) / sizes[-1])
            before = summed
            if self._enough(scores, sizes):
                break
        return {name: float(value) for name, value in model.get_metrics_result().items()}


def _structure(model: keras.Model, side: str) -> Any:
    """How the model's inputs or outputs are nested."""
    tensors = getattr(model, side)
    return getattr(model, f"_{side}_struct", tensors if len(tensors) > 1 else tensors[0])


def _refitted(reconstruction: Refit | None, plan: PruningPlan | None) -> dict[str, np.ndarray]:
    return {} if reconstruction is None or plan is None else reconstruction.refit(plan)


def _concatenated(batches: Iterator[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]


def _divisor(count: int, preferred: int = 4) -> int:
    """A batch near the preferred one that leaves little of `count` over."""
    sizes = range(1, min(count, 2 * preferred) + 1)
    small = range(max(1, min(count, preferred // 2)), sizes.stop)
    return min(small, key=lambda size: (-count % size, abs(size - preferred)))
