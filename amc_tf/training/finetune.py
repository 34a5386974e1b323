"""Fine-tuning pruned models with the user's training code."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras

from amc_tf.errors import AmcError, choice, whole
from amc_tf.graph.features import Feature
from amc_tf.training.data import evenly_spaced
from amc_tf.training.distillation import Distillation, distilled
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)
_KEEP = ("better", "last")
DENSE_LONGER = "dense_longer"
# Inputs that show whether outputs are probabilities or logits.
_SHOWN = 64


@dataclasses.dataclass(frozen=True)
class FineTuneSettings:
    """Which networks are fine-tuned, and with which seed.

    Attributes:
        compare: policies whose networks are fine-tuned like the chosen one, so
            that the final table shows what the search gained after fine-tuning. `dense_longer`
            among them is the dense network, trained for as long by the same code: what the pruned
            network gains beyond it, it gains by more than the longer training.
        seed: seed that is set before each fine-tuning.
        keep: `better`: of the network before and after fine-tuning, the one that scores better
            on the validation data is kept; `last`: the one after it, whatever it scores.
        distill: share of the loss that follows the dense network in place of the labels, in
            whatever code trains by `Model.fit`; see `Distillation`. A step takes longer by a
            forward pass of the dense network. Code that brings a `distillation` of its own, as a
            `Recipe` does, goes by that.
        temperature: see `Distillation`.
        distill_features: see `Distillation`'s `features`.
        steps: number of steps in which a network is pruned to its plan. With more than 1, it is
            trained by the same code after each step, so that all takes as many times as long.
    """

    compare: tuple[str, ...] = ()
    seed: int = 0
    keep: str = "better"
    distill: float = 0.0
    temperature: float = 3.0
    distill_features: float = 0.0
    steps: int = 1

    def __post_init__(self) -> None:
        choice("keep", self.keep, _KEEP)
        object.__setattr__(self, "steps", whole("steps", self.steps, 1))
        self.distillation  # noqa: B018  (which refuses wrong numbers)

    @property
    def distillation(self) -> Distillation:
        """What the training follows of the dense network."""
        return Distillation(self.distill, self.temperature, self.distill_features)


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning did.

    Attributes:
        undone: whether the network from before fine-tuning was kept.
        before: score before fine-tuning, on the validation data; None if it was done earlier.
        after: score after it, on the same data, likewise.
    """

    undone: bool
    before: float | None = None
    after: float | None = None


def distillation_of(task: Task, settings: FineTuneSettings) -> Distillation:
    """Returns what a fine-tuning follows of the dense network."""
    own = getattr(task.fine_tune or task.fit, "distillation", None)
    return own if isinstance(own, Distillation) else settings.distillation


def train_pruned(
    model: keras.Model,
    dense: keras.Model,
    task: Task,
    settings: FineTuneSettings,
    features: Sequence[Feature] | None = None,
    train: Callable[[keras.Model], Any] | None = None,
) -> None:
    """Trains a compiled pruned model in place with the user's code.

    Args:
        model: the pruned model.
        dense: the model it was pruned from.
        task: data and training code.
        settings: what the training follows of the dense model, if the task does not tell.
        features: values of both models that a distillation may compare.
        train: what to run in place of the task's code.

    Raises:
        AmcError: it is to follow the dense model, and does not train by `Model.fit`.
    """
    distillation = distillation_of(task, settings)
    inputs = task.calibration_inputs(dense) if distillation else []
    few = evenly_spaced(len(inputs[0]), _SHOWN) if inputs else ()
    shown = [array[few] for array in inputs]
    with distilled(model, dense, distillation, shown, features):
        (train or task.train_pruned)(model)


def fine_tune(
    model: keras.Model,
    dense: keras.Model,
    task: Task,
    settings: FineTuneSettings | None = None,
    metric: Metric | None = None,
    features: Sequence[Feature] | None = None,
) -> FineTuned:
    """Trains a pruned model in place with the user's compile and fit.

    Args:
        model: the pruned model; it is compiled here.
        dense: the model it was pruned from, for its compile settings.
        task: data and training code.
        settings: the seed, of the random numbers of Python, NumPy and the backend, and which
            network is kept.
        metric: what the scores are, if the caller knows it.
        features: values of both models that a distillation may compare, see `features`.

    Returns:
        The scores before and after.

    Raises:
        AmcError: the training left weights that are not finite; or it is to follow the dense
            model, and does not train by `Model.fit`.
    """
    settings = settings or FineTuneSettings()
    keras.utils.set_random_seed(settings.seed)
    task.compiled(model, dense)
    metric = metric or task.metric_of(model)
    before, weights = task.score(model, task.validation), model.get_weights()
    train_pruned(model, dense, task, settings, features)
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind == "f" and not keras.ops.all(keras.ops.isfinite(values)):
            raise AmcError(
                f"fine-tuning left values that are not finite in {weight.path!r}; lower the "
                "learning rate of your fine_tune"
            )
    after = task.score(model, task.validation)
    undone = settings.keep == "better" and metric.gain(after) < metric.gain(before)
    if undone:
        model.set_weights(weights)
        _LOG.warning(
            "fine-tuning made the network worse (%s on the validation data before it, %s after): "
            "the network from before it is kept; FineTuneSettings(keep='last') keeps the last",
            metric.written(before),
            metric.number(after),
        )
    return FineTuned(undone, before, after)
