"""Models as people have them: several outputs, losses and metrics, and classes of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import blobs
import keras
import numpy as np
from keras import layers as kl
from keras import ops
from silent_judge import Bench, expect
from silent_tasks import (
    classification,
    compile_model,
    compress,
    dense,
    load,
    near,
    rehearsing,
    value,
)

import amc_tf

# --- two heads --------------------------------------------------------------------------------


def _labels(count: int, seed: int):
    x, y = blobs.data(count, seed)
    return x, y, (y % 2).astype("float32")[:, None]


TRAIN, VALIDATION = _labels(200, 0), _labels(100, 1)
_CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def heads(structure: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    x = kl.Dense(16, activation="relu", name="hidden")(kl.Flatten()(kl.MaxPooling2D()(x)))
    # In another order than that of their names.
    odd, cls = kl.Dense(1, activation="sigmoid", name="odd")(x), kl.Dense(4, name="cls")(x)
    outputs = {"list": [odd, cls], "dict": {"odd": odd, "cls": cls}}[structure]
    return keras.Model(inputs, outputs)


_LOSSES = {"odd": "binary_crossentropy", "cls": _CLASSES}
_METRICS = {"odd": ["binary_accuracy"], "cls": ["sparse_categorical_accuracy"]}


def _ordered(of: dict[str, Any]) -> list[Any]:
    return [of["odd"], of["cls"]]


# outputs, and how losses, metrics and labels are given
HEADS = {
    "lists for a list": ("list", _ordered, lambda x, cls, odd: (x, (odd, cls))),
    "dicts for a list": ("list", dict, lambda x, cls, odd: (x, {"cls": cls, "odd": odd})),
    "dicts for a dict": ("dict", dict, lambda x, cls, odd: (x, {"cls": cls, "odd": odd})),
}


def _heads(form: str, bench: Bench) -> None:
    structure, given, labelled = HEADS[form]
    model = heads(structure)

    def compile_(m):
        m.compile(keras.optimizers.Adam(3e-3), given(_LOSSES), metrics=given(_METRICS))

    compile_(model)
    train, held_out = labelled(*TRAIN), labelled(*VALIDATION)
    model.fit(*train, epochs=3, verbose=0)
    logs = model.evaluate(*held_out, verbose=0, return_dict=True)
    metric = next(n for n in logs if n.endswith("sparse_categorical_accuracy"))
    task = amc_tf.Task(
        train=train, validation=held_out, metric=metric, compile=compile_, calibration_size=64
    )
    result = compress(bench, model, task, settings=rehearsing())
    small = load(bench.workdir / "finetuned.keras")
    outputs = small.predict(held_out[0], verbose=0)
    logits = outputs["cls"] if isinstance(outputs, dict) else outputs[1]
    wanted = float(np.mean(logits.argmax(-1) == VALIDATION[1]))
    got = value(result["finetuned"])
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")
    file = value(result["tflite"]["model_float32.tflite"])
    expect(near(file, wanted, 0.02), f"the file has {file:.1%}, its model {wanted:.1%}")


def _factory(weight: float) -> Callable:
    def loss(y_true, y_pred):
        return weight * ops.mean(ops.square(y_true - y_pred), axis=-1)

    return loss


def _both_losses(model: keras.Model) -> dict[str, float]:
    x = np.linspace(0, 1, 24, dtype="float32").reshape(8, 3)
    y = np.zeros((8, 1), "float32")
    return model.evaluate(x, [y, y], verbose=0, return_dict=True)


def one_factory(bench: Bench) -> None:
    """Two heads whose losses one factory made keep each its own."""

    def uncompiled():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        outputs = [kl.Dense(1, name="a")(inputs), kl.Dense(1, name="b")(inputs)]
        return keras.Model(inputs, outputs)

    model, copy = uncompiled(), uncompiled()
    model.compile("sgd", loss=[_factory(1.0), _factory(100.0)])
    amc_tf.CompileSettings.of(model).apply(copy)
    mine, wanted = _both_losses(copy), _both_losses(model)
    expect(
        all(near(mine[n], wanted[n]) for n in wanted),
        f"losses {_rounded(mine)} where the model has {_rounded(wanted)}",
    )


def _rounded(logs: dict[str, float]) -> dict[str, float]:
    return {n: round(float(v), 3) for n, v in logs.items()}


def _two_layers() -> keras.Model:
    inputs = keras.Input((3,))
    return keras.Model(inputs, kl.Dense(1, name="out")(kl.Dense(4, name="in")(inputs)))


def _after_steps(model: keras.Model) -> np.ndarray:
    """Weights after some steps from the same start."""
    model.set_weights([np.full(w.shape, 0.3, w.dtype) for w in model.get_weights()])
    x = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
    model.fit(x, x.sum(1), batch_size=8, epochs=3, verbose=0, shuffle=False)
    return np.concatenate([w.ravel() for w in model.get_weights()])


def _optimizer(make: Callable, bench: Bench) -> None:
    """A network that is compiled like the user's takes the same steps."""
    model, copy = _two_layers(), _two_layers()
    model.compile(make(), "mse", run_eagerly=True)
    amc_tf.CompileSettings.of(model).apply(copy)
    got, wanted = _after_steps(copy), _after_steps(model)
    expect(np.allclose(got, wanted, atol=1e-6), f"weights differ by {abs(got - wanted).max():.2g}")


