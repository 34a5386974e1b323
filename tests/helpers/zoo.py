"""Small models that hold every kind of connection the layer table knows."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as kl
from keras import ops


def _input(*shape):
    return keras.Input(shape or (8, 8, 3))


def _conv_bn(x, filters, size=3, **options):
    x = kl.Conv2D(filters, size, padding="same", use_bias=False, **options)(x)
    return kl.ReLU()(kl.BatchNormalization()(x))


def _head(x, units=5):
    return kl.Dense(units, activation="softmax")(kl.GlobalAveragePooling2D()(x))


def plain():
    x = inputs = _input()
    for filters in (4, 6, 8):
        x = kl.Conv2D(filters, 3, activation="relu")(x)
    return keras.Model(inputs, _head(x))


def sequential_flatten():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            kl.Conv2D(6, 3, activation="tanh"),
            kl.MaxPooling2D(),
            kl.Flatten(),
            kl.Dense(7, activation="elu"),
            kl.Dropout(0.3),
            kl.Dense(4),
        ]
    )


def residual():
    x = inputs = _input()
    x = _conv_bn(x, 8)
    for _ in range(2):
        y = _conv_bn(x, 5)
        y = kl.BatchNormalization()(kl.Conv2D(8, 3, padding="same")(y))
        x = kl.ReLU()(kl.Add()([x, y]))
    return keras.Model(inputs, _head(x))


def residual_operators():
    """`x + y` and activations as keras.ops rather than layers."""
    x = inputs = _input()
    x = ops.relu(kl.Conv2D(6, 3, padding="same")(x) * 0.5)
    y = ops.silu(kl.Conv2D(6, 1)(x))
    x = (x + y) / 2 - ops.sigmoid(x)
    x = ops.mean(ops.maximum(x, y), axis=(1, 2))
    return keras.Model(inputs, kl.Dense(3)(x))


def zero_padded_shortcut():
    """ResNet's parameter-free shortcut: a strided slice, then zero channels."""
    x = inputs = _input()
    x = _conv_bn(x, 4)
    y = _conv_bn(x, 10, strides=2)
    shortcut = ops.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [3, 3]])
    x = kl.ReLU()(kl.Add()([y, shortcut]))
    return keras.Model(inputs, _head(_conv_bn(x, 6)))


def depthwise_multiplier():
    x = inputs = _input()
    x = _conv_bn(x, 6)
    x = kl.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)
    x = kl.PReLU(shared_axes=[1, 2])(_conv_bn(x, 7, 1))
    x = kl.SeparableConv2D(8, 3, depth_multiplier=2, activation="swish")(x)
    return keras.Model(inputs, _head(x))


def concatenated():
    x = inputs = _input()
    a, b = _conv_bn(x, 4), kl.Conv2D(5, 1, activation="gelu")(x)
    x = kl.Concatenate()([a, b])
    c = _conv_bn(kl.AveragePooling2D(3, 1, padding="same")(x), 3)
    x = ops.concatenate([x, c, a], axis=-1)
    return keras.Model(inputs, _head(_conv_bn(x, 6)))


def squeeze_excite():
    x = inputs = _input()
    x = _conv_bn(x, 8)
    s = kl.GlobalAveragePooling2D()(x)
    s = kl.Dense(3, activation="relu")(kl.Reshape((1, 1, 8))(s))
    s = kl.Dense(8, activation="sigmoid")(s)
    x = kl.Multiply()([x, s])
    return keras.Model(inputs, _head(kl.Conv2D(6, 3)(x)))


def spatial_attention():
    """One map scales every channel, broadcast over the channel axis."""
    x = inputs = _input()
    x = _conv_bn(x, 6)
    attention = kl.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
    return keras.Model(inputs, _head(_conv_bn(kl.Multiply()([x, attention]), 5)))


