"""The parts of a recipe, each by hand or by a second method."""

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import amc_tf
from amc_tf.recipes.batch_norms import reestimate
from amc_tf.training.distillation import Distillation
from amc_tf.training.fingerprint import of_code

X, Y = blobs.data(96, 0)


def line(rate=0.1):
    """A network of one weight, which is 0."""
    net = keras.Sequential([keras.Input((1,)), kl.Dense(1, use_bias=False)])
    net.set_weights([np.zeros((1, 1))])
    net.compile(keras.optimizers.SGD(rate), "mse")
    return net


def ones(count):
    return np.ones((count, 1), "float32"), np.ones((count, 1), "float32")


def steps_by_hand(rates):
    """The weight w after each step of (w - 1)^2."""
    weight, found = 0.0, []
    for rate in rates:
        weight -= rate * 2 * (weight - 1)
        found.append(weight)
    return found


def plain(**changes):
    values = {"warm_up": None, "average": None, "norm_batches": 0, "batch_size": 1}
    return {**values, **changes}


def test_without_its_parts_it_is_a_fit():
    net = line()
    amc_tf.Recipe(ones(4), epochs=2, **plain())(net)
    assert net.get_weights()[0].item() == pytest.approx(steps_by_hand([0.1] * 8)[-1], rel=1e-5)


def test_the_rate_rises_and_falls_by_a_cosine():
    net = line()
    amc_tf.Recipe(ones(5), epochs=2, rate=0.2, **plain(warm_up=0.2))(net)
    rising = [0.0, 0.1]
    falling = [0.1 * (1 + np.cos(np.pi * step / 8)) for step in range(8)]
    expected = steps_by_hand([*rising, *falling])[-1]
    assert net.get_weights()[0].item() == pytest.approx(expected, rel=1e-4)


def test_the_average_of_the_weights_is_kept():
    net = line()
    amc_tf.Recipe(ones(40), epochs=1, **plain(average=0.5))(net)
    average = None
    for weight in steps_by_hand([0.1] * 40):
        average = weight if average is None else (average + weight) / 2
    assert net.get_weights()[0].item() == pytest.approx(average, rel=1e-5)


def test_the_average_of_a_short_training_does_not_reach_back_to_its_start():
    net = line()
    amc_tf.Recipe(ones(40), epochs=1, **plain(average=0.9999))(net)
    average = None
    for weight in steps_by_hand([0.1] * 40):  # a tenth of the steps: 4
        average = weight if average is None else 0.75 * average + 0.25 * weight
    assert net.get_weights()[0].item() == pytest.approx(average, rel=1e-5)


