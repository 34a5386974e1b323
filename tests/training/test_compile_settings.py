"""What `compile` was given is carried over as the very objects, with fresh state."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.training.compile_settings import CompileSettings

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 4)).astype("float32")
A = RNG.normal(size=(64, 1)).astype("float32")
B = RNG.normal(size=(64, 1)).astype("float32")
CLASSES = np.eye(3, dtype="float32")[RNG.integers(0, 3, 64)]


def two_heads():
    inputs = keras.Input((4,))
    x = kl.Dense(5, activation="relu", name="trunk")(inputs)
    return keras.Model(inputs, [kl.Dense(1, name="a")(x), kl.Dense(1, name="b")(x)])


def classifier():
    inputs = keras.Input((4,))
    x = kl.Dense(5, activation="relu", name="trunk")(inputs)
    return keras.Model(inputs, kl.Dense(3, activation="softmax", name="head")(x))


def twin(model):
    """Another model of the same weights, compiled with the settings of `model`."""
    made = keras.models.clone_model(keras.Model(model.inputs, model.outputs))
    made.set_weights(model.get_weights())
    CompileSettings.of(model).apply(made)
    return made


def scaled(factor):
    def error(y_true, y_pred):
        return factor * keras.ops.mean(keras.ops.square(y_true - y_pred), -1)

    return error


def test_losses_and_metrics_of_one_factory_stay_with_their_heads():
    """The factor of each head is seen in its loss, and Keras' own sum confirms it."""
    model = two_heads()
    metrics = {"a": [scaled(7.0)], "b": [scaled(11.0)]}
    model.compile("sgd", {"a": scaled(1.0), "b": scaled(100.0)}, metrics=metrics)
    made = twin(model)
    logs = made.evaluate(X, {"a": A, "b": B}, verbose=0, return_dict=True)
    a, b = (np.mean((y - p) ** 2) for y, p in zip((A, B), made.predict(X, verbose=0), strict=True))
    assert logs["a_loss"] == pytest.approx(a, rel=1e-5)
    assert logs["b_loss"] == pytest.approx(100 * b, rel=1e-5)
    assert logs["loss"] == pytest.approx(a + 100 * b, rel=1e-5)
    assert logs["a_error"] == pytest.approx(7 * a, rel=1e-5)
    assert logs["b_error"] == pytest.approx(11 * b, rel=1e-5)


class Share(keras.metrics.Metric):
    """A metric that does not tell its argument in `get_config`, with metrics inside."""

    def __init__(self, above=0.0, name="share"):
        super().__init__(name=name)
        self.above = above
        self.parts = {"all": keras.metrics.Mean()}

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.parts["all"].update_state(keras.ops.cast(y_pred > self.above, "float32"))

    def result(self):
        return self.parts["all"].result()


