"""Kinds of networks that keras.applications lacks, at real sizes, for the graph study."""

from __future__ import annotations

import keras
from keras import layers as kl


def _conv(x, filters, size=3, strides=1):
    x = kl.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return kl.ReLU()(kl.BatchNormalization()(x))


def unet() -> keras.Model:
    """Segmentation: concatenated skips, a map of classes as output."""
    x = inputs = keras.Input((128, 128, 3))
    skips = []
    for filters in (32, 64, 128, 256):
        x = _conv(_conv(x, filters), filters)
        skips.append(x)
        x = kl.MaxPooling2D()(x)
    x = _conv(_conv(x, 512), 512)
    for skip in reversed(skips):
        filters = skip.shape[-1]
        x = kl.Conv2DTranspose(filters, 2, strides=2)(x)
        x = _conv(_conv(kl.Concatenate()([skip, x]), filters), filters)
    return keras.Model(inputs, kl.Conv2D(21, 1, activation="softmax")(x), name="unet")


def ssd() -> keras.Model:
    """Detection: a nested backbone, boxes and classes from four scales."""
    inputs = keras.Input((192, 192, 3))
    backbone = keras.applications.MobileNetV2(
        (192, 192, 3), alpha=0.5, include_top=False, weights=None
    )
    features = keras.Model(
        backbone.inputs,
        [backbone.get_layer("block_13_expand_relu").output, backbone.output],
        name="backbone",
    )(inputs)
    maps = list(features)
    for filters in (256, 128):
        maps.append(_conv(_conv(maps[-1], filters // 2, 1), filters, 3, 2))
    boxes = [kl.Reshape((-1, 4))(kl.SeparableConv2D(6 * 4, 3, padding="same")(m)) for m in maps]
    classes = [kl.Reshape((-1, 21))(kl.SeparableConv2D(6 * 21, 3, padding="same")(m)) for m in maps]
    outputs = {
        "boxes": kl.Concatenate(axis=1, name="boxes")(boxes),
        "classes": kl.Concatenate(axis=1, name="classes")(classes),
    }
    return keras.Model(inputs, outputs, name="ssd")


def audio() -> keras.Model:
    """Keyword spotting on raw sound: Conv1D and separable convolutions."""
    x = inputs = keras.Input((16000, 1))
    x = kl.ReLU()(kl.BatchNormalization()(kl.Conv1D(64, 80, strides=4, use_bias=False)(x)))
    for filters in (64, 128, 256):
        x = kl.MaxPooling1D(4)(x)
        x = kl.SeparableConv1D(filters, 9, padding="same", use_bias=False)(x)
        x = kl.ReLU()(kl.BatchNormalization()(x))
        y = kl.Conv1D(filters, 3, padding="same", activation="relu")(x)
        x = kl.Add()([x, kl.SpatialDropout1D(0.1)(y)])
    return keras.Model(inputs, kl.Dense(35)(kl.GlobalAveragePooling1D()(x)), name="audio")


def se_resnext() -> keras.Model:
    """Squeeze and excitation over grouped convolutions (32 groups of 4)."""
    x = inputs = keras.Input((96, 96, 3))
    x = _conv(x, 64, 7, 2)
    for filters, strides in ((128, 1), (256, 2), (512, 2)):
        for step in (strides, 1):
            y = _conv(x, filters, 1)
            y = kl.Conv2D(filters, 3, step, padding="same", groups=32, use_bias=False)(y)
            y = kl.ReLU()(kl.BatchNormalization()(y))
            y = kl.BatchNormalization()(kl.Conv2D(2 * filters, 1, use_bias=False)(y))
            gate = kl.GlobalAveragePooling2D(keepdims=True)(y)
            gate = kl.Conv2D(filters // 8, 1, activation="relu")(gate)
            y = y * kl.Conv2D(2 * filters, 1, activation="sigmoid")(gate)
            if x.shape != y.shape:
                x = kl.BatchNormalization()(kl.Conv2D(2 * filters, 1, step, use_bias=False)(x))
            x = kl.ReLU()(x + y)
    return keras.Model(inputs, kl.Dense(100)(kl.GlobalAveragePooling2D()(x)), name="se_resnext")


def vit(size=96, patch=8, width=192, heads=3, classes=100) -> keras.Model:
    """Patches, attention, layer norm: the hidden widths can be pruned, the stream cannot."""
    inputs = keras.Input((size, size, 3))
    tokens = (size // patch) ** 2
    x = kl.Reshape((tokens, width))(kl.Conv2D(width, patch, strides=patch)(inputs))
    # A bias of its own for each token: the learnt positions.
    x = kl.EinsumDense("ntc,cd->ntd", (tokens, width), bias_axes="td")(x)
    for _ in range(4):
        y = kl.LayerNormalization(epsilon=1e-6)(x)
        x = kl.Add()([x, kl.MultiHeadAttention(heads, width // heads)(y, y)])
        y = kl.Dense(4 * width, activation="gelu")(kl.LayerNormalization(epsilon=1e-6)(x))
        x = kl.Add()([x, kl.Dense(width)(kl.Dropout(0.1)(y))])
    x = kl.GlobalAveragePooling1D()(kl.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, kl.Dense(classes)(x), name="vit")


NETWORKS = {build.__name__: build for build in (unet, ssd, audio, se_resnext, vit)}