def sliced():
    """Channels split by slices, mixed separately and concatenated again."""
    x = inputs = _input()
    x = _conv_bn(x, 8)
    left, right = x[..., :3], x[:, 1:-1, 1:-1, 3:]
    left = kl.Cropping2D(1)(kl.Conv2D(4, 3, padding="same")(left))
    x = kl.Concatenate()([left, right])
    return keras.Model(inputs, _head(_conv_bn(x, 5)))


def reshaped():
    x = inputs = _input()
    x = _conv_bn(x, 4)
    x = kl.Reshape((4, 2, 8, 4))(x)
    x = ops.reshape(x, (-1, 8, 8, 4))
    x = kl.Reshape((8, 32))(x)
    x = kl.Reshape((-1,))(x)
    return keras.Model(inputs, kl.Dense(3)(kl.Dense(6, activation="relu")(x)))


def nested_backbone():
    backbone_in = keras.Input((8, 8, 3))
    x = _conv_bn(backbone_in, 6)
    inner = keras.Sequential([keras.Input((8, 8, 6)), kl.Conv2D(5, 3, name="conv"), kl.ReLU()])
    backbone = keras.Model(backbone_in, inner(x), name="backbone")
    x = inputs = _input()
    x = kl.Rescaling(1 / 127.5, offset=-1)(x)
    x = backbone(x, training=False)
    x = kl.Conv2D(4, 3, name="conv")(x)
    return keras.Model(inputs, _head(x))


def shared_layers():
    """A layer called twice, and a sub-model called twice."""
    conv = kl.Conv2D(5, 3, padding="same", activation="relu")
    norm = kl.BatchNormalization()
    tower_in = keras.Input((8, 8, 5))
    tower = keras.Model(tower_in, kl.Conv2D(6, 3, activation="relu")(tower_in))
    a, b = _input(), _input()
    ya, yb = tower(norm(conv(a))), tower(norm(conv(b)))
    x = kl.Concatenate()([kl.Flatten()(ya), kl.Flatten()(yb)])
    return keras.Model([a, b], kl.Dense(3)(x))


def two_outputs():
    x = inputs = _input()
    x = kl.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])(x)
    x = _conv_bn(x, 6)
    feature = kl.Conv2D(4, 3, name="feature")(x)
    return keras.Model(inputs, {"map": feature, "label": _head(_conv_bn(feature, 5))})


def one_dimensional():
    x = inputs = _input(16, 3)
    x = kl.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    x = kl.MaxPooling1D()(kl.ZeroPadding1D(1)(x))
    x = kl.Permute((1, 2))(kl.SpatialDropout1D(0.1)(x))
    x = kl.Conv1DTranspose(5, 3, strides=2)(kl.UpSampling1D(2)(x))
    return keras.Model(inputs, kl.Dense(2)(kl.GlobalMaxPooling1D()(x)))


@keras.saving.register_keras_serializable(package="zoo")
class Unlisted(kl.Dense):
    """A layer that the table does not know: a subclass may compute anything."""


def unlisted_in_the_middle():
    """An operation the table does not know freezes what it touches, and only that."""
    x = inputs = _input()
    x = _conv_bn(_conv_bn(x, 6), 4)
    x = Unlisted(4, name="unlisted")(x)
    x = kl.Conv2D(8, 3)(_conv_bn(x, 6))
    return keras.Model(inputs, _head(_conv_bn(x, 5)))


def grouped():
    x = inputs = _input()
    x = kl.Conv2D(12, 3, padding="same", activation="relu", name="before")(x)
    x = kl.Conv2D(8, 3, groups=2, padding="same", name="within")(x)  # 2 groups of 6 and 4
    x = kl.BatchNormalization()(x)
    y = kl.Conv2D(16, 1, activation="relu", name="middle")(x)
    y = kl.Conv2D(24, 3, groups=8, padding="same", name="whole")(y)  # 8 groups of 2 and 3
    y = kl.Conv2D(24, 3, groups=24, padding="same", name="as_depthwise")(y)
    return keras.Model(inputs, _head(kl.Concatenate()([x, y])))


