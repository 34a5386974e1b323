"""Scoring plans with the TFLite files of their networks."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic

import keras
import numpy as np

from amc_tf import story
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.graph.own_classes import own_steps
from amc_tf.graph.plan import PlanT
from amc_tf.pruning.refit.batch_norm import Reestimated
from amc_tf.pruning.refit.methods import Refit
from amc_tf.pruning.refit.runner import RunByOthers
from amc_tf.scoring.base import channels, concatenated, refitted_weights
from amc_tf.scoring.batch_norm_folding import NotCarriedError, fold
from amc_tf.scoring.batches import Batch, Batches, Part
from amc_tf.scoring.compared import MOST_BYTES, Compared, DenseOutputs
from amc_tf.scoring.early_stopping import ByDivergence, ByScore, Rule
from amc_tf.scoring.tflite_engine import LiteEngine
from amc_tf.scoring.tflite_runner import LiteRunner
from amc_tf.training.divergence import KL, divergence
from amc_tf.training.score import Score
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)


class LiteScorer(Generic[PlanT]):
    """A scorer that runs the TFLite files of pruned networks, at their small size.

    The files give the outputs; the user's compiled Keras metrics turn them
    into the score.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        task: Task,
        refit: Refit[PlanT] | None,
        stop_at: float | None = None,
        compare: bool = False,
    ):
        """Prepares the engine (see `LiteEngine`; the arguments are `fastest_scorer`'s).

        Raises:
            NotCarriedError: the network or the user's scoring code does not allow it.
            AmcError: the model cannot be compiled.
        """
        if task.evaluate is not None:
            raise NotCarriedError("Task(evaluate=...) needs a Keras model")
        steps = own_steps(graph.network.model)
        if steps:
            raise NotCarriedError(f"the model's class has a {steps[0]} of its own")
        model = graph.network.model
        if task.metric == "loss" and model.losses:
            raise NotCarriedError("the loss has penalties of weights, which pruning changes")
        if task.metric.endswith("_loss"):
            raise NotCarriedError(f"{task.metric!r} is the loss of one output")
        self._task = task
        self._graph = graph
        self._stop_at = stop_at
        self._metrics = task.twin(model)
        batches = Batches(task.validation, task.batch_size, model, task.keep_bytes)
        first = next(iter(batches)).inputs
        self._batches: Batches | Part = batches
        self._folding = fold(graph)
        if self._folding.fixed and isinstance(refit, Reestimated):
            raise NotCarriedError("the refit changes statistics of batch norms that are not folded")
        self._engine = LiteEngine(
            self._folding.graph,
            batch_size=_divisor(len(first[0])),
            fixed=self._folding.fixed,
            inputs=first,
        )
        self._refit = self._run_here(refit)
        self._dense: DenseOutputs | None = None
        measure = divergence(self._metrics)
        self._why_none = self._not_compared(measure.name) if compare else "it was not asked for"
        if not self._why_none:
            self._dense = DenseOutputs(measure, MOST_BYTES)

    def _not_compared(self, measure: str) -> str:
        """Returns why outputs are not compared, as far as is known before they are run."""
        if self._task.metric == "loss":
            return "the metric is the loss, which is as smooth"
        if measure != KL:
            return f"the loss takes no probabilities, whose {KL} is taken"
        return ""

    def no_divergence(self) -> str | None:
        """See `Scorer`."""
        if self._dense is not None and self._dense.images is None:
            return "the dense network was not scored yet"
        return self._why_none or None

    def can_change(self, weights: Mapping[str, np.ndarray]) -> bool:
        """See `Scorer`."""
        return self._engine.carries(self._folding.weights(weights))

    def __call__(self, plan: PlanT | None, beat: float | None = None) -> Score:
        """See `Scorer`."""
        if plan is None and self._dense is not None and self._dense.images is None:
            return self._score_dense(self._dense)
        compared = None
        if self._dense is not None and self._dense.images is not None:
            compared = Compared(self._dense)
        images = self._batches.images
        # Data may be sorted by class, so that its first batches say nothing about the others.
        batches = self._batches.shuffled()
        rule = None
        if beat is not None and self._stop_at is not None and images and batches is not None:
            rule = self._rule(beat, compared, images)
        played = self._run(plan, self._batches if rule is None or batches is None else batches)
        model = _Played(self._metrics, self._task.metric, rule)
        score = self._task.score(model, played if compared is None else compared.of(played))
        cut = rule is not None and model.images < (images or 0)
        return Score(score, None if compared is None else compared.divergence, cut)

    def _rule(self, beat: float, compared: Compared | None, images: int) -> Rule:
        assert self._stop_at is not None
        if compared is not None and isinstance(beat, Score) and beat.divergence is not None:
            return ByDivergence(compared, beat.divergence, self._stop_at)
        gain = self._task.metric_of(self._metrics).gain
        return ByScore(gain, images, beat, self._stop_at)

    def _score_dense(self, dense: DenseOutputs) -> Score:
        """Scores the dense network, and keeps its outputs if others can be compared with them."""
        played = dense.of(self.played(None))
        score = self._task.score(_Played(self._metrics, self._task.metric), played)
        if not self._batches.repeats:
            self._why_none = (
                "the validation data is read anew for each plan, perhaps in another order"
            )
        elif not dense.images:
            self._why_none = f"the outputs for one batch take more than {MOST_BYTES:,} bytes"
        if self._why_none:
            self._dense = None
        return Score(score, None if self._why_none else 0.0)

    def refitted_by(self, refit: Refit[PlanT]) -> LiteScorer[PlanT]:
        """See `Scorer`."""
        other = copy.copy(self)
        other._refit = self._run_here(refit)
        return other

    def on_part(self, images: int) -> LiteScorer[PlanT]:
        """See `Scorer`."""
        part = self._batches.part(images) if isinstance(self._batches, Batches) else None
        if part is None:
            return self
        other = copy.copy(self)
        other._batches = part
        if self._dense is not None:
            other._dense = DenseOutputs(divergence(self._metrics), MOST_BYTES)
            other._score_dense(other._dense)
        return other

    @property
    def images(self) -> int | None:
        """See `Scorer`."""
        return None if isinstance(self._batches, Batches) else self._batches.images

    def _run_here(self, refit: Refit[PlanT] | None) -> Refit[PlanT] | None:
        """Returns a refit that runs its pruned networks by LiteRT too, if it runs any."""
        if not isinstance(refit, RunByOthers):
            return refit
        what = self._graph, self._folding, self._engine
        try:
            return refit.run_by(lambda stops, images: LiteRunner(*what, stops, images))
        except NotCarriedError as reason:
            story.remark(_LOG, "the refit runs pruned networks by Keras: %s", reason)
            return refit

    def run(self, plan: PlanT | None) -> Iterator[list[np.ndarray]]:
        """See `Scorer`."""
        return (outputs for _, outputs in self.played(plan))

    def outputs(self, plan: PlanT | None) -> list[np.ndarray]:
        """See `Scorer`."""
        return concatenated(self.run(plan))

    def played(self, plan: PlanT | None) -> Iterator[tuple[Batch, list[np.ndarray]]]:
        """See `Scorer`."""
        return self._run(plan, self._batches)

    def _run(
        self, plan: PlanT | None, batches: Iterable[Batch]
    ) -> Iterator[tuple[Batch, list[np.ndarray]]]:
        weights = self._folding.weights(refitted_weights(self._refit, plan))
        network = self._engine.network(channels(plan), weights)
        return ((batch, network(batch.inputs)) for batch in batches)


