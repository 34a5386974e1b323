"""Building the smaller model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.activations import may_hold_weights
from amc_tf.graph.additions import placed
from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.constants import sliced
from amc_tf.graph.keras_structure import like, made_by, twin
from amc_tf.graph.network import Call
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.weights import Weights, numpy_of


def rebuild(
    model: keras.Model,
    graph: ChannelGraph,
    plan: PruningPlan | None,
    weights: Weights | None = None,
    instead: Callable[[Site], keras.Layer | None] = lambda site: None,
) -> keras.Model:
    """Builds the model without the channels a plan drops.

    The model's calls are run again on new symbolic inputs, with layers of the
    new widths. So all kinds of models are handled in the same way, and nested
    models become flat. The weights are slices of the dense ones.

    Args:
        model: the model that was analysed; it is not changed.
        graph: `analyze(model)`.
        plan: the plan; None keeps every channel (an independent copy).
        weights: refitted weights in the dense shape, by `layer/weight`.
        instead: function that makes another layer in the place of that of a site, with all the
            weights of its names, or returns None.

    Returns:
        A new, uncompiled functional model with the same inputs and outputs.

    Raises:
        AmcError: `graph` was made from another model, the plan does not fit it,
            or a layer cannot be recreated from its configuration.
    """
    if graph.network.model is not model:
        raise AmcError("the graph was made from another model; call amc_tf.analyze(model) first")
    keep = graph.keep_mask(plan)
    made: dict[int, Any] = {}
    twins: dict[int, Any] = {}  # of operations that are no layers

    def invoke(call, args, kwargs):
        operation = call.operation
        site = graph.site_at(call)
        kept = graph.kept_at(call, keep)
        if site is not None and site.rule.rewrite:
            rank = len(graph.network.tensors[call.inputs[0]].shape)
            out = site.rule.rewrite(call, kept, rank)(*args, **kwargs)
            # Keras would give it a new name, perhaps that of another operation of the model.
            for tensor in keras.tree.flatten(out):
                made_by(tensor).name = graph.network.name(operation)
            return out
        if not isinstance(operation, keras.layers.Layer):
            if id(operation) not in twins:
                twins[id(operation)] = twin(operation)
            args, kwargs = sliced(args, kwargs, kept)
            return twins[id(operation)](*placed(operation, args), **kwargs)
        if id(operation) not in made:
            name = graph.network.name(operation)
            other = None if site is None else instead(site)
            made[id(operation)] = other or _remake(
                operation, name, site, kept, _shape_of(graph, call)
            )
        return made[id(operation)](*placed(operation, args), **kwargs)

    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    outputs = graph.network.run(inputs, invoke)
    rebuilt = like(model, inputs, outputs)
    _copy_weights(graph, keep, weights or {}, made)
    return rebuilt


def _shape_of(graph: ChannelGraph, call: Call) -> Sequence[int | None]:
    """Returns the shape of what a call returns, open where calls of its layer differ."""
    calls = [call, *(site.call for site in graph.sites_of(call.operation))]
    shapes = [tuple(graph.network.tensors[x.outputs[0]].shape) for x in calls]
    if len({len(shape) for shape in shapes}) > 1:
        return [None] * len(shapes[0])
    sizes = [set(of_axis) for of_axis in zip(*shapes, strict=True)]
    return [next(iter(of_axis)) if len(of_axis) == 1 else None for of_axis in sizes]


def _remake(
    layer: Any,
    name: str,
    site: Site | None,
    kept: Mapping[str, np.ndarray],
    shape: Sequence[int | None],
) -> Any:
    """Makes a layer of the same configuration with the kept widths."""
    if not layer.variables and (site is None or not site.rule.widths):
        # A Lambda, for example, may have no configuration to recreate it from.
        return twin(layer, name)
    try:
        config = layer.get_config()
    except Exception as error:
        raise _not_remade(layer, error) from error
    config["name"] = name
    activation = getattr(layer, "activation", None)
    if callable(activation) and "activation" in config and not may_hold_weights(activation):
        config["activation"] = activation  # the function itself needs no registration
    if site is not None:
        for key, roles in site.rule.widths.items():
            own = (roles,) if isinstance(roles, str) else roles
            if not kept.keys().isdisjoint(own):
                config[key] = _resized(config[key], own, kept, shape)
    try:
        return type(layer).from_config(config)
    except Exception as error:
        raise _not_remade(layer, error) from error


def _resized(
    value: Any, roles: tuple[str | None, ...], kept: Mapping[str, np.ndarray], shape: Sequence[Any]
) -> Any:
    """Returns a configuration's width, or widths, with as many channels as are kept.

    Sizes that the configuration leaves open are those of the layer's output, as the layers behind
    it may need them.
    """
    several = isinstance(value, (list, tuple))
    sizes = list(value) if several else [value]
    own = roles[-len(sizes) :]
    for at, role in enumerate(own, -len(own)):
        if role is not None and role in kept:
            sizes[at] = int(np.count_nonzero(kept[role]))
        elif sizes[at] is None:
            sizes[at] = shape[at]
    return tuple(sizes) if several else sizes[0]


def _not_remade(layer: Any, error: Exception) -> AmcError:
    return AmcError(
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be recreated from its "
        f"configuration: {error}; register it with "
        "keras.saving.register_keras_serializable and implement get_config()"
    )


def _copy_weights(graph: ChannelGraph, keep, weights: Weights, made: Mapping[int, Any]) -> None:
    unused = set(weights)
    for old in graph.network.operations():
        new = made.get(id(old))
        if new is None or new is old:
            continue
        site = next(iter(graph.sites_of(old)), None)
        name = graph.network.name(old)
        axes_of = {} if site is None else {w.name: axes for w, axes in site.rule.weight_axes(old)}
        targets = new.weights
        if type(new) is not type(old):  # it takes the place of another, with weights of its own
            held = [weight.name for weight in old.weights]
            targets = [weight for weight in new.weights if weight.name in held]
            for weight in new.weights:
                if weight.name not in held and f"{name}/{weight.name}" in weights:
                    weight.assign(weights[f"{name}/{weight.name}"])
                    unused.discard(f"{name}/{weight.name}")
        for source, target in zip(old.weights, targets, strict=True):
            key = f"{name}/{source.name}"
            value = numpy_of(source) if weights.get(key) is None else np.asarray(weights[key])
            unused.discard(key)
            for axis, role in enumerate(axes_of.get(source.name, ())):
                if role is not None:
                    value = np.compress(keep[site.roles[role]], value, axis)
            if tuple(value.shape) != tuple(target.shape):
                raise AmcError(
                    f"layer {name!r} ({type(old).__name__}), made anew from its configuration, has "
                    f"a weight {target.name!r} of shape {tuple(target.shape)}, where "
                    f"{tuple(value.shape)} was expected; a quantised network is pruned before it "
                    "is quantised"
                )
            target.assign(value)
        if isinstance(new, keras.layers.Normalization):
            new.finalize_state()  # it computes with values that it derives from its weights
    if unused:
        raise AmcError(f"no weight of the model is called {sorted(unused)[0]!r}")