def test_lambdas_wrappers_and_metrics_of_ones_own_keep_what_they_hold():
    model = classifier()
    model.compile(
        "adam",
        lambda y, p: keras.ops.mean(keras.ops.square(y - p), -1),
        metrics=[
            "accuracy",
            keras.metrics.MeanMetricWrapper(lambda y, p: keras.ops.max(p, -1), name="peak"),
            Share(0.4),
            keras.metrics.F1Score(threshold=0.3),
        ],
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="weighed")],
    )
    model.fit(X, CLASSES, verbose=0)
    made = twin(model)
    states = {id(v) for m in model.metrics for v in m.variables}
    assert not states & {id(v) for m in made.metrics for v in m.variables}
    weight = np.arange(64.0)
    logs = made.evaluate(X, CLASSES, sample_weight=weight, verbose=0, return_dict=True)
    p = made.predict(X, verbose=0)
    right = p.argmax(-1) == CLASSES.argmax(-1)
    assert logs["accuracy"] == pytest.approx(right.mean())
    assert logs["weighed"] == pytest.approx((right * weight).sum() / weight.sum())
    assert logs["peak"] == pytest.approx(p.max(-1).mean(), rel=1e-5)
    assert logs["share"] == pytest.approx((p > 0.4).mean(), rel=1e-5)
    assert logs["loss"] == pytest.approx(
        np.mean(np.mean((CLASSES - p) ** 2, -1) * weight), rel=1e-5
    )
    assert np.shape(logs["f1_score"]) == (3,)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without `get_config`."""

    def __init__(self, first):
        self.first = first

    def __call__(self, step):
        return self.first * 0.5 ** keras.ops.cast(step, "float32")


def test_options_of_the_optimizer_that_keras_does_not_write_down():
    model = classifier()
    optimizer = keras.optimizers.AdamW(
        Halving(0.02),
        weight_decay=0.1,
        clipnorm=1.5,
        use_ema=True,
        ema_momentum=0.9,
        ema_overwrite_frequency=7,
        gradient_accumulation_steps=3,
        beta_1=0.8,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[model.get_layer("head").kernel], var_names=["bias", "gamma"]
    )
    model.compile(optimizer, "categorical_crossentropy", steps_per_execution=2)
    model.fit(X, CLASSES, epochs=3, verbose=0)
    made = twin(model)
    new = made.optimizer
    assert new is not optimizer and int(new.iterations) == 0 < int(optimizer.iterations)
    assert float(new.learning_rate) == pytest.approx(0.02)
    assert (new.clipnorm, new.use_ema, new.ema_momentum) == (1.5, True, 0.9)
    assert (new.ema_overwrite_frequency, new.gradient_accumulation_steps) == (7, 3)
    assert (new.beta_1, new.weight_decay, made.steps_per_execution) == (0.8, 0.1, 2)
    # What decay does to weights of one when nothing else moves them: w - w * decay * rate.
    made.set_weights([np.ones_like(w) for w in made.get_weights()])
    new.build(made.trainable_variables)
    new._apply_weight_decay(made.trainable_variables)
    values = {v.path: float(np.ravel(v)[0]) for v in made.trainable_variables}
    assert values["trunk/kernel"] == pytest.approx(1 - 0.1 * 0.02)
    assert values["head/kernel"] == values["trunk/bias"] == values["head/bias"] == 1


def test_loss_scaling_of_mixed_precision():
    model = classifier()
    scaled_optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.3, momentum=0.5), initial_scale=64.0
    )
    model.compile(scaled_optimizer, "categorical_crossentropy", run_eagerly=True)
    model.fit(X, CLASSES, verbose=0)
    made = twin(model)
    assert made.optimizer.initial_scale == 64.0 and made.run_eagerly
    inner = made.optimizer.inner_optimizer
    assert inner is not scaled_optimizer.inner_optimizer
    assert (float(inner.learning_rate), inner.momentum) == (pytest.approx(0.3), 0.5)


class Untold(keras.optimizers.SGD):
    """An optimizer whose `get_config` lacks an argument."""

    def __init__(self, learning_rate=0.01, warmth=1.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.warmth = warmth


def test_an_optimizer_that_would_lose_an_argument_is_refused():
    model = classifier()
    model.compile(Untold(warmth=3.0), "categorical_crossentropy")
    with pytest.raises(amc_tf.AmcError, match="does not tell its argument 'warmth'.*compile="):
        CompileSettings.of(model)


@keras.saving.register_keras_serializable("compile_settings")
class OwnCompile(keras.Model):
    """A model whose `compile` takes more than Keras' and says how to do it again."""

    def compile(self, optimizer, loss, sharpness=1.0):
        super().compile(optimizer, loss)
        self.sharpness = sharpness

    def get_compile_config(self):
        return {"optimizer": "sgd", "loss": "mse", "sharpness": self.sharpness}

    def compile_from_config(self, config):
        self.compile(**config)


def test_a_compile_of_ones_own_that_can_be_repeated():
    model = OwnCompile(*(lambda m: (m.inputs, m.outputs))(classifier()))
    model.compile("sgd", "mse", sharpness=4.0)
    made = OwnCompile(model.inputs, model.outputs)
    CompileSettings.of(model).apply(made)
    assert made.compiled and made.sharpness == 4.0
