"""Checking that a model is pruned correctly: the rebuilt and the masked one agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.keras_structure import infer, nesting, pack
from amc_tf.graph.network import Call, Network
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.masking import mask
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import numpy_of
from amc_tf.training.task import Task

_HALF = ("float16", "bfloat16")
# Samples that are run at once by a network that takes any number of them: layer by layer, those of
# a whole batch would take more memory than all that comes after.
_AT_ONCE = 8


def halved(graph: ChannelGraph, seed: int = 0) -> PruningPlan:
    """Makes a plan that keeps a random half of every group (at least one channel)."""
    rng = np.random.default_rng(seed)
    return PruningPlan(
        {
            name: rng.choice(group.channels, max(1, group.channels // 2), replace=False).tolist()
            for name, group in graph.groups.items()
        }
    )


def verify(
    model: keras.Model,
    graph: ChannelGraph,
    plan: PruningPlan | None = None,
    inputs: Sequence[np.ndarray] | None = None,
    tolerance: float | None = None,
) -> float:
    """Compares the rebuilt model with the masked one, by running both.

    The masked model follows from the mathematics of the layers that read the
    channels; the rebuilt one follows from everything that the layer table
    says. So they differ if a row of the table is wrong, which may be one that
    the user registered.

    Args:
        model: the model that was analysed.
        graph: `analyze(model)`.
        plan: the plan; default: a random half of every group is kept.
        inputs: one array (samples, ...) for each model input; default: two
            samples of uniform noise in [0, 1).
        tolerance: the largest difference allowed, relative to the largest
            output; default: 0.001, or 0.05 where a layer computes in half
            precision.

    Returns:
        The largest difference of any output, relative to the largest value of
        that output.

    Raises:
        AmcError: the difference is above the tolerance, or not a number.
    """
    if tolerance is None:
        half = any(getattr(x, "compute_dtype", "") in _HALF for x in graph.network.operations())
        tolerance = 0.05 if half else 1e-3
    plan = halved(graph) if plan is None else plan
    inputs = noise(model) if inputs is None else list(inputs)
    outputs = zip(
        [tensor.name for tensor in model.outputs],
        outputs_of(rebuild(model, graph, plan), inputs),
        outputs_of(mask(model, graph, plan), inputs),
        strict=True,
    )
    worst = 0.0
    for name, small, full in outputs:
        if small.shape != full.shape:
            raise AmcError(f"output {name!r}: rebuilt {small.shape}, masked {full.shape}")
        difference = relative_difference(small, full)
        if not difference <= tolerance:
            raise AmcError(
                f"output {name!r} of the rebuilt model differs from the masked one by "
                f"{difference:.2g} of its largest value (allowed {tolerance:.2g}); a row given to "
                "amc_tf.register_layer may be wrong"
            )
        worst = max(worst, difference)
    return worst


def check_finite(network: Network, task: Task) -> None:
    """Refuses a trained network that computes no numbers.

    Args:
        network: the network.
        task: its data; a batch of the validation inputs is run.

    Raises:
        AmcError: a weight is not finite, a variance is negative, or an output is not finite; the
            message names the layer.
    """
    for operation in network.operations():
        for weight in getattr(operation, "weights", ()):
            values = numpy_of(weight)
            if not _finite(values):
                raise AmcError(
                    f"{network.told(operation)} has values that are not finite in its weight "
                    f"{weight.name!r}; restore or retrain the model first"
                )
            if weight.name == "moving_variance" and values.min(initial=0) < 0:
                raise AmcError(
                    f"{network.told(operation)} has a negative variance ({values.min():.3g}), "
                    "whose root is no number; restore or retrain the model first"
                )
    told: list[str] = []

    def invoke(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        output = infer(call.operation, args, kwargs)
        if not all(_finite(numpy_of(part)) for part in keras.tree.flatten(output)):
            told.append(network.told(call.operation))
        return output

    inputs = task.sample_inputs(task.validation, network.model, task.batch_size)
    tensors = [network.tensors[number] for number in network.inputs]
    at_once = next((t.shape[0] for t in tensors if t.shape[0]), _AT_ONCE)
    for start in range(0, len(inputs[0]), at_once):
        told.clear()
        given = [
            keras.ops.cast(array[start : start + at_once], tensor.dtype)
            for array, tensor in zip(inputs, tensors, strict=True)
        ]
        outputs = network.run(given, invoke)
        # Between layers, infinities may be meant, as in a mask.
        if not all(_finite(numpy_of(output)) for output in outputs):
            raise AmcError(
                f"{told[0]} gives values that are not finite on the first validation data, and so "
                "does the model; scale the data as in training, or retrain the model"
            )


def _finite(values: np.ndarray) -> bool:
    if values.dtype.kind in "biu":
        return True
    # A copy of the values of a batch is large; bfloat16, which numpy does not know, needs one.
    return bool(np.isfinite(values if values.dtype.kind == "f" else values.astype(float)).all())


def noise(model: keras.Model, samples: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Draws noise for every input of a model; open sizes become 32.

    Floats are uniform in [0, 1), whole numbers 0 or 1.
    """
    rng = np.random.default_rng(seed)
    found = []
    for tensor in model.inputs:
        sizes = [samples, *(32 if size is None else size for size in tensor.shape[1:])]
        is_float = keras.backend.is_float_dtype(tensor.dtype)
        drawn = rng.random(sizes) if is_float else rng.integers(0, 2, sizes)
        found.append(drawn.astype(tensor.dtype))
    return found


def relative_difference(received: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference of two arrays, relative to the largest value expected."""
    scale = max(float(np.abs(expected).max(initial=0)), np.finfo(np.float32).tiny)
    return float(np.abs(received - expected).max(initial=0)) / scale


def outputs_of(model: keras.Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Runs a model on one array for each of its inputs; returns its outputs as float64."""
    given = pack(nesting(model, "inputs"), list(inputs))
    found = keras.tree.flatten(model(given, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(x), np.float64) for x in found]
