"""Making a layer of one version of Keras anew in the other, and how their layers differ.

Most configuration keys are the same in Keras 2 (the package tf_keras) and
Keras 3; the tables below hold the exceptions, for both directions. All other
keys are passed on unchanged, so that a constructor that does not know one
raises an error.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.activations import keras2_hard_sigmoid

# (class, Keras 2 key, Keras 3 key)
_RENAMED = (("LeakyReLU", "alpha", "negative_slope"),)
# Keras 2 class -> (Keras 3 class, its additional arguments), where the names differ.
_CLASSES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "SyncBatchNormalization": ("BatchNormalization", {"synchronized": True})
}
# Keys of one version that have no effect at this value, so that the other need not know them.
_WITHOUT_EFFECT: Mapping[str, Any] = {
    "groups": 1,
    "kernel_regularizer": None,
    "kernel_constraint": None,
    "activity_regularizer": None,
    "noise_shape": None,
    "renorm": False,
    "synchronized": False,
    "rms_scaling": False,
    "time_major": False,
    "zero_output_for_mask": False,
    "quantization_config": None,
    "sliding_window": None,
    "use_gate": False,
    "softmax_robust_masking": False,
    "antialias": False,
    "pad_to_aspect_ratio": False,
    "fill_value": 0.0,
    "sparse": False,
    "salt": None,
    "oov_method": "floormod",
}
# The same for one class only, as the key has an effect at this value in another class.
_WITHOUT_EFFECT_IN: Mapping[tuple[str, str], Any] = {
    ("ZeroPadding1D", "data_format"): "channels_last",
    ("CenterCrop", "data_format"): "channels_last",
    ("Resizing", "data_format"): "channels_last",
    ("Resizing", "fill_mode"): "constant",
    **{
        (f"Random{name}", "data_format"): "channels_last"
        for name in "Brightness Contrast Crop Flip Rotation Translation Zoom".split()
    },
    ("RandomContrast", "value_range"): (0, 255),
    # Keras 2 does not put this dilation into the configuration.
    ("Conv3DTranspose", "dilation_rate"): (1, 1, 1),
}
# Keys that are not passed on. They are set separately (names, types), have no effect on results
# (speed, details of a feature that another key switches on, random numbers, which differ between
# the versions with any seed), or follow from the inputs.
_LEFT_OUT = frozenset(
    "name dtype trainable batch_input_shape batch_shape implementation use_cudnn renorm_clipping "
    "renorm_momentum rng_type seed input_length query_shape key_shape value_shape "
    "flash_attention autocast".split()
)
# Keras 2 name -> Keras 3 name of a weight.
_WEIGHT_NAMES = {"depthwise_kernel": "kernel"}
_ACTIVATION_NAMES = {"swish": "silu"}
# TensorFlow functions that are often given as activations.
_TF_ACTIVATIONS = (
    "relu relu6 elu selu silu sigmoid tanh softplus softsign softmax log_softmax gelu leaky_relu"
).split()


class LayerCarrier:
    """A converter that makes layers of one version of Keras anew in the other.

    Args:
        source: package (`keras` or `tf_keras`) of the layers to convert.
        target: the other package.
        custom_objects: mapping from the name of a class or function to its counterpart in
            `target`.
    """

    def __init__(self, source: Any, target: Any, custom_objects: Mapping[str, Any] | None):
        self.source = source
        self.target = target
        self.custom_objects = dict(custom_objects or {})
        self.from_2 = target is keras
        classes = {two: three for two, (three, _) in _CLASSES.items()}
        self._classes = classes if self.from_2 else {}
        pairs = [(kind, old, new) for kind, old, new in _RENAMED]
        self._renamed = {
            (kind, old if self.from_2 else new): new if self.from_2 else old
            for kind, old, new in pairs
        }

    def counterpart(self, layer: Any) -> type | None:
        """Returns the target's class for a layer; None if there is none."""
        name = type(layer).__name__
        if self._is_stock(layer):
            found = getattr(self.target.layers, self._classes.get(name, name), None)
            return found or self.custom_objects.get(name)
        return self._custom(type(layer))

    def missing(self, layer: Any) -> list[str]:
        """Returns the names of classes without a counterpart, in a layer and its inner layers."""
        names = [] if self.counterpart(layer) else [type(layer).__name__]
        for inner in self._inner_layers(layer).values():
            for one in inner if isinstance(inner, list) else [inner]:
                names += self.missing(one)
        for kind in ("regularizer", "constraint"):
            for key in _attributes(layer, kind):
                value = getattr(layer, key)
                if value is not None and self._part(value, kind) is None:
                    names.append(_name(value))
        return names

    def carry(self, layer: Any, name: str | None = None, **changes: Any) -> Any:
        """Makes a layer anew, without its weights.

        Args:
            layer: a layer of `source`.
            name: name of the new layer; by default the name of `layer`.
            **changes: configuration keys that get other values.

        Raises:
            AmcError: the target's class does not take the configuration.
        """
        kind = self.counterpart(layer)
        if kind is None:
            raise AmcError(f"layer {layer.name!r}: no counterpart of {type(layer).__name__}")
        stock = self._is_stock(layer)
        try:
            config = self._config(layer, stock)
            config |= {"name": (name or layer.name).replace("/", "_")}
            config |= {"dtype": layer.dtype_policy.name, **changes}
            new = kind(**config) if stock else kind.from_config(config)  # type: ignore
        except AmcError:
            raise
        except Exception as error:
            raise AmcError(
                f"layer {layer.name!r} ({type(layer).__name__}) cannot be made anew in "
                f"{self.target.__name__} {self.target.__version__}: {error}"
            ) from error
        new.trainable = layer.trainable
        return new

    def activation(self, function: Any) -> Any:
        """Returns the target's activation; a plain function is its own counterpart."""
        if isinstance(function, self.source.layers.Layer):
            return self.carry(function)
        name = _name(function)
        if name in self.custom_objects:
            return self.custom_objects[name]
        if not self.from_2:
            if function is keras2_hard_sigmoid:
                return self.target.activations.hard_sigmoid
            if name == "hard_sigmoid":
                return function
            names = {three: two for two, three in _ACTIVATION_NAMES.items()}
        else:
            if function is self.source.activations.hard_sigmoid:
                return keras2_hard_sigmoid
            names = _ACTIVATION_NAMES
            for known in _tf_activations():
                if function is known:
                    return _tf_activations()[known]
        if function is getattr(self.source.activations, name, None):
            return getattr(self.target.activations, names.get(name, name), function)
        return function

    def copy_weights(self, old: Any, new: Any) -> None:
        """Copies weights by position.

        Raises:
            AmcError: the weights differ in number, shapes or names.
        """
        pairs = [(_weights(old), _weights(new))]
        found = [[(_weight_name(w), tuple(w.shape)) for w in side] for side in pairs[0]]
        names = [[name for name, _ in side] for side in found]
        shapes = [[shape for _, shape in side] for side in found]
        # The weights of custom layers may have any names, so these are not compared.
        if shapes[0] != shapes[1] or (self._is_stock(old) and not _same_names(*names)):
            raise AmcError(
                f"layer {old.name!r} ({type(old).__name__}) has the weights {found[0]}, its "
                f"counterpart in {self.target.__name__} has {found[1]}"
            )
        for source, weight in zip(*pairs[0], strict=True):
            weight.assign(keras.ops.convert_to_numpy(source))
        if isinstance(new, self.target.layers.Normalization):
            new.finalize_state()  # computes the mean and variance in use from the weights

    def _is_stock(self, layer: Any) -> bool:
        name = type(layer).__name__
        homes = [self.source.layers, getattr(self.source.layers, "experimental", None)]
        return any(type(layer) is getattr(home, name, None) for home in homes)

    def _custom(self, kind: type) -> Any:
        """Returns a custom class's counterpart: given, or registered under the same name."""
        registered = self.source.saving.get_registered_name(kind)
        return (
            self.custom_objects.get(kind.__name__)
            or self.custom_objects.get(registered)
            or self.target.saving.get_registered_object(registered)
        )

    def _config(self, layer: Any, stock: bool) -> dict[str, Any]:
        name = type(layer).__name__
        if stock and name == "Lambda":
            # The configurations differ, but both versions take the function itself.
            config = {"function": layer.function, "arguments": layer.arguments}
            return config if layer.mask is None else {**config, "mask": layer.mask}
        inner = self._inner_layers(layer)
        result: dict[str, Any] = dict(_CLASSES[name][1]) if name in self._classes else {}
        for key, value in layer.get_config().items():
            if key in inner or key in _LEFT_OUT:
                continue
            value = _plain(value)
            if key.endswith("activation") and callable(getattr(layer, key, None)):
                value = self.activation(getattr(layer, key))
            elif key.endswith(("_regularizer", "_constraint")):
                value = self._made_part(layer, key)
            elif stock and key.endswith("_initializer"):
                continue  # the weights are copied
            if stock and self._without_effect(name, key, value):
                continue
            if stock and (name, key) == ("BatchNormalization", "axis") and np.ndim(value):
                (value,) = value
            result[self._renamed.get((name, key), key)] = value
        for key, layers in inner.items():
            several = isinstance(layers, list)
            result[key] = [self.carry(x) for x in layers] if several else self.carry(layers)
        return result

    @staticmethod
    def _without_effect(kind: str, key: str, value: Any) -> bool:
        nothing = _WITHOUT_EFFECT_IN.get((kind, key), _WITHOUT_EFFECT.get(key, _Never))
        value = tuple(value) if isinstance(value, list) else value
        return type(value) is type(nothing) and value == nothing

    def _inner_layers(self, layer: Any) -> dict[str, Any]:
        """Returns the layers inside wrappers and recurrent layers, by configuration key."""
        if type(layer) is self.source.layers.Bidirectional:
            return {"layer": layer.forward_layer, "backward_layer": layer.backward_layer}
        found = {key: getattr(layer, key, None) for key in ("layer", "cell", "cells")}
        if type(layer) is not self.source.layers.RNN:
            found.pop("cell")  # LSTM and the like make their cell from their own configuration
        result = {}
        for key, value in found.items():
            if isinstance(value, self.source.layers.Layer):
                result[key] = value
            elif isinstance(value, (list, tuple)) and key == "cells":
                result[key] = list(value)
        return result

    def _part(self, value: Any, kind: str) -> Any:
        """Returns the target's class (or function) for a regularizer or constraint."""
        name = _name(value)
        if type(value) is getattr(getattr(self.source, f"{kind}s"), name, None):
            return getattr(getattr(self.target, f"{kind}s"), name, None)
        return self._custom(type(value)) if not _is_function(value) else value

    def _made_part(self, layer: Any, key: str) -> Any:
        value = getattr(layer, key, None)
        if value is None or _is_function(value):
            return value
        return self._part(value, key.rsplit("_", 1)[1])(**_plain(value.get_config()))


