"""A dense model that computes no numbers is refused before any work, and its layer named."""

import blobs
import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.pruning.verification import check_finite

BUDGET = amc_tf.Budget(macs=0.5)
SETTINGS = amc_tf.Settings(rehearse=False, search=blobs.search_settings())


def spoilt(layer, weight, value):
    model = blobs.model()
    held = next(w for w in model.get_layer(layer).weights if w.name == weight)
    values = np.array(keras.ops.convert_to_numpy(held))
    values.flat[0] = value
    held.assign(values)
    return model


@pytest.mark.parametrize(
    "weight, value, message",
    [
        ("kernel", np.nan, r"layer 'stem' \(Conv2D\).*not finite in its weight 'kernel'"),
        ("bias", np.inf, r"layer 'stem' \(Conv2D\).*not finite in its weight 'bias'"),
        ("kernel", 3e38, r"layer 'stem' \(Conv2D\) gives values that are not finite"),
    ],
)
def test_refused_before_work(tmp_path, weight, value, message):
    model = spoilt("stem", weight, value)
    task = blobs.task(validation=(blobs.data(20, 1)[0] * 100, blobs.data(20, 1)[1]))
    for run in (
        lambda: amc_tf.Compression(model, task, BUDGET, tmp_path / "run", SETTINGS),
        lambda: amc_tf.search_plan(model, task, BUDGET, tmp_path / "plan", SETTINGS.search),
    ):
        with pytest.raises(amc_tf.AmcError, match=message):
            run()
    assert not (tmp_path / "run").exists()


def test_a_negative_variance():
    model = blobs.model()
    norm = next(x for x in model.layers if isinstance(x, kl.BatchNormalization))
    norm.moving_variance.assign(norm.moving_variance * -1)
    with pytest.raises(amc_tf.AmcError, match=f"layer '{norm.name}'.*negative variance"):
        check_finite(amc_tf.analyze(model).network, blobs.task())


def test_infinities_between_layers_may_be_meant():
    inputs = keras.Input((4,))
    x = keras.ops.where(inputs > 0, kl.Dense(4)(inputs), -np.inf)
    model = keras.Model(inputs, kl.Dense(2)(keras.ops.softmax(x)))
    data = (np.ones((8, 4), "float32"), np.zeros(8, int))
    check_finite(amc_tf.analyze(model).network, amc_tf.Task(data, data))
