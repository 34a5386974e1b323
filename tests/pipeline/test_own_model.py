"""Layers and classes of the user's own, registered nowhere, through a whole run."""

import blobs
import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf

TRAINED = []


class ChannelScale(kl.Layer):
    """README's example: one factor for each channel."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale


class Noted(keras.Model):
    """A model that notes the widths that its own step trains."""

    def train_step(self, data):
        TRAINED.append(self.get_layer("stem").filters)
        return super().train_step(data)


def own_model():
    x = inputs = keras.Input((8, 8, 1))
    x = ChannelScale()(kl.Conv2D(8, 3, activation="relu", name="stem")(x))
    x = kl.MaxPooling2D()(kl.Conv2D(8, 3, activation="relu")(x))
    return Noted(inputs, kl.Dense(4)(kl.Flatten()(x)))


def test_a_run_needs_nothing_registered(tmp_path):
    amc_tf.register_layer(ChannelScale, like=kl.ReLU, weights={"scale": ("in",)})
    keras.utils.set_random_seed(0)
    model = own_model()
    blobs.compile_model(model)
    model.fit(*blobs.data(400, 0), epochs=2, verbose=0)
    TRAINED.clear()
    settings = amc_tf.Settings(
        rehearse=False,
        search=blobs.search_settings(episodes=2, policies=("uniform",)),
        export=amc_tf.ExportSettings(latency_rounds=1, latency_runs=3, latency_min_secs=0.01),
    )
    budget = amc_tf.Budget(macs=0.5)
    result = amc_tf.compress(model, blobs.task(compile=None), budget, tmp_path, settings)
    assert TRAINED and set(TRAINED) != {8}, "fine-tuning does not run the user's step"
    path = tmp_path / "finetuned.keras"
    with pytest.raises(amc_tf.AmcError, match="needs the class 'ChannelScale'.*register_keras"):
        amc_tf.load_model(path)
    small = amc_tf.load_model(path, custom_objects={"ChannelScale": ChannelScale})
    x, y = blobs.data(200, 2)
    found = np.mean(small.predict(x, verbose=0).argmax(-1) == y)
    told = result["finetuned"]
    assert found == pytest.approx(told.get("score", told.get("accuracy")))