def normalised():
    x = inputs = _input()
    x = kl.Conv2D(12, 3, padding="same")(x)
    x = kl.GroupNormalization(groups=4)(x)
    x = kl.Conv2D(6, 3, padding="same")(x)
    x = kl.ReLU()(kl.GroupNormalization(groups=-1)(x))
    x = kl.Conv2D(6, 1)(x)
    x = kl.UnitNormalization(axis=(1, 2))(x)
    x = kl.Conv2D(8, 1, name="frozen_by_layer_norm")(x)
    x = kl.LayerNormalization()(x)
    x = kl.Conv2D(7, 1, activation="gelu")(x)
    return keras.Model(inputs, _head(x))


def volumes():
    x = inputs = _input(6, 6, 6, 2)
    x = kl.Conv3D(4, 3, padding="same", activation="relu")(x)
    x = kl.SpatialDropout3D(0.2)(kl.MaxPooling3D()(x))
    x = kl.Conv3DTranspose(3, 2, strides=2)(x)
    x = kl.Cropping3D(1)(kl.UpSampling3D()(x))
    return keras.Model(inputs, kl.Dense(3)(kl.Flatten()(kl.AveragePooling3D(5)(x))))


def split_and_stacked():
    x = inputs = _input()
    x = kl.Conv2D(9, 3, padding="same", activation="relu")(x)
    a, b, c = ops.split(x, 3, axis=-1)
    d, e = ops.split(kl.Conv2D(4, 3, padding="same")(c), [2], axis=1)
    a = kl.Conv2D(5, 3, padding="same")(a * b)
    x = ops.concatenate([a, ops.concatenate([e, d], axis=1)], axis=-1)
    x = ops.stack([x, ops.tanh(x)], axis=1)
    x = ops.squeeze(kl.AveragePooling3D((2, 1, 1))(x), axis=1)
    x = ops.transpose(ops.expand_dims(x, 1), (0, 3, 2, 1, 4))
    return keras.Model(inputs, kl.Dense(4)(ops.mean(x, axis=(1, 2, 3))))


def flattened_in_the_other_layout():
    x = inputs = keras.Input((5, 4, 3))
    x = kl.Conv2D(6, 2, activation="relu")(x)
    return keras.Model(inputs, kl.Dense(3)(kl.Flatten(data_format="channels_first")(x)))


def transformer_block():
    x = inputs = _input()
    x = kl.Conv2D(8, 4, strides=4, name="patches")(x)
    x = kl.Reshape((4, 8))(x)
    y = kl.LayerNormalization()(x)
    x = kl.Add()([x, kl.MultiHeadAttention(2, 4)(y, y)])
    y = kl.LayerNormalization()(x)
    y = kl.EinsumDense("...x,xy->...y", 16, bias_axes="y", activation="gelu")(y)
    y = kl.EinsumDense("abc,cd->abd", (4, 8))(y)
    x = kl.Add()([x, y])
    return keras.Model(inputs, kl.Dense(5)(kl.GlobalAveragePooling1D()(x)))


def recurrent():
    x = inputs = keras.Input((12, 4))
    x = kl.Conv1D(6, 3, padding="causal", activation="relu")(x)
    x = kl.Conv1D(5, 3)(x)
    x = kl.Bidirectional(kl.LSTM(3))(x)
    x = kl.Dense(6, activation="relu")(x)
    x = kl.RepeatVector(3)(x)
    return keras.Model(inputs, kl.Dense(2)(kl.Flatten()(x)))


def mixed_precision():
    x = inputs = _input()
    for filters in (6, 8):
        x = kl.Conv2D(filters, 3, padding="same", dtype="mixed_bfloat16")(x)
        x = kl.ReLU(dtype="mixed_bfloat16")(kl.BatchNormalization(dtype="mixed_bfloat16")(x))
    x = kl.GlobalAveragePooling2D(dtype="mixed_bfloat16")(x)
    return keras.Model(inputs, kl.Dense(4, dtype="float32")(x))


