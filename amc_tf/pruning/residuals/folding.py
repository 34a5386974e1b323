"""Residual blocks turned into plain ones."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.graph.analysis import analyze
from amc_tf.graph.flattening import flatten
from amc_tf.graph.keras_structure import like
from amc_tf.pruning.residuals.blocks import Unfoldable, additions, block_of
from amc_tf.pruning.residuals.moments import measured
from amc_tf.pruning.residuals.plan import Fold, fold_of
from amc_tf.pruning.residuals.ranges import ranges
from amc_tf.pruning.residuals.widening import widened
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.verification import noise, outputs_of, relative_difference

MOST_GROWTH = 4.0
_LOG = logging.getLogger(__name__)
_TOLERANCE, _TOLERANCE_OF_HALVES = 1e-3, 0.05  # of the largest output, as in `verify`
_CHECKED = 4  # of the inputs given


@dataclasses.dataclass(frozen=True)
class Residual:
    """An addition of a network, and whether it is folded.

    Attributes:
        name: name of the addition.
        reason: why it stays; None if it is folded.
        carried: by how many channels the layers within its block get wider.
        macs: multiply-accumulates of its block as it was; 0 if it stays.
        folded_macs: multiply-accumulates of the folded block; 0 if it stays.
    """

    name: str
    reason: str | None = None
    carried: int = 0
    macs: int = 0
    folded_macs: int = 0

    def __str__(self) -> str:
        if self.reason is not None:
            return f"{self.name} stays: {self.reason}"
        times = self.folded_macs / self.macs
        return f"{self.name} is folded: {self.carried} channels carried, {times:.2f} x the MACs"


def fold_residuals(
    model: keras.Model,
    inputs: Sequence[np.ndarray] | None = None,
    most_growth: float = MOST_GROWTH,
) -> keras.Model:
    """Turns residual blocks into plain ones that compute the same, so that AMC can prune them.

    An addition ties the channels of all blocks of a stage to each other: each is kept in all or
    dropped in all. In a folded block y = x + F(x) the kernels of F carry x in channels of their
    own (by kernels with a single one), and the last of them adds it; the addition is gone. The
    outputs are the same but for rounding. Blocks that cannot be folded exactly are left as they
    are; each one's reason is logged, and returned by `residuals`.

    A folded network is wider: a block of two 3x3 convolutions has about twice the MACs. It is
    meant to be pruned.

    Args:
        model: a trained model that `analyze` takes; it is not changed.
        inputs: one array for each model input, such as calibration images. On them the statistics
            of batch norms that carry x are measured. Needed if the folded model is trained:
            without them, those batch norms leave x as it is at inference alone.
        most_growth: blocks that would have more than so many times their MACs are left.

    Returns:
        A new, uncompiled functional model with the same inputs and outputs.

    Raises:
        AmcError: the model cannot be analysed, or its outputs have changed.
    """
    given = None if inputs is None else list(inputs)
    folded, told = _folded(model, given, most_growth)
    for residual in told:
        story.remark(_LOG, "%s", residual)
    checked = [noise(model), *([] if given is None else [[array[:_CHECKED] for array in given]])]
    for arrays in checked:
        _check(model, folded, arrays)
    return folded


def residuals(model: keras.Model, most_growth: float = MOST_GROWTH) -> tuple[Residual, ...]:
    """Returns what `fold_residuals` makes of each addition of a model, and at which cost.

    Args:
        model: a model that `analyze` takes; it is not changed.
        most_growth: see `fold_residuals`.
    """
    return _folded(model, None, most_growth)[1]


def _folded(
    model: keras.Model, inputs: Sequence[np.ndarray] | None, most_growth: float
) -> tuple[keras.Model, tuple[Residual, ...]]:
    made = rebuild(model, analyze(model), None)
    network = flatten(made)
    names = [network.name(add.operation) for add in additions(network)]
    told: dict[str, Residual] = {}
    while True:
        # Again, as a block may hold others, and is a chain of layers once they are folded.
        found, stay = _plans(made, most_growth)
        told.update(stay)
        if not found:
            return made, tuple(told[name] for name in names)
        told.update({name: _told(name, fold) for name, fold in found.items()})
        made = _rebuilt(made, list(found.values()), inputs)


def _told(name: str, fold: Fold) -> Residual:
    return Residual(name, None, fold.carried, *fold.macs)


def _plans(model: keras.Model, most_growth: float) -> tuple[dict[str, Fold], dict[str, Residual]]:
    """Returns the blocks that are folded, and the additions that stay, by name."""
    network = flatten(model)
    known = ranges(network)
    found, stay = {}, {}
    for add in additions(network):
        name = network.name(add.operation)
        try:
            fold = fold_of(network, block_of(network, add), known)
            growth = fold.macs[1] / fold.macs[0]
            if growth > most_growth:
                raise Unfoldable(
                    f"its block would have {growth:.1f} times its MACs, above the limit "
                    f"most_growth={most_growth:g}"
                )
            found[name] = fold
        except Unfoldable as reason:
            stay[name] = Residual(name, str(reason))
    return found, stay


def _rebuilt(
    model: keras.Model, folds: Sequence[Fold], inputs: Sequence[np.ndarray] | None
) -> keras.Model:
    """Builds a model with blocks folded, which shares its other layers with the given one."""
    network = flatten(model)
    by_add = {network.name(f.block.add.operation): f for f in folds}
    moments = measured(network, folds, inputs)
    layers = [layer for fold, of in zip(folds, moments, strict=True) for layer in widened(fold, of)]
    made = {id(layer.layer): layer.made() for layer in layers}

    def invoke(call, args, kwargs):
        name = network.name(call.operation)
        if name not in by_add:
            return made.get(id(call.operation), call.operation)(*args, **kwargs)
        fold = by_add[name]
        position = call.inputs.index(fold.block.branch[-1].outputs[0])
        tail = keras.tree.flatten((args, kwargs))[position]
        if call.outputs[0] in network.outputs:  # it keeps its name
            return keras.layers.Identity(name=name)(tail)
        return tail

    tensors = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    outputs = network.run(tensors, invoke)
    for layer in layers:
        for weight in made[id(layer.layer)].weights:
            weight.assign(layer.weights[weight.name])
    folded = like(model, tensors, outputs)
    return rebuild(folded, analyze(folded), None)  # its layers know of no other model


def _check(model: keras.Model, folded: keras.Model, arrays: Sequence[Any]) -> None:
    halves = ("float16", "bfloat16")
    half = any(layer.compute_dtype in halves for layer in folded.layers)
    tolerance = _TOLERANCE_OF_HALVES if half else _TOLERANCE
    outputs = zip(outputs_of(model, arrays), outputs_of(folded, arrays), strict=True)
    for expected, received in outputs:
        difference = relative_difference(received, expected)
        if not difference <= tolerance:
            raise AmcError(
                f"with its residuals folded, the model computes something else: expected outputs "
                f"that differ by at most {tolerance:g} of the largest, received {difference:.3g}; "
                "use the model without folding, and report this"
            )
