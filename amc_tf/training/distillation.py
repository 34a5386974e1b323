"""Distillation: in any training code, a pruned network's loss follows the dense network, too.

The training code stays as it is. While it runs, `compute_loss` of the model, which every step of
`Model.fit` and `train_on_batch` calls, adds how far the outputs are from the dense network's on the
same inputs (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf import story
from amc_tf.errors import AmcError, number
from amc_tf.graph.features import Feature, with_features
from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.training.compile_settings import CompileSettings
from amc_tf.training.data import output_names
from amc_tf.training.divergence import reader
from amc_tf.training.labels import LabelRule, label_rules, of_outputs
from amc_tf.training.log_shares import LOG_SHARES

_LOG = logging.getLogger(__name__)

# Share of a feature's mean square that counts as variance.
_LEAST_VARIANCE = 1e-3

# (the dense network's values, others) -> a mean over the samples.
Error = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How much of the loss follows the dense network.

    Attributes:
        share: share of the loss on the labels that the dense network takes the place of. Of
            outputs that are probabilities or their logits, it is the KL divergence at
            `temperature`, times its square; of others the compiled loss of Keras with the dense
            network's outputs as labels, and for a loss of the user's own the squared error
            relative to the variance of the dense network's outputs in the batch. Sample weights
            count in what is left to the labels.
        temperature: the logits are divided by it.
        features: weight of the squared error of the features that kernels read, each relative to
            its variance.
    """

    share: float = 0.5
    temperature: float = 3.0
    features: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = number(f"{field.name} of a distillation", getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if not 0 <= self.share <= 1:
            raise AmcError(f"expected a share to distill in [0, 1], received {self.share!r}")
        if not 0 < self.temperature < math.inf:
            raise AmcError(f"expected a temperature above 0, received {self.temperature!r}")
        if not 0 <= self.features < math.inf:
            raise AmcError(f"expected features of at least 0, received {self.features!r}")

    def __bool__(self) -> bool:
        return self.share > 0 or self.features > 0


@contextlib.contextmanager
def distilled(
    model: keras.Model,
    dense: keras.Model,
    distillation: Distillation,
    inputs: Sequence[np.ndarray],
    features: Sequence[Feature] | None = None,
) -> Iterator[None]:
    """Returns a context in which a model's training follows the dense network.

    The loss of an evaluation stays as it was compiled.

    Args:
        model: a compiled pruned model; its compile settings may change in the context.
        dense: the dense model, of the same inputs and outputs.
        distillation: what is followed, and how much.
        inputs: a few inputs, one array for each model input, which show whether outputs are
            probabilities or logits.
        features: the values of both networks that are compared, if `distillation` says so.

    Raises:
        AmcError: features are to be compared, and none are given; the model is not compiled; or no
            step of the training called `compute_loss`.
    """
    if not distillation:
        yield
        return
    if distillation.features and features is None:
        raise AmcError(
            f"features are to be followed (with a weight of {distillation.features}), but it is "
            "not known which; give fine_tune(..., features=amc_tf.features(graph, plan))"
        )
    if not model.compiled:
        raise AmcError(
            "the model is not compiled, so that it is not known what its outputs hold and how they "
            "follow the dense network's; give Task(compile=...), or distill=0"
        )
    watched = features if features and distillation.features else ()
    teacher = with_features(dense, watched) if watched else dense
    student = with_features(model, watched) if watched else None
    shown = [keras.ops.convert_to_numpy(v) for v in keras.tree.flatten(_of_all(dense, inputs))]
    errors = _errors(model, shown, distillation.temperature)
    count = len(model.outputs)
    own, call = model.compute_loss, model.call
    seen: list[Any] = []  # features of the step that is traced
    steps = 0

    def following_call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if student is None or not training:
            return call(inputs, training=training, mask=mask)
        values = student(inputs, training=training)
        seen[:] = values[count:]
        return keras.tree.pack_sequence_as(model.output, values[:count])

    def compute_loss(
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        nonlocal steps
        loss = own(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if not training:
            return loss
        steps += 1
        told = [keras.ops.stop_gradient(v) for v in keras.tree.flatten(teacher(x, training=False))]
        found = keras.tree.flatten(y_pred)
        # The features of the dense network stand behind its outputs.
        followed = sum(e(d, s) for e, d, s in zip(errors, told[:count], found, strict=True))
        of_labels = loss - sum(model.losses, start=0.0)
        loss = loss + distillation.share * (keras.ops.cast(followed, loss.dtype) - of_labels)
        if watched:
            kept = [
                keras.ops.take(values, feature.kept, axis=-1)
                for values, feature in zip(told[count:], watched, strict=True)
            ]
            each = [_relative(d, s, _LEAST_VARIANCE) for d, s in zip(kept, seen, strict=True)]
            loss = loss + distillation.features / len(each) * sum(each)
        return loss

    model.compute_loss = compute_loss
    if student is not None:
        model.call = following_call
    try:
        yield
    finally:
        del model.compute_loss
        if student is not None:
            del model.call
        model.train_function = None  # traced with the dense network in it
    if not steps:
        raise AmcError(
            "the training code took no step by Model.fit or train_on_batch of the model that it "
            "was given, so that it cannot follow the dense network; train that model by these, "
            "call its compute_loss in a loop of your own, or use FineTuneSettings(distill=0)"
        )


def _of_all(dense: keras.Model, inputs: Sequence[np.ndarray]) -> Any:
    tensors = [
        keras.ops.cast(array, tensor.dtype)
        for array, tensor in zip(inputs, dense.inputs, strict=True)
    ]
    return dense(pack(nesting(dense, "inputs"), tensors), training=False)


def _errors(model: keras.Model, dense: Sequence[np.ndarray], temperature: float) -> list[Error]:
    """Returns for each output what is followed of it, times its weight in the loss."""
    count = len(model.outputs)
    weights = of_outputs(model, CompileSettings.of(model).arguments.get("loss_weights"), count)
    each = zip(
        output_names(model),
        label_rules(model, count),
        of_outputs(model, model.loss, count),
        weights,
        dense,
        strict=True,
    )
    return [
        _weighted(_error(name, rule, loss, told, temperature), weight)
        for name, rule, loss, weight, told in each
    ]


def _weighted(error: Error, weight: float | None) -> Error:
    return error if weight is None else lambda told, found: weight * error(told, found)


def _error(name: str, rule: LabelRule, loss: Any, dense: np.ndarray, temperature: float) -> Error:
    read = reader(rule)
    if read is not None:
        return _softened(LOG_SHARES[read.kind, read.is_logits(dense)], temperature)
    if rule.outputs:
        compiled = keras.losses.get(loss)
        return lambda told, found: keras.ops.mean(compiled(told, found))
    what = "distillation: the output %r is followed by its relative squared error"
    story.remark(_LOG, what, name)
    return _relative


def _softened(logs: Callable[[Any], Any], temperature: float) -> Error:
    def error(told: Any, found: Any) -> Any:
        p, q = (
            keras.ops.log_softmax(logs(keras.ops.cast(v, "float32")) / temperature, axis=-1)
            for v in (told, found)
        )
        each = keras.ops.sum(keras.ops.exp(p) * (p - q), axis=-1)
        return temperature**2 * keras.ops.mean(each)

    return error


def _relative(told: Any, found: Any, least: float = 0.0) -> Any:
    told, found = (keras.ops.cast(values, "float32") for values in (told, found))
    variance = keras.ops.mean(keras.ops.var(told, axis=0))
    variance = variance + least * keras.ops.mean(keras.ops.square(told)) + 1e-30
    return keras.ops.mean(keras.ops.square(found - told)) / variance
