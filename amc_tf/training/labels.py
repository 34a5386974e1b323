"""What the losses of Keras read as labels, so that other labels are refused before work."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import keras

from amc_tf.training.data import output_names

_OF_CLASSES = (keras.losses.sparse_categorical_crossentropy,)
_OF_SHARES = (
    keras.losses.binary_crossentropy,
    keras.losses.binary_focal_crossentropy,
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
)
# Losses whose labels are numbers like the outputs.
_OF_OUTPUTS = (
    keras.losses.mean_squared_error,
    keras.losses.mean_absolute_error,
    keras.losses.mean_squared_logarithmic_error,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.huber,
    keras.losses.log_cosh,
    keras.losses.kl_divergence,
    keras.losses.poisson,
    keras.losses.cosine_similarity,
    keras.losses.dice,
    keras.losses.tversky,
)


@dataclasses.dataclass(frozen=True)
class LabelRule:
    """What the loss of an output reads as labels.

    Attributes:
        own: whether the loss is Keras' own, to which a label that is no finite number is an
            error. The user's may read it as "no label", or read anything.
        classes: whether all labels stand for classes, also floats and those of single positions.
            Otherwise only whole numbers are taken for classes, one for each sample.
        ignored: class that stands for no label.
        shares: name of the loss, if labels are probabilities.
        outputs: whether labels are numbers like the outputs, so that another network's outputs can
            take their place.
    """

    own: bool = False
    classes: bool = False
    ignored: int | None = None
    shares: str = ""
    outputs: bool = False

    @property
    def may_be_classes(self) -> bool:
        """Whether the values of the output may stand for classes, so that the largest counts."""
        return self.classes or bool(self.shares) or not self.own


def label_rules(model: keras.Model | None, outputs: int) -> list[LabelRule]:
    """Returns the rule of each output of a compiled model.

    Args:
        model: the model; None if it is not known how it is compiled.
        outputs: its number of outputs.
    """
    return [_rule(loss) for loss in of_outputs(model, getattr(model, "loss", None), outputs)]


def of_outputs(model: keras.Model | None, given: Any, outputs: int) -> list[Any]:
    """Returns what `compile` was given for each output: losses, or their weights.

    Args:
        model: the model, whose names of outputs may be keys; None if it is not known.
        given: one for all outputs, or a list or dict of one for each.
        outputs: number of outputs; None is returned for each where `given` does not fit them.
    """
    if isinstance(given, dict) and model is not None:
        found = [given.get(name) for name in output_names(model)]
    else:
        found = keras.tree.flatten(given)
    if len(found) == 1:
        found *= outputs
    return found if len(found) == outputs else [None] * outputs


def _rule(loss: Any) -> LabelRule:
    function = _function(loss)
    if function is None:
        return LabelRule()
    return LabelRule(
        own=True,
        classes=function in _OF_CLASSES,
        ignored=getattr(loss, "ignore_class", None),
        shares=function.__name__ if function in _OF_SHARES else "",
        outputs=function in _OF_OUTPUTS,
    )


def _function(loss: Any) -> Callable | None:
    """Returns what a loss computes; None of a loss of the user's."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if not isinstance(loss, types.FunctionType) and _is_of_keras(type(loss)):
        loss = getattr(loss, "fn", None)  # the classes of Keras wrap functions
    return loss if isinstance(loss, types.FunctionType) and _is_of_keras(loss) else None


def _is_of_keras(named: Any) -> bool:
    return named.__module__.split(".")[0] == "keras"
