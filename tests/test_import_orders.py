"""Models of `keras` and of `tf.keras`, whichever was imported first, and beside Keras 2."""

from __future__ import annotations

import os
import subprocess
import sys

import marks
import pytest

CODE = """
{imports}
import amc_tf, keras, numpy as np, tensorflow as tf, tflite_tools

x = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32")


def trained(keras):
    model = keras.Sequential([keras.layers.Input((6, 6, 1))])
    model.add(keras.layers.Conv2D(8, 3, activation="relu"))
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(3))
    model.compile("adam", "mse")
    model.fit(x, np.zeros((8, 3)), verbose=0)
    return model


def pruned(model):
    graph = amc_tf.analyze(model)
    amc_tf.verify(model, graph)
    (group,) = graph.groups
    small = amc_tf.rebuild(model, graph, amc_tf.PruningPlan({{group: range(4)}}))
    small.compile("adam", "mse")
    small.fit(x, np.zeros((8, 3)), verbose=0)
    outputs = tflite_tools.LiteRtModel(tflite_tools.convert(small)).predict(x)
    np.testing.assert_allclose(outputs, small(x), atol=1e-5)
    assert isinstance(small, keras.Model)
    return small.count_params()


# 4 filters of 9 weights and a bias; 3 units that read 4 x 4 positions of 4 channels, and a bias.
parameters = 4 * 10 + 3 * (4 * 16 + 1)
"""

TF_KERAS_IS_KERAS = """
assert tf.keras.Model is keras.Model
assert pruned(trained(tf.keras)) == parameters
"""

TF_KERAS_IS_KERAS_2 = """
old = trained(tf.keras)
try:
    amc_tf.Compressor(old, amc_tf.Budget(macs=0.5), "run").fit(x, x, validation_split=0.5)
except amc_tf.AmcError as error:
    assert "amc_tf.from_keras2(model) carries a Keras 2 model over" in str(error), error
else:
    raise AssertionError("a Keras 2 model was taken")
carried = amc_tf.from_keras2(old)
np.testing.assert_allclose(carried(x), old(x), atol=1e-5)
assert pruned(carried) == pruned(trained(keras)) == parameters
"""

# By the value of TF_USE_LEGACY_KERAS.
THEN = {"0": TF_KERAS_IS_KERAS, "1": TF_KERAS_IS_KERAS_2}


ORDERS = [
    ("import tensorflow as tf; tf.keras.Model", "1"),
    ("import tensorflow as tf; tf.keras.Model", "0"),
    ("import amc_tf; amc_tf.analyze", "0"),
    ("import tf_keras; tf_keras.Model", "0"),
    ("import keras; keras.Model", "0"),
    ("import amc_tf; amc_tf.analyze", "1"),
]


# The others take no other path, and seven seconds each.
@pytest.mark.parametrize("imports, legacy", marks.slow_but(ORDERS, ORDERS[:1]))
def test_models_are_taken(imports, legacy, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(imports=imports) + THEN[legacy]],
        env={**os.environ, "TF_USE_LEGACY_KERAS": legacy},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(tmp_path.iterdir())
