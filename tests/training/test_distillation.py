"""What a distilled loss is, by hand; and that any training code of Keras follows it."""

import blobs
import keras
import numpy as np
import pytest
import scipy.special
from keras import layers as kl

import amc_tf
from amc_tf.graph.features import Feature
from amc_tf.training.distillation import Distillation, distilled

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (16, 6)).astype("float32")


def network(*heads, seed=0, hidden=5, **kwargs):
    """A hidden layer and a dense head of each (name, units, activation)."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    x = kl.Dense(hidden, activation="relu", name="hidden", **kwargs)(inputs)
    outputs = [kl.Dense(units, activation=f, name=name)(x) for name, units, f in heads]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


def loss_of_a_step(student, teacher, y, wanted=None, **settings):
    """The loss that Keras reports for a step at rate 0."""
    with distilled(student, teacher, Distillation(**settings), [X], wanted):
        return student.train_on_batch(X, y, return_dict=True)["loss"]


def softmax_kl(p, q):
    """Of shares, the mean of sum p log(p / q)."""
    return float((p * np.log(p / q)).sum(-1).mean())


def softened(logits, temperature):
    return scipy.special.softmax(np.asarray(logits, np.float64) / temperature, axis=-1)


def own(loss):  # not of Keras
    def squares(y, outputs):
        return loss(y, outputs)

    return squares


CLASSES = RNG.integers(0, 4, 16)
SIDES = RNG.integers(0, 2, (16, 3)).astype("float32")
VALUES = RNG.normal(0, 1, (16, 3)).astype("float32")
T = 2.5


def of_classes(dense, found):
    return T**2 * softmax_kl(softened(dense, T), softened(found, T))


def of_shares(dense, found):
    return of_classes(np.log(dense), np.log(found))


def of_units(dense, found):
    """Each unit is a distribution of two classes, whose logits differ by the unit's."""
    pairs = [np.stack([z, 0 * z], -1) for z in (dense, found)]
    return of_classes(*pairs)


def of_sides(dense, found):
    return of_units(scipy.special.logit(dense), scipy.special.logit(found))


def relative(dense, found):
    return float(np.square(found - dense).mean() / dense.var(axis=0).mean())


CASES = {
    "logits": (4, None, keras.losses.SparseCategoricalCrossentropy(True), CLASSES, of_classes),
    "probabilities": (4, "softmax", "sparse_categorical_crossentropy", CLASSES, of_shares),
    "units": (3, None, keras.losses.BinaryCrossentropy(True), SIDES, of_units),
    "sides": (3, "sigmoid", "binary_crossentropy", SIDES, of_sides),
    "squares": (3, None, "mse", VALUES, lambda d, f: float(np.square(d - f).mean())),
    "huber": (
        3,
        None,
        keras.losses.Huber(0.3),
        VALUES,
        lambda d, f: float(
            np.where(abs(d - f) <= 0.3, (d - f) ** 2 / 2, 0.3 * abs(d - f) - 0.045).mean()
        ),
    ),
    "the user's": (3, None, own(keras.losses.mean_squared_error), VALUES, relative),
}


@pytest.mark.parametrize("case", CASES)
def test_a_share_of_the_loss_follows_the_dense_network(case):
    units, activation, loss, y, followed = CASES[case]
    student, teacher = (network(("out", units, activation), seed=seed) for seed in (1, 2))
    student.compile(keras.optimizers.SGD(0.0), loss)
    found, dense = (net.predict(X, verbose=0).astype(np.float64) for net in (student, teacher))
    of_labels = student.evaluate(X, y, verbose=0)
    expected = 0.7 * of_labels + 0.3 * followed(dense, found)
    got = loss_of_a_step(student, teacher, y, share=0.3, temperature=T)
    assert got == pytest.approx(expected, rel=1e-5)
    # Afterwards, as before, the loss is that of the labels.
    assert student.train_on_batch(X, y) == pytest.approx(of_labels, rel=1e-5)


def test_a_network_with_the_dense_weights_has_only_the_loss_of_the_labels():
    student, teacher = (network(("out", 4, "softmax"), seed=1) for _ in range(2))
    student.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    of_labels = student.evaluate(X, CLASSES, verbose=0)
    assert loss_of_a_step(student, teacher, CLASSES, share=0.3) == pytest.approx(0.7 * of_labels)


def test_regularisation_counts_whole_and_weights_of_outputs_count():
    heads = (("a", 4, None), ("b", 3, None))
    student = network(*heads, seed=1, kernel_regularizer=keras.regularizers.L2(0.1))
    teacher = network(*heads, seed=2)
    losses = {"a": keras.losses.SparseCategoricalCrossentropy(True), "b": "mse"}
    student.compile(keras.optimizers.SGD(0.0), losses, loss_weights={"a": 2.0, "b": 0.5})
    y = {"a": CLASSES, "b": VALUES}
    (a, b), (dense_a, dense_b) = (net.predict(X, verbose=0) for net in (student, teacher))
    penalty = 0.1 * float(np.square(student.get_layer("hidden").get_weights()[0]).sum())
    log_shares = scipy.special.log_softmax(a, axis=-1)
    of_a, of_b = -log_shares[np.arange(16), CLASSES].mean(), np.square(b - VALUES).mean()
    of_labels = 2.0 * of_a + 0.5 * of_b
    followed = 2.0 * of_classes(dense_a, a) + 0.5 * np.square(dense_b - b).mean()
    got = loss_of_a_step(student, teacher, y, share=0.4, temperature=T)
    assert got == pytest.approx(penalty + 0.6 * of_labels + 0.4 * followed, rel=1e-5)


