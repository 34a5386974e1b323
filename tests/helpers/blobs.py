"""A task that is learnt in a second: which quadrant of a noisy image is bright."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as kl

import amc_tf


def data(count, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count).astype("int32")
    x = rng.normal(0, 0.6, (count, 8, 8, 1)).astype("float32")
    for image, label in zip(x, y, strict=True):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.5
    return x, y


def model():
    x = inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    y = kl.BatchNormalization()(kl.Conv2D(8, 3, padding="same", use_bias=False)(x))
    x = kl.MaxPooling2D()(kl.ReLU()(kl.Add()([x, y])))
    x = kl.Dense(12, activation="relu", name="hidden")(kl.Flatten()(x))
    return keras.Model(inputs, kl.Dense(4)(x), name="blobs")


def compile_model(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])


def task(**changes):
    values = {
        "train": data(400, 0),
        "validation": data(200, 1),
        "test": data(200, 2),
        "compile": compile_model,
        "epochs": 3,
        "calibration_size": 128,
    }
    return amc_tf.Task(**{**values, **changes})


def trained(epochs=5):
    keras.utils.set_random_seed(0)
    net = model()
    compile_model(net)
    net.fit(*data(400, 0), epochs=epochs, verbose=0)
    return net


def search_settings(**changes):
    values = {
        "episodes": 6,
        "rounding": 1,
        "refit": "dense",  # milliseconds a plan
        "final_refit": "dense",  # so that what is built scores as it did in the search
        "ddpg": amc_tf.DdpgSettings(warmup_episodes=2, batch_size=8, decay_episodes=4),
    }
    return amc_tf.SearchSettings(**{**values, **changes})
