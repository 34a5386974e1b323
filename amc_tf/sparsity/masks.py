"""Masks of weights, which hold while a model is trained."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.weights import named_weight, numpy_of
from amc_tf.sparsity.kernels import kernels
from amc_tf.sparsity.plan import DensityPlan


class MagnitudeMasks:
    """A `Refit` that sets the smallest weights of a plan's kernels to zero.

    Attributes:
        kernels: the model's kernels by name.
    """

    def __init__(self, graph: ChannelGraph):
        self.kernels = {kernel.name: kernel for kernel in kernels(graph)}

    def masks(self, plan: DensityPlan) -> dict[str, np.ndarray]:
        """Returns the masks of the plan's kernels, True for weights kept, by `layer/weight`.

        Raises:
            AmcError: the plan names a kernel that the model lacks.
        """
        unknown = [name for name in plan.steps if name not in self.kernels]
        if unknown:
            raise AmcError(
                f"the plan names a kernel {unknown[0]!r}, which the model lacks; was it made for "
                "another model?"
            )
        return {name: self.kernels[name].mask(steps) for name, steps in plan.steps.items()}

    def refit(self, plan: DensityPlan) -> dict[str, np.ndarray]:
        """Returns the masked kernels, by `layer/weight`, without those that stay dense."""
        return {
            name: np.where(mask, numpy_of(self.kernels[name].weight), 0)
            for name, mask in self.masks(plan).items()
            if not mask.all()
        }


class Masked(keras.constraints.Constraint):
    """A constraint that keeps masked weights at zero; Keras optimizers apply it after each step.

    So the user's training code needs no change, whatever its loop is.

    Args:
        mask: True for the weights kept, boolean, shaped as the weight.
    """

    def __init__(self, mask: np.ndarray):
        self._mask = np.asarray(mask)

    def __call__(self, w):
        """Returns the weight with zeros where the mask is False."""
        return w * keras.ops.cast(self._mask, w.dtype)


def constrain(model: keras.Model, masks: Mapping[str, np.ndarray]) -> None:
    """Sets masked weights of a model to zero, and keeps them there while it is trained.

    Args:
        model: the model, which is changed in place; compile it afterwards.
        masks: masks that `MagnitudeMasks.masks` returned.

    Raises:
        AmcError: a weight already has another constraint.
    """
    for name, mask in masks.items():
        weight = _weight(model, name)
        if weight.constraint is not None and not isinstance(weight.constraint, Masked):
            raise AmcError(
                f"the weight {name!r} has the constraint {weight.constraint!r}, which the mask "
                "would replace; remove it"
            )
        weight.assign(np.where(mask, numpy_of(weight), 0))
        weight.constraint = Masked(mask)


def release(model: keras.Model, masks: Mapping[str, np.ndarray]) -> None:
    """Removes the constraints again, so that a saved model holds plain weights."""
    for name in masks:
        _weight(model, name).constraint = None


def density(model: keras.Model, names: Mapping[str, np.ndarray]) -> float:
    """Returns the share of the named weights' elements that are not zero."""
    values = [numpy_of(_weight(model, name)) for name in names]
    return sum(np.count_nonzero(v) for v in values) / max(1, sum(v.size for v in values))


def _weight(model: keras.Model, name: str):
    layer, _, weight = name.rpartition("/")
    return named_weight(model.get_layer(layer), weight)
