"""Batch norms folded into the layers that feed them.

At inference a batch norm is y = scale * x + offset for each channel, with

    scale = gamma / sqrt(variance + epsilon),   offset = beta - mean * scale.

Behind a convolution or Dense layer without activation that nothing else reads,
it disappears into that layer's kernel and bias. Elsewhere (before an
activation, after a concatenation) it stays, as a batch norm whose gamma is
`scale` and whose beta is `offset`. Either way every number of the folded model
is one that a plan may slice, and none is left to be computed from several.
Every convolution and Dense layer comes out with a bias, if only zeros: TFLite
adds them where there are none, and lets layers of equal width share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras.src.ops import numpy as numpy_ops

from amc_tf.errors import AmcError
from amc_tf.graph.analysis import analyze
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.network import Network, flatten
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import Weights, numpy_of

# Layer class to the weight that makes its outputs, and the axes that together count them.
_KERNELS: Mapping[type, tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys((kl.Conv1D, kl.Conv2D, kl.Conv3D, kl.Dense), ("kernel", (-1,))),
    **dict.fromkeys(
        (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose), ("kernel", (-2,))
    ),
    # Output i * multiplier + j comes from input i: both axes, in this order.
    **dict.fromkeys((kl.DepthwiseConv1D, kl.DepthwiseConv2D), ("kernel", (-2, -1))),
    **dict.fromkeys((kl.SeparableConv1D, kl.SeparableConv2D), ("pointwise_kernel", (-1,))),
}
# What the converter would work into the weights before or behind it.
_SCALINGS = frozenset(
    [
        kl.Rescaling,
        kl.Normalization,
        numpy_ops.Add,
        numpy_ops.Subtract,
        numpy_ops.Multiply,
        numpy_ops.Divide,
        numpy_ops.TrueDivide,
    ]
)
_LOWEST = float(np.finfo(np.float32).min)
_STATISTICS = ("moving_mean", "moving_variance")


class NotCarriedError(AmcError):
    """Why a network cannot be scored by way of a folded, converted twin."""


@dataclasses.dataclass(frozen=True)
class _Fold:
    """One batch norm and the layer it went into (None: it stayed).

    Attributes:
        norm: name of the batch norm.
        epsilon: its constant under the root.
        layer: name of the layer.
        kernel: name of the layer's weight that is scaled.
        axes: the axes of `kernel` along which `scale` lies.
    """

    norm: str
    epsilon: float
    layer: str | None = None
    kernel: str = ""
    axes: tuple[int, ...] = ()

    def sources(self) -> list[str]:
        """Names of the original's weights that are read."""
        names = [f"{self.norm}/{w}" for w in ("gamma", "beta", *_STATISTICS)]
        return names if self.layer is None else [*names, f"{self.layer}/{self.kernel}", self._bias]

    @property
    def _bias(self) -> str:
        return f"{self.layer}/bias"

    def __call__(self, original: Weights) -> dict[str, np.ndarray]:
        """The folded weights, float32, from all of `original`'s."""

        def get(name: str, default: float) -> np.ndarray:
            return np.asarray(original.get(name, default), np.float64)

        variance = get(f"{self.norm}/moving_variance", 1.0)
        scale = get(f"{self.norm}/gamma", 1.0) / np.sqrt(variance + self.epsilon)
        offset = get(f"{self.norm}/beta", 0.0) - get(f"{self.norm}/moving_mean", 0.0) * scale
        if self.layer is None:
            folded = {f"{self.norm}/gamma": scale, f"{self.norm}/beta": offset}
        else:
            kernel = original[f"{self.layer}/{self.kernel}"]
            axes = [a % kernel.ndim for a in self.axes]
            along = scale.reshape([n if a in axes else 1 for a, n in enumerate(kernel.shape)])
            bias = get(self._bias, 0.0) * scale + offset
            scaled = kernel * along.astype(kernel.dtype)  # large: not widened
            folded = {f"{self.layer}/{self.kernel}": scaled, self._bias: bias}
        return {name: value.astype(np.float32, copy=False) for name, value in folded.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Folding:
    """A model with its batch norms folded. Made by `fold`.

    Attributes:
        graph: the analysis of the folded model (`graph.network.model`), which
            is flat and independent of the original. Its groups and channel
            classes are those of the original, so plans serve both.
        fixed: `layer/weight` of the folded model's weights that stay as they
            are whatever the original's become.
    """

    graph: ChannelGraph
    fixed: frozenset[str]
    _original: Mapping[str, np.ndarray]
    _folds: tuple[_Fold, ...]

    def weights(self, changed: Weights) -> dict[str, np.ndarray]:
        """What a change of the original's weights does to the folded model's.

        Args:
            changed: `layer/weight` of the original to an array of the dense
                shape, as `Reconstruction.refit` and `masked_weights` give.

        Returns:
            The same for the folded model.
        """
        result = dict(changed)
        everything = {**self._original, **changed}
        for fold_ in self._folds:
            sources = fold_.sources()
            if any(name in changed for name in sources):
                for name in sources:
                    result.pop(name, None)
                result.update(fold_(everything))
        return result


def fold(graph: ChannelGraph) -> Folding:
    """Folds the batch norms of an analysed model.

    Args:
        graph: `analyze(model)`.

    Returns:
        The `Folding`; the model itself is not changed.

    Raises:
        NotCarriedError: the folded model's channels are not grouped as the original's.
    """
    network = flatten(rebuild(graph.network.model, graph, None))
    folds = _folds(network)
    by_norm = {f.norm: f for f in folds}
    made: dict[str, Any] = {}

    def remade(layer: Any, **changes: Any) -> Any:
        if layer.name not in made:
            made[layer.name] = type(layer).from_config({**layer.get_config(), **changes})
        return made[layer.name]

    def invoke(call, args, kwargs):
        operation = call.operation
        name = network.name(operation)
        scales = type(operation) in _SCALINGS and len(call.inputs) == 1
        if scales or type(operation) is kl.Dense:
            args, kwargs = keras.tree.map_structure(_held, (args, kwargs))
        if type(operation) in _KERNELS:
            operation = remade(operation, use_bias=True)
        elif name in by_norm:
            if by_norm[name].layer is not None:
                return keras.tree.flatten((args, kwargs))[0]
            operation = remade(operation, epsilon=0.0, center=True, scale=True)
        output = operation(*args, **kwargs)
        return _held(output) if scales else output

    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in network.model.inputs
    ]
    outputs = network.run(inputs, invoke)
    folded = keras.Model(_alone(inputs), _alone(outputs), name=network.model.name)
    original = {
        f"{network.name(operation)}/{weight.name}": numpy_of(weight)
        for operation in network.operations()
        for weight in getattr(operation, "weights", ())
    }
    values = {**original, **{k: v for f in folds for k, v in f(original).items()}}
    for name, layer in made.items():
        for weight in layer.weights:
            if weight.name not in _STATISTICS:  # of a new batch norm: zero and one
                weight.assign(values.get(f"{name}/{weight.name}", np.zeros(weight.shape)))
    return Folding(
        graph=_with_groups_of(graph, analyze(folded)),
        fixed=frozenset(f"{f.norm}/{w}" for f in folds if f.layer is None for w in _STATISTICS),
        _original=original,
        _folds=folds,
    )


