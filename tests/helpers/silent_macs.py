"""MACs of operations that are not in the layer table, against a count by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers as kl
from keras import ops
from silent_judge import Bench, expect

import amc_tf

# A last layer that the table knows: 8 x 4 products.
HEAD = 8 * 4


def _with_head(x):
    pooling = (kl.GlobalAveragePooling1D, kl.GlobalAveragePooling2D, kl.GlobalAveragePooling3D)
    if len(x.shape) > 2:
        x = pooling[len(x.shape) - 3]()(x)
    return kl.Dense(4)(x)


class OwnConv(kl.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 8))

    def call(self, x):
        return ops.conv(x, self.kernel, padding="same")


class Residual(kl.Layer):
    """Two convolutions and a skip, of Keras' own layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = kl.Conv2D(8, 3, padding="same", activation="relu")
        self.second = kl.Conv2D(8, 3, padding="same")

    def call(self, x):
        return ops.relu(x + self.second(self.first(x)))


class Products(kl.Layer):
    def __init__(self, product, shape, **kwargs):
        super().__init__(**kwargs)
        self.product, self.of = product, shape

    def build(self, shape):
        self.kernel = self.add_weight(shape=self.of)

    def call(self, x):
        return self.product(x, self.kernel)


def image(channels=3):
    return keras.Input((16, 16, channels))


def _of(inputs, x, inner: int) -> tuple[keras.Model, int]:
    return keras.Model(inputs, _with_head(x)), inner + HEAD


def time_distributed():
    inputs = keras.Input((5, 16, 16, 3))
    x = kl.TimeDistributed(kl.Conv2D(8, 3, padding="same"))(inputs)
    return _of(inputs, x, 5 * 16 * 16 * 9 * 3 * 8)


def own_conv():
    inputs = image()
    return _of(inputs, OwnConv()(inputs), 16 * 16 * 9 * 3 * 8)


def lambda_conv():
    inputs = image()
    kernel = np.ones((3, 3, 3, 8), "float32")
    x = kl.Lambda(lambda t: ops.conv(t, kernel, padding="same"), output_shape=(16, 16, 8))(inputs)
    return _of(inputs, x, 16 * 16 * 9 * 3 * 8)


def einsum():
    inputs = keras.Input((16, 8))
    x = ops.einsum("bik,bjk->bij", inputs, inputs)
    x = ops.einsum("bij,bjk->bik", x, inputs)
    return _of(inputs, x, 16 * 16 * 8 + 16 * 16 * 8)


def conv_op():
    inputs = image()
    return _of(inputs, ops.conv(inputs, np.ones((5, 5, 3, 8), "float32")), 12 * 12 * 25 * 3 * 8)


def depthwise_op():
    inputs = image(8)
    x = ops.depthwise_conv(inputs, np.ones((3, 3, 8, 1), "float32"), padding="same")
    return _of(inputs, x, 16 * 16 * 9 * 8)


def separable_op():
    inputs = image()
    deep, wide = np.ones((3, 3, 3, 2), "float32"), np.ones((1, 1, 6, 8), "float32")
    x = ops.separable_conv(inputs, deep, wide, padding="same")
    return _of(inputs, x, 16 * 16 * (9 * 6 + 6 * 8))


def transposed_op():
    inputs = image()
    # Keras 3.15 cannot call the operation alone: it loses its padding.
    x = Products(lambda t, w: ops.conv_transpose(t, w, 2, "valid"), (2, 2, 8, 3))(inputs)
    return _of(inputs, x, 16 * 16 * 4 * 3 * 8)


def matmul():
    inputs = keras.Input((16, 8))
    x = ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1)))
    return _of(inputs, ops.matmul(x, inputs), 16 * 16 * 8 * 2)


def tensordot():
    inputs = keras.Input((16, 12))
    x = Products(lambda t, w: ops.tensordot(t, w, axes=1), (12, 8))(inputs)
    return _of(inputs, x, 16 * 12 * 8)


def spectral():
    x = inputs = image()
    for _ in range(3):
        x = kl.SpectralNormalization(kl.Conv2D(8, 3, padding="same"))(x)
    return _of(inputs, x, 16 * 16 * 9 * (3 * 8 + 2 * 8 * 8))


def residual_layers():
    inputs = image(8)
    return _of(inputs, Residual()(Residual()(inputs)), 4 * 16 * 16 * 9 * 8 * 8)


def bidirectional():
    inputs = keras.Input((10, 6))
    x = kl.Bidirectional(kl.LSTM(4))(inputs)
    return _of(inputs, x, 2 * 10 * (6 * 16 + 4 * 16))


def loop_lstm():
    inputs = keras.Input((10, 6))
    return _of(inputs, kl.LSTM(8)(inputs), 10 * (6 * 32 + 8 * 32))


KINDS = {
    "TimeDistributed(Conv2D)": time_distributed,
    "a convolution in a layer of one's own": own_conv,
    "a convolution in a Lambda": lambda_conv,
    "ops.einsum of activations": einsum,
    "ops.conv": conv_op,
    "ops.depthwise_conv": depthwise_op,
    "ops.separable_conv": separable_op,
    "ops.conv_transpose": transposed_op,
    "ops.matmul of activations": matmul,
    "ops.tensordot": tensordot,
    "three SpectralNormalization(Conv2D)": spectral,
    "two residual blocks, each a Layer": residual_layers,
    "Bidirectional(LSTM)": bidirectional,
    "LSTM with a loop": loop_lstm,
}


def _counted(make: Callable) -> Callable[[Bench], None]:
    def case(bench: Bench) -> None:
        model, wanted = make()
        found = amc_tf.macs(amc_tf.analyze(model))
        expect(found == wanted, f"counts {found:,} MACs of {wanted:,}")

    return case


def attention_mask(bench: Bench) -> None:
    """An attention with a mask: the mask is no key (16 positions, 2 heads of 4)."""
    inputs, mask = keras.Input((16, 8)), keras.Input((16, 16))
    x = kl.MultiHeadAttention(2, 4)(inputs, inputs, attention_mask=mask)
    model = keras.Model([inputs, mask], kl.Dense(4)(kl.GlobalAveragePooling1D()(x)))
    wanted = 4 * 16 * 8 * 8 + 2 * math.prod((16, 16, 8)) + HEAD
    found = amc_tf.macs(amc_tf.analyze(model))
    expect(found == wanted, f"counts {found:,} MACs of {wanted:,}")


CASES = {
    **{f"MACs of {name}": _counted(make) for name, make in KINDS.items()},
    "MACs of an attention with a mask": attention_mask,
}
