"""A Keras 2 model as a flat list of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.graph import flattening
from amc_tf.graph.network import Network, Value

# A list as the first argument of these Keras 2 layers holds the sequence and the initial state.
_RECURRENT = frozenset("RNN LSTM GRU SimpleRNN Bidirectional".split())

LAYERS_WITH_A_FUNCTION = frozenset({"TFOpLambda", "SlicingOpLambda"})


def flatten_keras_2(model: Any) -> Network:
    """Flattens a functional or built sequential `tf_keras` model, inlining nested models.

    Raises:
        AmcError: `model` is not a Keras 2 model, is subclassed or is not built.
    """
    import tf_keras

    if not isinstance(model, tf_keras.Model):
        raise AmcError(
            f"expected a Keras 2 model (tf_keras.Model) or a path, received "
            f"{type(model).__module__}.{type(model).__name__}"
        )
    if not _is_functional(model):
        raise AmcError(
            f"model {model.name!r} ({type(model).__name__}) is not a Functional or a built "
            "Sequential model, so its layers cannot be seen; express it as "
            "tf_keras.Model(inputs, outputs), or build it with a known input shape"
        )
    return _Flattener().network(model)


def _is_functional(layer: Any) -> bool:
    import tf_keras
    from tf_keras.src.engine.functional import Functional

    if not isinstance(layer, Functional) or not getattr(layer, "_nodes_by_depth", None):
        return False
    # A subclass that overrides call() may compute something other than its graph.
    return type(layer).call in (Functional.call, tf_keras.Sequential.call)


class _Flattener(flattening.Flattener):
    """A flattener for the nodes of Keras 2, which are organised differently."""

    def inline(self, model: Any, inputs: Sequence[int], path: str) -> list[int]:
        """Appends the calls of `model` applied to the values `inputs`; returns its outputs."""
        numbers = {id(t): n for t, n in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    outputs = self._follow(node, numbers, path)
                    tensors = tf.nest.flatten(node.outputs)
                    numbers.update(zip(map(id, tensors), outputs, strict=True))
        return [numbers[id(t)] for t in model.outputs]

    def _follow(self, node: Any, numbers: Mapping[int, int], path: str) -> list[int]:
        """Appends the calls of one node; returns the numbers of its outputs."""
        layer = node.layer
        if _is_functional(layer):
            tensors = layer._flatten_to_reference_inputs(node.call_args[0])
            found = [numbers[id(t)] for t in tensors]
            return self.inline(layer, found, f"{path}{layer.name}_")
        args, kwargs = _arguments(node)
        read: list[int] = []

        def refer(x):
            if not _is_keras_2_tensor(x):
                return x
            read.append(numbers[id(x)])
            return Value(numbers[id(x)])

        args, kwargs = keras.tree.map_structure(refer, (args, kwargs))
        outputs = [self.new_value(t) for t in tf.nest.flatten(node.outputs)]
        self.new_call(layer, (args, kwargs), read, outputs, path)
        return outputs


def _arguments(node: Any) -> tuple[tuple, dict[str, Any]]:
    """Returns a node's arguments as Keras 3 takes them.

    Everything but tensors is passed by keyword; arguments that are None are left out.
    """
    layer, args, kwargs = node.layer, node.call_args, node.call_kwargs
    if type(layer).__name__ in LAYERS_WITH_A_FUNCTION:
        return tuple(args), dict(kwargs)
    names = layer._call_spec.arg_names
    named = {
        name: value
        for name, value in zip(names, args, strict=False)
        if not any(_is_keras_2_tensor(x) for x in tf.nest.flatten(value))
    }
    args = tuple(a for name, a in zip(names, args, strict=False) if name not in named) or args
    kwargs = {k: v for k, v in {**named, **kwargs}.items() if v is not None and k != "training"}
    if type(layer).__name__ in _RECURRENT and isinstance(args[0], (list, tuple)):
        (sequence, *state), *rest = args
        args = (sequence, *rest)
        if state:
            kwargs["initial_state"] = state
    return args, kwargs


def gives_several(layer: Any) -> bool:
    """Returns whether a layer that is called once returned a list of tensors, not a tensor."""
    return isinstance(layer._inbound_nodes[0].outputs, (list, tuple))


def _is_keras_2_tensor(x: Any) -> bool:
    return hasattr(x, "_keras_history")