@keras.saving.register_keras_serializable("zoo")
class Block(kl.Layer):
    """A residual block of the user's, with a weight of its own and a block within it."""

    def __init__(self, width, inner=None, **settings):
        super().__init__(**settings)
        self.width = width
        self.inner = inner
        self.wide = kl.Conv2D(2 * width, 3, padding="same", use_bias=False)
        self.norm = kl.BatchNormalization()
        self.back = kl.Conv2D(width, 1)

    def build(self, shape):
        self.wide.build(shape)
        self.norm.build((*shape[:-1], 2 * self.width))
        self.back.build((*shape[:-1], 2 * self.width))
        if self.inner is not None:
            self.inner.build(shape)
        self.scale = self.add_weight(shape=(self.width,), name="scale", initializer="uniform")
        self.built = True

    def call(self, x, training=None):
        y = keras.activations.relu(self.norm(self.wide(x), training=training))
        y = x + self.scale * self.back(y)
        return y if self.inner is None else self.inner(y, training=training)

    def get_config(self):
        inner = None if self.inner is None else keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "width": self.width, "inner": inner}

    @classmethod
    def from_config(cls, config):
        inner = config.pop("inner", None)
        return cls(inner=inner and keras.saving.deserialize_keras_object(inner), **config)


@keras.saving.register_keras_serializable("zoo")
class Token(kl.Layer):
    """Learnt positions, and a learnt token before them for each sample."""

    def build(self, shape):
        self.positions = self.add_weight(shape=shape[1:], initializer="normal", name="positions")
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal", name="token")

    def call(self, x):
        token = ops.tile(self.token, (ops.shape(x)[0], 1, 1))
        return ops.concatenate([token, x + self.positions], axis=1)


def own_blocks():
    """Layers that are made of layers, and that hold weights of their own."""
    x = inputs = _input()
    x = kl.Conv2D(6, 3, strides=2, padding="same", name="stem")(x)
    shared = Block(6)
    x = shared(Block(6, inner=Block(6))(shared(x)))
    x = ops.roll(x, 1, axis=1)
    x = Token()(kl.Reshape((16, 6))(x))
    return keras.Model(inputs, kl.Dense(5)(kl.Dense(7, activation="gelu")(x[:, 0] + x[:, 3])))


ZOO = {
    model.__name__: model
    for model in (
        plain,
        sequential_flatten,
        residual,
        residual_operators,
        zero_padded_shortcut,
        depthwise_multiplier,
        concatenated,
        squeeze_excite,
        spatial_attention,
        sliced,
        reshaped,
        nested_backbone,
        shared_layers,
        two_outputs,
        one_dimensional,
        unlisted_in_the_middle,
        grouped,
        normalised,
        volumes,
        split_and_stacked,
        flattened_in_the_other_layout,
        transformer_block,
        recurrent,
        mixed_precision,
        own_blocks,
    )
}


def three_convolutions(widths=(16, 24, 40)):
    """Three groups of different sizes, for tests of decisions rather than layers."""
    x = inputs = keras.Input((16, 16, 3))
    for i, filters in enumerate(widths):
        x = kl.Conv2D(filters, 3, strides=1 + i % 2, padding="same", name=f"conv{i}")(x)
    return keras.Model(inputs, kl.Dense(7)(kl.GlobalAveragePooling2D()(x)))


def build(name: str, seed: int = 0):
    """Builds a model of the zoo with random weights (a fresh batch norm would hide faults)."""
    keras.utils.set_random_seed(seed)
    model = ZOO[name]()
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        positive = "variance" in weight.name
        values = (
            rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.5, weight.shape)
        )
        if weight.dtype.startswith("float"):
            weight.assign(values)
    return model


def sample(model, batch: int = 2, seed: int = 0):
    """Draws random inputs in the form the model takes."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(batch, *t.shape[1:])).astype("float32") for t in model.inputs]
    return arrays if len(arrays) > 1 else arrays[0]


def outputs(model, inputs) -> list[np.ndarray]:
    return [np.asarray(y) for y in keras.tree.flatten(model(inputs, training=False))]
