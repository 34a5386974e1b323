"""Networks as one TensorFlow function."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from amc_tf.graph.flattening import flatten
from amc_tf.graph.traced import traced


class Numpy(kl.Layer):
    """Leaves TensorFlow, so that it cannot be traced."""

    def call(self, x):
        return keras.ops.convert_to_tensor(np.abs(np.asarray(x)))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.parametrize(
    "layer, is_function",
    [(kl.ReLU(name="_relu"), True), (kl.ReLU(name="a name"), False), (Numpy(), False)],
)
def test_a_network_that_cannot_be_traced_is_run_call_by_call(layer, is_function):
    inputs = keras.Input((4, 4, 2))
    network = flatten(keras.Model(inputs, layer(kl.Conv2D(3, 3, name="_conv")(inputs))))

    def run(*given):
        return network.run(given)

    found = traced(network, run)
    assert (found is not run) == is_function
    for count in (1, 3):
        x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(count, 4, 4, 2)))
        x = keras.ops.cast(x, "float32")
        np.testing.assert_allclose(found(x)[0], run(x)[0], rtol=1e-5, atol=1e-6)
    later = kl.Dense(1, name="later")
    later.build((None, 2))
    assert later.kernel.path == "later/kernel"  # the scopes of a trace that failed are left