class _Never:
    """A marker that equals no value of a configuration."""


def _name(value: Any) -> str:
    return getattr(value, "__name__", type(value).__name__)


def _is_function(value: Any) -> bool:
    return hasattr(value, "__name__")


@functools.cache
def _tf_activations() -> dict[Any, Any]:
    import tensorflow as tf

    return {getattr(tf.nn, name): getattr(keras.activations, name) for name in _TF_ACTIVATIONS}


def _attributes(layer: Any, kind: str) -> list[str]:
    return [key for key in vars(layer) if key.endswith(f"_{kind}") and not key.startswith("_")]


def _weights(layer: Any) -> list[Any]:
    # Keras 2 lists trainable weights first; Keras 3 lists the weights sublayer by sublayer.
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _weight_name(weight: Any) -> str:
    return weight.name.split(":")[0].split("/")[-1]


def _same_names(a: list[str], b: list[str]) -> bool:
    return all(
        x == y or _WEIGHT_NAMES.get(x) == y or _WEIGHT_NAMES.get(y) == x
        for x, y in zip(a, b, strict=True)
    )


def _plain(value: Any) -> Any:
    """Converts NumPy scalars, and the wrappers that Keras 2 puts around lists, to Python types."""
    if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        made = [_plain(x) for x in value]
        return tuple(made) if type(value) is tuple else made
    return value
