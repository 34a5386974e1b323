"""Sampled linear inputs against the layers themselves."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from amc_tf.pruning.refit.sampling import at_positions, choose, linear_inputs, windows

_RNG = np.random.default_rng(0)


def _everywhere(output):
    return np.tile(np.arange(np.prod(output.shape[1:-1], dtype=int)), (len(output), 1))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "strides, dilation", [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 2))]
)
def test_windows_are_what_a_convolution_multiplies(padding, strides, dilation):
    x = _RNG.normal(size=(3, 9, 11, 4)).astype("float32")
    kernel = _RNG.normal(size=(3, 2, 4, 5)).astype("float32")
    expected = keras.ops.conv(x, kernel, strides, padding, dilation_rate=dilation)
    rows = windows(x, (3, 2), strides, padding, dilation, _everywhere(expected))
    received = (rows @ kernel.reshape(-1, 5)).reshape(expected.shape)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (kl.Conv1D(4, 3, padding="causal", dilation_rate=2), (2, 9, 3)),
        (kl.Conv3D(4, 2, strides=(1, 2, 1), padding="same"), (2, 4, 5, 3, 2)),
        (kl.Dense(4), (2, 3, 5, 6)),
        (kl.Dense(4), (2, 6)),
        (kl.SeparableConv1D(4, 3, depth_multiplier=2), (2, 9, 3)),
        (kl.SeparableConv2D(4, 3, strides=2, padding="same", depth_multiplier=2), (2, 9, 7, 3)),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, kl.Layer) else str(len(x)),
)
def test_linear_inputs_times_the_kernel_are_the_layers_output(layer, shape):
    x = _RNG.normal(size=shape).astype("float32")
    expected = layer(x)
    positions = _everywhere(expected)[:, ::-1]
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        kernel = layer.pointwise_kernel
    received = linear_inputs(layer, x, positions) @ np.asarray(kernel).reshape(-1, 4)
    np.testing.assert_allclose(received, at_positions(expected, positions), rtol=1e-4, atol=1e-5)


def test_sampled_windows_are_distinct_positions_of_the_full_set():
    x = np.arange(2 * 6 * 6, dtype="float32").reshape(2, 6, 6, 1)
    chosen = choose(36, 2, 5, _RNG)
    rows = windows(x, (1, 1), (1, 1), "valid", (1, 1), chosen)
    assert rows.shape == (10, 1)
    assert len(np.unique(rows)) == 10 and rows[:5].max() < 36 <= rows[5:].min()


def test_all_positions_are_taken_where_there_are_few():
    np.testing.assert_array_equal(choose(3, 2, 10, _RNG), [[0, 1, 2], [0, 1, 2]])
