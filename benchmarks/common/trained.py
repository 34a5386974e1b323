"""Kinds of networks that no pretrained file is at hand for, trained here on CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
from common import networks
from keras import layers as kl

import amc_tf


def mobilenet_v3() -> keras.Model:
    """MobileNet-V3 Small at 64 pixels: hard-swish, and gates of channels."""
    inputs = keras.Input((32, 32, 3))
    network = keras.applications.MobileNetV3Small(
        input_tensor=kl.UpSampling2D(2, interpolation="bilinear")(inputs),
        weights=None,
        classes=10,
        classifier_activation=None,
    )
    return keras.Model(inputs, network.output, name="mobilenet_v3")


def vit() -> keras.Model:
    """A vision transformer of 64 patches, on pixels of -1 to 1."""
    inputs = keras.Input((32, 32, 3))
    body = networks.vit(size=32, patch=4, width=96, heads=4, classes=10)
    return keras.Model(inputs, body(kl.Rescaling(1 / 127.5, -1)(inputs)), name="small_vit")


NETWORKS: Mapping[str, Callable[[], keras.Model]] = {
    build.__name__: build for build in (mobilenet_v3, vit)
}


def recipe(train: amc_tf.Data, epochs: int) -> amc_tf.Recipe:
    """Returns what trains a compiled network: flips and shifts, a cosine schedule, no average."""
    augment = keras.Sequential(
        [kl.RandomFlip("horizontal"), kl.RandomTranslation(0.12, 0.12, fill_mode="nearest")]
    )
    return amc_tf.Recipe(train, epochs, rate=2e-3, augment=augment)