def test_features_are_compared_in_the_channels_that_were_kept():
    teacher = network(("out", 3, None), seed=2)
    student = network(("out", 3, None), seed=1, hidden=3)
    student.compile(keras.optimizers.SGD(0.0), "mse")
    of_labels = student.evaluate(X, VALUES, verbose=0)
    hidden = [
        keras.Model(net.input, net.get_layer("hidden").output).predict(X, verbose=0)
        for net in (student, teacher)
    ]
    kept = np.array([0, 3, 4])
    told = hidden[1][:, kept].astype(np.float64)
    error = np.square(hidden[0] - told).mean()
    error /= told.var(axis=0).mean() + 1e-3 * np.square(told).mean()
    wanted = [Feature("hidden", kept)]
    got = loss_of_a_step(student, teacher, VALUES, wanted, share=0.0, features=2.0)
    assert got == pytest.approx(of_labels + 2 * error, rel=1e-5)
    assert "call" not in vars(student)


def test_features_within_a_nested_model_are_found():
    inner = keras.Sequential([keras.Input((6,)), kl.Dense(5, activation="relu", name="hidden")])
    outer = keras.Sequential([keras.Input((6,)), inner, kl.Dense(3, name="out")])
    outer.compile(keras.optimizers.SGD(0.0), "mse")
    graph = amc_tf.analyze(outer)
    plan = amc_tf.PruningPlan({name: (0, 2) for name in graph.groups})
    small = amc_tf.rebuild(outer, graph, plan)
    small.compile(keras.optimizers.SGD(0.0), "mse")
    wanted = amc_tf.features(graph, plan)
    assert len(wanted) == 1
    # The kept channels are the dense network's, so that only the labels count.
    got = loss_of_a_step(small, outer, VALUES, wanted, share=0.0, features=5.0)
    assert got == pytest.approx(small.evaluate(X, VALUES, verbose=0), rel=1e-5)


def test_an_evaluation_stays_as_it_was_compiled():
    student, teacher = (network(("out", 4, "softmax"), seed=seed) for seed in (1, 2))
    student.compile("sgd", "sparse_categorical_crossentropy")
    before = student.evaluate(X, CLASSES, verbose=0)
    with distilled(student, teacher, Distillation(1.0), [X]):
        history = student.fit(
            X, CLASSES, verbose=0, validation_data=(X, CLASSES), epochs=1, batch_size=16
        )
    after = student.evaluate(X, CLASSES, verbose=0)
    assert history.history["val_loss"][0] == pytest.approx(after)
    assert history.history["loss"][0] != pytest.approx(before, rel=1e-3)


def test_labels_that_say_nothing_do_no_harm_to_a_network_that_follows():
    dense = blobs.trained()
    x, y = blobs.data(400, 0)
    nothing = np.random.default_rng(0).permutation(y)
    accuracy = {}
    for share in (0.0, 1.0):
        student = keras.models.clone_model(dense)
        student.set_weights(dense.get_weights())
        task = blobs.task(fine_tune=lambda m: m.fit(x, nothing, epochs=4, verbose=0))
        settings = amc_tf.FineTuneSettings(keep="last", distill=share)
        accuracy[share] = amc_tf.fine_tune(student, dense, task, settings).after
    assert accuracy[0.0] < accuracy[1.0] - 0.2
    assert dense.trainable and all(layer.trainable for layer in dense.layers)


def test_features_must_be_known():
    dense = blobs.trained(1)
    settings = amc_tf.FineTuneSettings(distill_features=1.0)
    with pytest.raises(amc_tf.AmcError, match=r"features=amc_tf.features\(graph, plan\)"):
        amc_tf.fine_tune(keras.models.clone_model(dense), dense, blobs.task(), settings)


def test_code_that_does_not_train_the_model_by_keras_is_told():
    dense = blobs.trained(1)
    task = blobs.task(fine_tune=lambda model: None)
    with pytest.raises(amc_tf.AmcError, match="took no step by Model.fit"):
        amc_tf.fine_tune(
            keras.models.clone_model(dense), dense, task, amc_tf.FineTuneSettings(distill=0.5)
        )


@pytest.mark.parametrize(
    "wrong",
    [{"distill": 1.5}, {"distill": "0.5"}, {"temperature": 0}, {"distill_features": -1.0}],
)
def test_numbers_that_say_nothing_are_refused(wrong):
    with pytest.raises(amc_tf.AmcError, match="expected"):
        amc_tf.FineTuneSettings(**wrong)
