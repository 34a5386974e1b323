"""Small networks of the architectures that mobile engineers bring, for 8x8 images of digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import ops

SHAPE, CLASSES = (8, 8, 1), 10


def _classified(inputs: Any, x: Any) -> keras.Model:
    return keras.Model(inputs, kl.Dense(CLASSES, activation="softmax", name="classes")(x))


def _transformer(x: Any, width: int, heads: int, norm: Callable[[], Any]) -> Any:
    y = norm()(x)
    x = x + kl.MultiHeadAttention(heads, width // heads)(y, y)
    y = kl.Dense(2 * width, activation="gelu")(norm()(x))
    return x + kl.Dense(width)(y)


class Positions(keras.Layer):
    """Adds what is learnt for each position."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(1, *shape[1:]), initializer="normal", name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


def vision_transformer() -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = kl.Reshape((16, 24))(kl.Conv2D(24, 2, strides=2, name="patches")(inputs))
    x = Positions()(x)
    for _ in range(2):
        x = _transformer(x, 24, 4, kl.LayerNormalization)
    return _classified(inputs, kl.GlobalAveragePooling1D()(kl.LayerNormalization()(x)))


def rotary_transformer() -> keras.Model:
    """RMS normalisation, rotary embeddings and a gated MLP, written by hand."""
    inputs = keras.Input(SHAPE)
    tokens, width, heads, own = 16, 24, 3, 8
    x = kl.Reshape((tokens, width))(kl.Conv2D(width, 2, strides=2, name="patches")(inputs))
    angles = np.outer(np.arange(tokens), 0.5 ** np.arange(own // 2))
    angles = np.concatenate([angles, angles], -1).reshape(1, tokens, 1, own).astype("float32")
    cos, sin = np.cos(angles), np.sin(angles)

    def turned(t: Any) -> Any:
        a, b = t[..., : own // 2], t[..., own // 2 :]
        return t * cos + ops.concatenate([-b, a], axis=-1) * sin

    for _ in range(2):
        y = kl.RMSNormalization()(x)
        q, k, v = (kl.Reshape((tokens, heads, own))(kl.Dense(heads * own)(y)) for _ in range(3))
        y = ops.dot_product_attention(turned(q), turned(k), v)
        x = x + kl.Dense(width)(kl.Reshape((tokens, heads * own))(y))
        y = kl.RMSNormalization()(x)
        y = kl.Dense(40, activation="silu")(y) * kl.Dense(40)(y)
        x = x + kl.Dense(width)(y)
    return _classified(inputs, kl.GlobalAveragePooling1D()(x))


def mobile_vit() -> keras.Model:
    """Convolutions, then a transformer over the patches of each place within a patch."""
    inputs = keras.Input(SHAPE)
    x = kl.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = kl.Activation("silu")(kl.BatchNormalization()(x))
    y = kl.Conv2D(24, 1, activation="silu", name="to_patches")(x)
    # (rows, 2, columns, 2) of places: one sequence of 16 patches for each of 4 places.
    y = ops.reshape(y, (-1, 4, 2, 4, 2, 24))
    y = ops.reshape(ops.transpose(y, (0, 2, 4, 1, 3, 5)), (-1, 16, 24))
    y = _transformer(y, 24, 3, kl.LayerNormalization)
    y = ops.transpose(ops.reshape(y, (-1, 2, 2, 4, 4, 24)), (0, 3, 1, 4, 2, 5))
    y = kl.Conv2D(16, 1, activation="silu", name="from_patches")(ops.reshape(y, (-1, 8, 8, 24)))
    x = kl.Conv2D(20, 3, strides=2, activation="silu")(kl.Concatenate()([x, y]))
    return _classified(inputs, kl.GlobalAveragePooling2D()(x))


def conv_next() -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = kl.Conv2D(20, 2, strides=2, name="stem")(inputs)
    x = kl.LayerNormalization()(x)
    for _ in range(2):
        y = kl.DepthwiseConv2D(3, padding="same")(x)
        y = kl.Dense(48, activation="gelu")(kl.LayerNormalization()(y))
        x = kl.Add()([x, kl.Dense(20)(y)])
    return _classified(inputs, kl.LayerNormalization()(kl.GlobalAveragePooling2D()(x)))


def keyword_spotter() -> keras.Model:
    """The rows of an image are the frames of a spectrogram."""
    inputs = keras.Input(SHAPE)
    x = kl.Reshape((8, 8))(inputs)
    x = kl.Conv1D(16, 3, padding="same", activation="relu", name="frames")(x)
    # int8 cannot calibrate loops.
    x = kl.Bidirectional(kl.LSTM(12, return_sequences=True, unroll=True))(x)
    return _classified(inputs, kl.GRU(16, unroll=True)(x))


def shuffle_net() -> keras.Model:
    """Two units of ShuffleNet V2: half of the channels pass, and both halves are shuffled."""
    inputs = keras.Input(SHAPE)
    x = kl.Conv2D(24, 3, padding="same", activation="relu", name="stem")(inputs)
    for number in range(2):
        passed, y = ops.split(x, 2, axis=-1)
        y = kl.Conv2D(12, 1, activation="relu", name=f"unit_{number}")(y)
        y = kl.BatchNormalization(momentum=0.9)(kl.DepthwiseConv2D(3, padding="same")(y))
        y = kl.Conv2D(12, 1, activation="relu")(y)
        x = kl.Concatenate()([passed, y])
        x = ops.transpose(ops.reshape(x, (-1, 8, 8, 2, 12)), (0, 1, 2, 4, 3))
        x = ops.reshape(x, (-1, 8, 8, 24))
    x = kl.Conv2D(32, 3, strides=2, activation="relu", name="last")(x)
    return _classified(inputs, kl.GlobalAveragePooling2D()(x))


NETWORKS: Mapping[str, Callable[[], keras.Model]] = {
    made.__name__: made
    for made in (
        vision_transformer,
        rotary_transformer,
        mobile_vit,
        conv_next,
        keyword_spotter,
        shuffle_net,
    )
}
