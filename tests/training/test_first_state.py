"""Training that fails changes nothing, so that the next call is like the first."""

import blobs
import keras
import numpy as np
import pytest

import amc_tf
from amc_tf.pipeline import compression
from amc_tf.training.first_state import first_state_on_error


class _Failure(Exception):
    pass


class _Fails(keras.callbacks.Callback):
    """Lowers the learning rate after each epoch, and raises in the first training's second."""

    def __init__(self):
        super().__init__()
        self.raised = False

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = 0.001 / (epoch + 1)
        if epoch == 1 and not self.raised:
            self.raised = True
            raise _Failure


def _model():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(x))
    x = keras.layers.Dropout(0.3)(keras.layers.Flatten()(x))
    net = keras.Model(inputs, keras.layers.Dense(4)(x))
    blobs.compile_model(net)
    return net


def _values(model):
    kept = [*model.variables, model.optimizer.learning_rate]
    return [np.array(keras.ops.convert_to_numpy(value)) for value in kept]


def test_a_fit_that_raises_is_called_again_with_the_first_state(tmp_path, monkeypatch):
    """The dense model is the one of a fit that did not raise, bit for bit."""

    def stopped(*arguments):
        raise _Failure

    # Only the training matters here.
    monkeypatch.setattr(compression, "search", stopped)
    dense = []
    for raises in (False, True):
        net, callback = _model(), _Fails()
        callback.raised = not raises
        before = _values(net)
        settings = amc_tf.Settings(rehearse=False, search=blobs.search_settings())
        folder = tmp_path / str(raises)
        compressor = amc_tf.Compressor(net, amc_tf.Budget(macs=0.5), folder, settings)
        x, y = blobs.data(80, 0)
        arguments = {"epochs": 3, "validation_split": 0.25, "verbose": 0, "callbacks": [callback]}
        if raises:
            with pytest.raises(_Failure):
                compressor.fit(x, y, **arguments)
            assert not (folder / "dense.keras").exists()
            for expected, found in zip(before, _values(net), strict=True):
                np.testing.assert_array_equal(expected, found)
        with pytest.raises(_Failure):  # in the search
            compressor.fit(x, y, **arguments)
        dense.append(amc_tf.load_model(folder / "dense.keras").get_weights())
    for expected, found in zip(*dense, strict=True):
        np.testing.assert_array_equal(expected, found)
    assert any((a != b).any() for a, b in zip(dense[0], _model().get_weights(), strict=True))


def test_an_interrupt_restores_too_and_success_does_not():
    net = _model()
    first = _values(net)
    with pytest.raises(KeyboardInterrupt), first_state_on_error(net):
        net.fit(*blobs.data(80, 0), verbose=0)
        raise KeyboardInterrupt
    for expected, found in zip(first, _values(net)[: len(first)], strict=False):
        np.testing.assert_array_equal(expected, found)
    with first_state_on_error(net):
        net.fit(*blobs.data(80, 0), verbose=0)
    assert any((a != b).any() for a, b in zip(first, _values(net), strict=False))