def test_statistics_of_batch_norms_are_means_over_batches():
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(3, 3, name="conv")(inputs)
    net = keras.Model(inputs, kl.BatchNormalization(name="norm")(x))
    parts = [X[:32], X[32:64], X[64:]]
    seen = [keras.Model(inputs, x).predict(part, verbose=0) for part in parts]
    weights = net.get_weights()
    reestimate(net, iter(parts), 2)
    norm = net.get_layer("norm")
    mean, variance = (np.asarray(v) for v in (norm.moving_mean, norm.moving_variance))
    each = [part.reshape(-1, 3) for part in seen[:2]]
    np.testing.assert_allclose(mean, np.mean([e.mean(0) for e in each], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, np.mean([e.var(0) for e in each], 0), rtol=1e-4)
    assert norm.momentum == 0.99
    for before, after in zip(weights[:2], net.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(before, after)


class Counted(keras.utils.PyDataset):
    """Batches that know how many passes have ended."""

    ends = 0

    @property
    def num_batches(self):
        return 3

    def __getitem__(self, index):
        part = slice(32 * index, 32 * index + 32)
        return X[part], Y[part]

    def on_epoch_end(self):
        self.ends += 1


FORMS = {
    "arrays": lambda: (X, Y),
    "weighted arrays": lambda: (X, Y, np.ones(96, "float32")),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(32),
    "PyDataset": Counted,
    "list": lambda: [(X[:50], Y[:50]), (X[50:], Y[50:])],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_is_trained_on_and_augmented(form):
    net = blobs.model()
    blobs.compile_model(net)
    data = FORMS[form]()
    augment = keras.Sequential([kl.RandomFlip("horizontal", seed=0), kl.Rescaling(0.0)])
    recipe = amc_tf.Recipe(data, epochs=2, batch_size=32, augment=augment)
    before = net.get_layer("stem").get_weights()[0]
    history = recipe(net)
    assert len(history.history["loss"]) == 2
    # Of inputs that are all 0, a kernel has no gradient.
    np.testing.assert_array_equal(before, net.get_layer("stem").get_weights()[0])
    if form == "PyDataset":
        by_keras = Counted()
        net.fit(by_keras, epochs=2, verbose=0)
        assert data.ends == by_keras.ends


def test_under_distillation_labels_are_not_smoothed():
    net = blobs.model()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    net.compile("adam", loss, metrics=["accuracy"])
    data = X, keras.utils.to_categorical(Y, 4)
    amc_tf.Recipe(data, epochs=1)(net)
    assert net.loss.get_config()["label_smoothing"] == 0.2
    amc_tf.distill(data, epochs=1, rate=1e-3)(net)
    assert net.loss.get_config()["label_smoothing"] == 0


def test_a_schedule_tells_no_largest_rate():
    net = line(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))
    with pytest.raises(amc_tf.AmcError, match=r"ExponentialDecay.*rate=0.01.*warm_up=None"):
        amc_tf.Recipe(ones(4), epochs=1)(net)
    amc_tf.Recipe(ones(4), epochs=1, warm_up=None)(net)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"rate": -1.0},
        {"rate": "fast"},
        {"rate": keras.optimizers.schedules.CosineDecay(0.1, 10)},
        {"warm_up": 1.0},
        {"average": 1.0},
        {"batch_size": 2.5},
        {"steps": 0},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(amc_tf.AmcError, match="expected"):
        amc_tf.Recipe(ones(4), **wrong)


def test_data_of_no_form_is_refused():
    with pytest.raises(amc_tf.AmcError, match="train data"):
        amc_tf.distill(X)


def test_a_recipe_is_told_apart_by_what_it_does():
    first = of_code(amc_tf.distill((X, Y), epochs=2))
    assert first == of_code(amc_tf.distill((X.copy(), Y), epochs=2, backup="elsewhere"))
    flip = keras.Sequential([kl.RandomFlip()])
    others = [
        amc_tf.distill((X, Y), epochs=3),
        amc_tf.distill((X, Y), epochs=2, share=0.4),
        amc_tf.distill((X, Y), epochs=2, temperature=2.0),
        amc_tf.distill((X + 1, Y), epochs=2),
        amc_tf.distill((X, Y), epochs=2, augment=flip),
        amc_tf.Recipe((X, Y), epochs=2),
    ]
    told = [str(of_code(other)) for other in [amc_tf.distill((X, Y), epochs=2), *others]]
    assert len(set(told)) == len(told)


def test_an_augmentation_is_the_same_made_again_and_after_its_use():
    def recipe(factor=0.1):
        layers = [kl.RandomFlip("horizontal"), kl.RandomTranslation(factor, 0.1)]
        return amc_tf.Recipe((X, Y), epochs=1, augment=keras.Sequential(layers))

    first, again = recipe(), recipe()
    told = of_code(first)
    assert of_code(again) == told != of_code(recipe(0.2))
    net = blobs.model()
    blobs.compile_model(net)
    first(net)
    assert of_code(first) == told


def test_the_steps_of_an_epoch_go_on_where_the_last_one_ended():
    seen = []

    def watched(x):
        tf.py_function(lambda v: seen.append(int(v[0, 0])), [x], [])
        return x

    x = np.arange(8, dtype="float32")[:, None]
    for data in (
        tf.data.Dataset.from_tensor_slices((x, x)).batch(1).repeat(),
        tf.data.Dataset.from_tensor_slices((x, x)).batch(1),
        (x, x),
    ):
        seen.clear()
        recipe = amc_tf.Recipe(data, epochs=3, steps=2, augment=watched, **plain())
        recipe(line(0.0))
        assert len(set(seen[:6])) == 6


def test_data_without_batches_is_refused():
    nothing = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).take(0)
    net = blobs.model()
    blobs.compile_model(net)
    with pytest.raises(amc_tf.AmcError, match="train data is empty"):
        amc_tf.Recipe(nothing, epochs=1)(net)


def test_statistics_of_a_shared_norm_are_of_all_its_calls():
    inputs = keras.Input((4,))
    norm = kl.BatchNormalization(name="norm")
    net = keras.Model(inputs, norm(norm(inputs) * 2.0 + 1.0))
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 1, (64, 4)).astype("float32") for _ in range(60)]
    reestimate(net, iter(parts), 60)
    # Its first call sees a mean of 3, the second one of 1, as it normalises by the batch.
    np.testing.assert_allclose(np.asarray(norm.moving_mean), 2.0, atol=0.06)


def test_distill_takes_the_settings_of_both():
    recipe = amc_tf.distill((X, Y), 7, 0.9, temperature=4.0, features=0.5, rate=0.01)
    assert recipe.distillation == Distillation(0.9, 4.0, 0.5)
    assert (recipe.epochs, recipe.rate) == (7, 0.01)


def test_a_recipe_follows_the_dense_network_in_fine_tuning():
    dense = blobs.trained()
    nothing = np.random.default_rng(0).permutation(blobs.data(400, 0)[1])
    data = blobs.data(400, 0)[0], nothing
    accuracy = {}
    for name, recipe in {
        "labels": amc_tf.Recipe(data, epochs=8),
        "dense": amc_tf.distill(data, epochs=8, share=1.0),
    }.items():
        student = keras.models.clone_model(dense)
        student.set_weights(dense.get_weights())
        settings = amc_tf.FineTuneSettings(keep="last")
        accuracy[name] = amc_tf.fine_tune(
            student, dense, blobs.task(fine_tune=recipe), settings
        ).after
    assert accuracy["labels"] < accuracy["dense"] - 0.2
