"""Fine-tuning keeps the better of the network before and after it."""

import logging

import blobs
import keras
import numpy as np
import pytest

import amc_tf
from amc_tf.training.finetune import fine_tune


@pytest.fixture(scope="module")
def dense():
    return blobs.trained(2)


def _shuffled_labels(model):
    """Training on labels that say nothing ruins any network."""
    x, y = blobs.data(400, 0)
    model.fit(x, np.random.default_rng(0).permutation(y), epochs=6, verbose=0)


def _accuracy(model, data):
    x, y = data
    return float(np.mean(model.predict(x, verbose=0).argmax(-1) == y))


@pytest.mark.parametrize("keep", ["better", "last"])
def test_a_training_that_ruins_the_network_is_undone_and_told(dense, keep, caplog):
    task = blobs.task(fine_tune=_shuffled_labels)
    model = keras.models.clone_model(dense)
    model.set_weights(dense.get_weights())
    with caplog.at_level(logging.WARNING):
        found = fine_tune(model, dense, task, amc_tf.FineTuneSettings(keep=keep))
    assert found.after < found.before == pytest.approx(_accuracy(dense, task.validation))
    assert found.undone == (keep == "better") == ("made the network worse" in caplog.text)
    kept = found.before if found.undone else found.after
    assert _accuracy(model, task.validation) == pytest.approx(kept)


def test_worse_is_more_where_less_is_better(dense):
    task = blobs.task(metric="loss")
    model = keras.models.clone_model(dense)  # untrained, so that training lowers its loss
    found = fine_tune(model, dense, task)
    assert found.after < found.before and not found.undone
    worse = blobs.task(metric="loss", fine_tune=_shuffled_labels)
    found = fine_tune(model, dense, worse)
    assert found.after > found.before and found.undone


def test_a_kept_network_is_named():
    with pytest.raises(amc_tf.AmcError, match="unknown keep 'best'.*'better', 'last'"):
        amc_tf.FineTuneSettings(keep="best")
