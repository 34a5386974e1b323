"""Scoring plans with one full-size model whose channels are masked."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Generic

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.graph.plan import PlanT
from amc_tf.pruning.masked_model import MaskedModel
from amc_tf.pruning.refit.methods import Refit
from amc_tf.scoring.base import channels, concatenated, refitted_weights
from amc_tf.scoring.batches import Batch, Batches
from amc_tf.training.score import Score
from amc_tf.training.task import Task


class MaskedScorer(Generic[PlanT]):
    """A scorer that runs one full-size model on the validation data.

    The user's own compile and evaluate get an ordinary Keras model, which is
    compiled and traced once (see `MaskedModel`).
    """

    def __init__(self, graph: ChannelGraph, task: Task, refit: Refit[PlanT] | None):
        self._task = task
        self._refit = refit
        self._data = task.prepared(task.validation)
        self._masked = MaskedModel(graph)
        self._model = task.compiled(self._masked.model, graph.network.model)

    def __call__(self, plan: PlanT | None, beat: float | None = None) -> Score:
        """See `Scorer`; runs all images, whatever `beat`."""
        del beat  # the user's evaluate takes all data at once
        self._assign(plan)
        return Score(self._task.score(self._model, self._data))

    def no_divergence(self) -> str | None:
        """See `Scorer`; the user's code, or Keras', runs the model and keeps its outputs."""
        if self._task.evaluate is not None:
            return "scores are what Task(evaluate=...) makes of the model, not of its outputs"
        return "plans are scored with a full-size masked model, whose outputs Keras keeps"

    def can_change(self, weights: Mapping[str, np.ndarray]) -> bool:
        """See `Scorer`; a Keras model can change every weight."""
        del weights
        return True

    def refitted_by(self, refit: Refit[PlanT]) -> MaskedScorer[PlanT]:
        """See `Scorer`."""
        other = copy.copy(self)
        other._refit = refit
        return other

    def on_part(self, images: int) -> MaskedScorer[PlanT]:
        """See `Scorer`; the user's evaluate takes all data at once."""
        del images
        return self

    @property
    def images(self) -> int | None:
        """See `Scorer`."""
        return None

    def run(self, plan: PlanT | None) -> Iterator[list[np.ndarray]]:
        """See `Scorer`."""
        return (outputs for _, outputs in self.played(plan))

    def played(self, plan: PlanT | None) -> Iterator[tuple[Batch, list[np.ndarray]]]:
        """See `Scorer`."""
        self._assign(plan)
        task = self._task
        batches = Batches(task.validation, task.batch_size, self._model, task.keep_bytes)
        for batch in batches:
            x = pack(nesting(self._model, "inputs"), batch.inputs)
            yield batch, keras.tree.flatten(self._model.predict_on_batch(x))

    def outputs(self, plan: PlanT | None) -> list[np.ndarray]:
        """See `Scorer`."""
        return concatenated(self.run(plan))

    def _assign(self, plan: PlanT | None) -> None:
        self._masked.assign(channels(plan), refitted_weights(self._refit, plan))