class _Played:
    """A stand-in for a compiled model whose outputs exist already; `Task.score` evaluates it.

    Args:
        model: the compiled model, whose metrics are used.
        metric: the task's metric.
        enough: rule by which the rest can be left out; None if it never can.

    Attributes:
        images: number of images that were played.
    """

    def __init__(
        self,
        model: keras.Model,
        metric: str,
        enough: Rule | None = None,
    ):
        self._model = model
        self._metric = metric
        self._enough = enough
        self.images = 0

    def evaluate(
        self, played: Iterator[tuple[Batch, list[np.ndarray]]], **_: Any
    ) -> dict[str, float]:
        """Computes the metrics of the model's compile settings, and the loss if it is wanted."""
        model, structure = self._model, nesting(self._model, "outputs")
        model.reset_metrics()
        loss = keras.metrics.Mean() if self._metric == "loss" else None

        def running() -> float:
            return self._results(loss).get(self._metric, 0.0)

        self.images = 0
        for batch, outputs in played:
            predicted = pack(structure, outputs)
            model.compute_metrics(None, batch.labels, predicted, batch.sample_weight)
            if loss is not None:
                # As `evaluate` averages it: over batches, by their sizes.
                value = model.compute_loss(
                    None, batch.labels, predicted, batch.sample_weight, training=False
                )
                loss.update_state(value, sample_weight=len(batch.inputs[0]))
            self.images += len(batch.inputs[0])
            if self._enough is not None and self._enough(running, len(batch.inputs[0])):
                break
        return self._results(loss)

    def _results(self, loss: keras.metrics.Metric | None) -> dict[str, float]:
        found = self._model.get_metrics_result()
        if loss is not None:
            found["loss"] = loss.result()
        # A metric that is no number is not the task's.
        return {name: float(value) for name, value in found.items() if not np.ndim(value)}


def _divisor(count: int, preferred: int = 4) -> int:
    """Returns a batch size near the preferred one whose last batch of `count` is nearly full."""
    sizes = range(1, min(count, 2 * preferred) + 1)
    small = range(max(1, min(count, preferred // 2)), sizes.stop)
    return min(small, key=lambda size: (-count % size, abs(size - preferred)))
