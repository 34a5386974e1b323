"""What groups lose, against a refit by numpy's solver of the same samples."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance.criteria import strongest
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.importance.refit_curves import losses_of, refit_curves
from amc_tf.pruning.refit import dense

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)).astype("float32")


@pytest.fixture(scope="module")
def net():
    """A hidden layer of eight channels that two layers read."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = kl.Dense(8, activation="tanh", name="hidden")(inputs)
    outputs = kl.Concatenate()([kl.Dense(3, name="a")(hidden), kl.Dense(2, name="b")(hidden)])
    return keras.Model(inputs, outputs)


def test_losses_are_those_of_a_refit_on_the_other_half(net):
    graph = amc_tf.analyze(net)
    importance = {"hidden": RNG.random(8)}
    curve = refit_curves(Halves(graph, [X]), importance)["hidden"]
    assert curve.counts.tolist() == list(range(1, 9)) and curve.losses[-1] == 0
    hidden = keras.Model(net.inputs, net.get_layer("hidden").output).predict(X, verbose=0)
    fitted, other = hidden[0::2].astype(float), hidden[1::2].astype(float)
    # The layers' outputs are joined, where each counts by its power.
    powers = {n: (fitted @ net.get_layer(n).kernel.numpy()).var(axis=0).sum() for n in "ab"}
    expected = []
    for count in curve.counts[:-1].tolist():
        kept = strongest(importance, {"hidden": count}).keep["hidden"]
        design = np.column_stack([fitted[:, kept], np.ones(len(fitted))])
        loss = 0.0
        for name in "ab":
            kernel = net.get_layer(name).kernel.numpy().astype(float)
            solved = np.linalg.lstsq(design, fitted @ kernel, rcond=None)[0][:-1]
            # Both about their means: the intercept takes the mean of what is left.
            centred = other - other.mean(axis=0)
            error = centred[:, kept] @ solved - centred @ kernel
            relative = np.square(error).sum() / np.square(centred @ kernel).sum()
            loss += relative * powers[name] / sum(powers.values())
        expected.append(loss)
    expected = np.maximum.accumulate(expected[::-1])[::-1]
    np.testing.assert_allclose(curve.losses[:-1], expected, rtol=0.05)


def test_few_samples_do_not_look_like_no_loss(net):
    """Six images for eight channels: a fit on them is perfect, and says nothing."""
    graph = amc_tf.analyze(net)
    importance = {"hidden": np.arange(8.0)}
    few = refit_curves(Halves(graph, [X[:12]]), importance)["hidden"]
    many = refit_curves(Halves(graph, [X]), importance)["hidden"]
    assert few.losses[-2] > 0.5 * many.losses[-2]


def test_groups_without_a_curve_lose_as_the_others_on_average(net):
    graph = amc_tf.analyze(net)
    curves = refit_curves(Halves(graph, [X]), {"hidden": np.arange(8.0)})
    (known,) = losses_of(curves, graph, [np.array([2, 4, 8])])
    np.testing.assert_allclose(known, curves["hidden"].losses[[1, 3, 7]])
    (unknown,) = losses_of({}, graph, [np.array([2, 4, 8])])
    np.testing.assert_allclose(unknown, [0.75, 0.5, 0])


def test_halves_together_are_the_statistics_of_all_images(net):
    graph = amc_tf.analyze(net)
    whole, at_once = Halves(graph, [X]).whole, dense.gather(graph, [X], rows=10**6)
    for joined, known in zip(whole.consumers, at_once.consumers, strict=True):
        a, b = joined.statistics, known.statistics
        np.testing.assert_allclose(a.mean, b.mean, atol=1e-6)
        np.testing.assert_allclose(a.covariance(True), b.covariance(True), atol=1e-5)
    assert whole.powers == pytest.approx(at_once.powers)


def test_rows_kept_as_they_are_join_too():
    x = inputs = keras.Input((6,))
    x = kl.Dense(8, activation="relu", name="hidden")(x)
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(3)(x)))
    a, b = dense.gather_parts(graph, [X], 2, max_features=1, rows=10**6)
    joined = a.consumers[0].statistics.joined(b.consumers[0].statistics)
    known = dense.gather(graph, [X], max_features=1, rows=10**6).consumers[0].statistics
    np.testing.assert_allclose(joined.variances, known.variances, rtol=1e-5)
