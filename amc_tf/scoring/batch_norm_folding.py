"""Batch norms folded into the layers that feed them.

At inference a batch norm is y = scale * x + offset for each channel, with

    scale = gamma / sqrt(variance + epsilon),   offset = beta - mean * scale.

A batch norm that is the only reader of a convolution or Dense layer without
activation disappears into that layer's kernel and bias. Elsewhere (behind an
activation or a concatenation, for example) it stays, as a batch norm whose
gamma is `scale` and whose beta is `offset`. Either way a plan can slice every
weight of the folded model, and no constant has to be computed from several
weights. Every convolution and Dense layer of the folded model has a bias, if
only of zeros: TFLite would add a missing one, and let layers of equal width
share it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.activations import is_linear
from amc_tf.graph.analysis import analyze
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.flattening import flatten
from amc_tf.graph.layer_kinds import LayerKind, Product
from amc_tf.graph.layer_table import is_registered, kind_of, rule_of
from amc_tf.graph.network import Network
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.verification import noise, outputs_of, relative_difference
from amc_tf.pruning.weights import Weights, has_weight, numpy_of

_LOWEST = float(np.finfo(np.float32).min)
_LOG = logging.getLogger(__name__)
_TOLERANCE = 1e-3  # relative to the largest output, for models with registered layers
_STATISTICS = ("moving_mean", "moving_variance")


class NotCarriedError(AmcError):
    """A network cannot be scored with a folded and converted copy of it."""


@dataclasses.dataclass(frozen=True)
class _Fold:
    """A batch norm and the layer into which it is folded.

    Attributes:
        norm: name of the batch norm.
        epsilon: constant that it adds to the variance.
        layer: name of the layer; None if the batch norm stays.
        kernel: name of the layer's weight that is scaled.
        axes: the axes of `kernel` along which `scale` lies.
    """

    norm: str
    epsilon: float
    layer: str | None = None
    kernel: str = ""
    axes: tuple[int, ...] = ()

    def sources(self) -> list[str]:
        """Returns the names of the original model's weights that are read."""
        names = [f"{self.norm}/{w}" for w in ("gamma", "beta", *_STATISTICS)]
        return names if self.layer is None else [*names, f"{self.layer}/{self.kernel}", self._bias]

    @property
    def _bias(self) -> str:
        return f"{self.layer}/bias"

    def __call__(self, original: Weights) -> dict[str, np.ndarray]:
        """Computes the folded weights, float32, from all weights of the original model."""

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
            scaled = kernel * along.astype(kernel.dtype)  # it is large, so it is not widened
            folded = {f"{self.layer}/{self.kernel}": scaled, self._bias: bias}
        return {name: value.astype(np.float32, copy=False) for name, value in folded.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Folding:
    """A model with its batch norms folded. Made by `fold`.

    Attributes:
        graph: the analysis of the folded model (`graph.network.model`), which
            is flat and independent of the original. Its groups and channel
            classes are those of the original, so plans fit both.
        fixed: names (`layer/weight`) of the folded model's weights that no
            change of the original's weights changes.
    """

    graph: ChannelGraph
    fixed: frozenset[str]
    _original: Mapping[str, np.ndarray]
    _folds: tuple[_Fold, ...]

    def weights(self, changed: Weights) -> dict[str, np.ndarray]:
        """Translates changed weights of the original model to those of the folded model.

        Args:
            changed: `layer/weight` of the original to an array of the dense
                shape, as `Refit.refit` and `masked_weights` return them.

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
        NotCarriedError: the folded model's channels are not grouped as the original's, or
            registered layers are not what their rows say.
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
        kind = kind_of(operation)
        scales = kind.scales and len(call.inputs) == 1
        if scales or (kind.product is not None and kind.product.reads == "positions"):
            args, kwargs = keras.tree.map_structure(_held, (args, kwargs))
        if _has_bias_setting(kind.product) and _takes(operation, "use_bias"):
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
            if weight.name not in _STATISTICS:  # those of a new batch norm are zero and one
                weight.assign(values.get(f"{name}/{weight.name}", np.zeros(weight.shape)))
    if any(is_registered(o) and _is_changed(kind_of(o)) for o in network.operations()):
        _check(network.model, folded)
    return Folding(
        graph=_with_groups_of(graph, analyze(folded, allow_approximate=graph.allow_approximate)),
        fixed=frozenset(f"{f.norm}/{w}" for f in folds if f.layer is None for w in _STATISTICS),
        _original=original,
        _folds=folds,
    )


def _folds(network: Network) -> tuple[_Fold, ...]:
    """Makes one `_Fold` for every plain batch norm."""
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
        if not kind_of(norm).batch_norm or not _is_plain(network, norm):
            continue
        tensor = calls_of[id(norm)][0].inputs[0]
        layer = makers.get(tensor)
        found = _Fold(norm.name, norm.epsilon)
        if (
            layer is not None
            and is_linear(getattr(layer, "activation", None))
            and getattr(norm, "axis", -1) in (-1, len(network.tensors[tensor].shape) - 1)
            and getattr(layer, "data_format", None) != "channels_first"
            and feeds_only(layer, norm)
            and (product := _scalable(network, layer)) is not None
        ):
            found = _Fold(norm.name, norm.epsilon, layer.name, product.kernel, product.outputs)
        folds.append(found)
    return tuple(folds)


def _is_plain(network: Network, norm: Any) -> bool:
    """Returns whether a batch norm has no other weights than those that are folded."""
    plain = {w.name for w in norm.weights} <= {"gamma", "beta", *_STATISTICS}
    if plain and _takes(norm, "epsilon", "center", "scale"):
        return True
    if is_registered(norm):
        what = network.told(norm)
        _LOG.warning("%s is not folded: it does not have the settings of a batch norm", what)
    return False


def _scalable(network: Network, layer: Any) -> Product | None:
    """Returns a layer's product if a batch norm can be folded into it."""
    rule = rule_of(layer)
    product = None if rule is None else rule.kind.product
    if (
        product is not None
        and _has_bias_setting(product)
        and has_weight(layer, product.kernel)
        and _takes(layer, "use_bias")
    ):
        return product
    if is_registered(layer) and rule is not None and (rule.mixes or product is not None):
        _LOG.warning(
            "no batch norm is folded into %s: its row does not say that it is a product with a "
            "kernel, or it lacks the weights or the setting 'use_bias' of one",
            network.told(layer),
        )
    return None


def _has_bias_setting(product: Product | None) -> bool:
    """Returns whether a layer of Keras that computes a product is made with or without a bias."""
    return product is not None and product.reads != "flattened"  # EinsumDense says which axes


def _takes(layer: Any, *settings: str) -> bool:
    """Returns whether a layer can be recreated with other settings; those of Keras can."""
    return not is_registered(layer) or set(settings) <= set(layer.get_config())


def _is_changed(kind: LayerKind) -> bool:
    return kind.product is not None or kind.batch_norm


def _check(original: keras.Model, folded: keras.Model) -> None:
    """Checks that folding registered layers did not change what the model computes."""
    inputs = noise(original)
    for a, b in zip(outputs_of(original, inputs), outputs_of(folded, inputs), strict=True):
        if not relative_difference(b, a) <= _TOLERANCE:
            raise NotCarriedError(
                "with its batch norms folded, the model computes something else; a row given to "
                "amc_tf.register_layer may be wrong"
            )


def _held(x: Any) -> Any:
    """Adds an operation that changes no value, and that the converter cannot fold through.

    Without it, the converter would multiply a constant factor into the kernel next to it. It
    would also move a bias in front of a Dense layer through that layer's kernel into its bias.
    """
    return keras.ops.maximum(x, _LOWEST) if isinstance(x, keras.KerasTensor) else x


def _alone(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _with_groups_of(graph: ChannelGraph, folded: ChannelGraph) -> ChannelGraph:
    """Gives the folded model's analysis the groups of the original, where some may be frozen."""
    found = {group.classes.tobytes(): group for group in folded.groups.values()}
    for name, group in graph.groups.items():
        same = found.get(group.classes.tobytes())
        if same is None or (same.producers, same.consumers) != (group.producers, group.consumers):
            raise NotCarriedError(
                f"with its batch norms folded, the model has no group like {name!r}"
            )
    return dataclasses.replace(folded, groups=graph.groups, frozen=graph.frozen)