def _folds(network: Network) -> tuple[_Fold, ...]:
    """One `_Fold` for every plain batch norm."""
    calls_of: dict[int, list[Any]] = {}
    makers: dict[int, Any] = {}
    for call in network.calls:
        calls_of.setdefault(id(call.operation), []).append(call)
        makers.update(dict.fromkeys(call.outputs, call.operation))

    def feeds_only(layer: Any, norm: Any) -> bool:
        outputs = [call.outputs[0] for call in calls_of[id(layer)]]
        return len(outputs) == len(calls_of[id(norm)]) and all(
            [call.operation for call in network.readers(n)] == [norm] and n not in network.outputs
            for n in outputs
        )

    folds = []
    for norm in network.operations():
        if type(norm) is not kl.BatchNormalization or {w.name for w in norm.weights} - {
            "gamma",
            "beta",
            *_STATISTICS,
        }:
            continue
        tensor = calls_of[id(norm)][0].inputs[0]
        layer = makers.get(tensor)
        found = _Fold(norm.name, norm.epsilon)
        if (
            layer is not None
            and type(layer) in _KERNELS
            and norm.axis in (-1, len(network.tensors[tensor].shape) - 1)
            and layer.activation is keras.activations.linear
            and getattr(layer, "data_format", None) != "channels_first"
            and feeds_only(layer, norm)
        ):
            kernel, axes = _KERNELS[type(layer)]
            found = _Fold(norm.name, norm.epsilon, layer.name, kernel, axes)
        folds.append(found)
    return tuple(folds)


def _held(x: Any) -> Any:
    """The same tensor, as the result of an operation that the converter cannot look behind.

    It would work a constant factor into the kernel next to it, and a bias in front of a Dense
    layer, by way of that layer's kernel, into its bias.
    """
    return keras.ops.maximum(x, _LOWEST) if isinstance(x, keras.KerasTensor) else x


def _alone(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _with_groups_of(graph: ChannelGraph, folded: ChannelGraph) -> ChannelGraph:
    """The folded model's analysis with the original's groups, some of which may be frozen there."""
    found = {group.classes.tobytes(): group for group in folded.groups.values()}
    for name, group in graph.groups.items():
        same = found.get(group.classes.tobytes())
        if same is None or (same.producers, same.consumers) != (group.producers, group.consumers):
            raise NotCarriedError(
                f"with its batch norms folded, the model has no group like {name!r}"
            )
    return dataclasses.replace(folded, groups=graph.groups, frozen=graph.frozen)
