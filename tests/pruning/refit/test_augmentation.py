"""Layers that augment images train unless told otherwise; nothing but fit may let them."""

import blobs
import keras
import numpy as np
import pytest
from keras import layers as kl
from plans import random_plan

import amc_tf
from amc_tf.pruning.refit.methods import REFITS


@pytest.fixture(scope="module")
def twins():
    """A network, and the same within a model that flips and moves its images first."""
    plain = blobs.trained(1)
    inputs = keras.Input((8, 8, 1))
    x = kl.RandomTranslation(0.3, 0.3)(kl.RandomFlip()(inputs))
    augmented = keras.Model(inputs, plain(x))
    return amc_tf.analyze(plain), amc_tf.analyze(augmented)


@pytest.mark.parametrize("name", REFITS)
def test_refits_see_the_images_as_they_are(twins, name):
    images, _ = blobs.data(100, 5)
    plan = random_plan(twins[0], 0)
    expected, found = (REFITS[name](graph, [images], 0).refit(plan) for graph in twins)
    assert expected.keys() == found.keys()
    for key, weights in expected.items():
        np.testing.assert_allclose(found[key], weights, rtol=1e-3, atol=1e-4, err_msg=key)


def test_verification_compares_what_is_deterministic(twins):
    graph = twins[1]
    amc_tf.verify(graph.network.model, graph)