def _no_decay():
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    return optimizer


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate / (1.0 + ops.cast(step, "float32"))


OPTIMIZERS = {
    "exclude_from_weight_decay": _no_decay,
    "a schedule of one's own": lambda: keras.optimizers.SGD(OwnSchedule(0.1)),
    "gradient accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=4),
    "EMA of weights": lambda: keras.optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.01),
}

# --- metrics and training code ----------------------------------------------------------------


def f1_beside(bench: Bench) -> None:
    """The metric `accuracy` beside an F1Score, whose value is a vector."""
    x, y = blobs.data(200, 0)
    hot = np.eye(4, dtype="float32")[y]
    model = dense(bench)

    def compile_(m):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        m.compile("sgd", loss, metrics=["accuracy", keras.metrics.F1Score()])

    compile_(model)
    task = amc_tf.Task(train=(x, hot), validation=(x, hot), compile=compile_)
    result = compress(bench, model, task)
    small = load(bench.workdir / "finetuned.keras")
    wanted = float(np.mean(small.predict(x, verbose=0).argmax(-1) == y))
    expect(near(value(result["finetuned"]), wanted), "reports another accuracy")


STEPS: list[str] = []


@keras.saving.register_keras_serializable("cases")
class Own(keras.Model):
    """A Functional model with a training step of its own."""

    def train_step(self, data):
        STEPS.append(self.name)
        return super().train_step(data)


def own_step(bench: Bench) -> None:
    plain = dense(bench)
    model = Own(plain.inputs, plain.outputs, name="own")
    compile_model(model)

    def fine_tune(m):
        STEPS.clear()
        m.fit(*blobs.data(200, 0), epochs=1, verbose=0)

    compress(bench, model, classification(fine_tune=fine_tune), settings=rehearsing())
    expect(STEPS, "the small network is fine-tuned without the model's own train_step")


class ChannelScale(keras.layers.Layer):
    """README's example, as a user completes it."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


def register_example(bench: Bench) -> None:
    """README's example of register_layer, through a whole compression."""
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    x = ChannelScale(name="scaled")(x)
    x = kl.Dense(12, activation="relu", name="hidden")(kl.Flatten()(kl.MaxPooling2D()(x)))
    model = keras.Model(inputs, kl.Dense(4)(x))
    compile_model(model)
    model.fit(*blobs.data(200, 0), epochs=3, verbose=0)
    amc_tf.register_layer(ChannelScale, like=keras.layers.ReLU, weights={"scale": ("in",)})
    amc_tf.verify(model, amc_tf.analyze(model))
    result = compress(bench, model, classification(), settings=rehearsing())
    expect(result["tflite"], "no files")


def sequential(bench: Bench) -> None:
    """A Sequential model by the default evaluate, which has no names of outputs."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 1)),
        kl.Conv2D(8, 3, padding="same", activation="relu", name="stem"),
        kl.MaxPooling2D(),
        kl.Flatten(),
        kl.Dense(12, activation="relu", name="hidden"),
        kl.Dense(4),
    ]
    model = keras.Sequential(layers)
    compile_model(model)
    model.fit(*blobs.data(200, 0), epochs=3, verbose=0)
    result = compress(bench, model, classification(), settings=rehearsing())
    x, y = blobs.data(200, 1)
    small = load(bench.workdir / "finetuned.keras")
    wanted = float(np.mean(small.predict(x, verbose=0).argmax(-1) == y))
    expect(near(value(result["finetuned"]), wanted), "reports another accuracy")


CASES = {
    **{f"two heads, {n}": functools.partial(_heads, n) for n in HEADS},
    "two losses of one factory": one_factory,
    **{f"compiled like it: {n}": functools.partial(_optimizer, m) for n, m in OPTIMIZERS.items()},
    "accuracy beside F1Score": f1_beside,
    "a Sequential model (control)": sequential,
    "a train_step of one's own": own_step,
    "README's example of register_layer": register_example,
}
