"""Numbers that are not finite or absurd, training that ruins, files that cannot be made."""

from __future__ import annotations

import functools
from collections.abc import Callable

import blobs
import keras
import numpy as np
import tensorflow as tf
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
    search,
    searching,
    value,
)

import amc_tf


def _spoilt(number: float, index: int, data=None):
    x, y = data or blobs.data(400, 0)
    x = x.copy()
    x[index] = number * (np.abs(x[index]) + 0.5)
    return x, y


def _batches(x, y) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(10)


def _calibration(number: float, bench: Bench) -> None:
    """One bad image, far behind the first batches; refits must not be made of it."""
    x, y = _spoilt(number, 330)
    model = dense(bench)
    _sane(model, search(bench, model, classification(train=_batches(x, y), calibration=x)))
    expect(False, f"accepts a calibration image of {number:g}")


def _training(number: float, bench: Bench) -> None:
    x, y = _spoilt(number, 330)
    task = classification(train=_batches(x, y), calibration=x[:64])
    compress(bench, dense(bench), task, settings=rehearsing())
    expect(False, f"accepts a training image of {number:g}")


def _validation(number: float, bench: Bench) -> None:
    x, y = _spoilt(number, 170, blobs.data(200, 1))
    search(bench, dense(bench), classification(validation=_batches(x, y)))
    expect(False, f"accepts a validation image of {number:g}")


def _sane(model: keras.Model, found: amc_tf.SearchResult) -> None:
    """Weights of the refitted network must be finite and of a usual size."""
    small = amc_tf.rebuild(model, found.graph, found.plan, found.refitted(found.plan))
    largest = max(float(np.abs(w).max()) for w in small.get_weights())
    usual = max(float(np.abs(w).max()) for w in model.get_weights())
    expect(largest < 1e4 * usual, f"weights of {largest:.2g} after the refit, {usual:.2g} before")


def large_image(number: float, bench: Bench) -> str | None:
    """A large image: the network must be as good as without it, or something said."""
    x, y = _spoilt(number, 330)
    model = dense(bench)
    found = search(bench, model, classification(train=(x, y), calibration=x))
    _sane(model, found)
    clean = amc_tf.search_plan(
        dense(bench),
        classification(calibration=blobs.data(400, 0)[0]),
        amc_tf.Budget(macs=0.5),
        bench.folder / "clean",
        searching(),
    )
    mine, wanted = (f.best[f.chosen].score for f in (found, clean))
    if mine < wanted - 0.15:
        said = bench.heard("(?i)refit|calibration|large|outlier|finite")
        expect(said, f"one image of {number:g}: {mine:.0%} after the refit instead of {wanted:.0%}")
        return said
    return None


def large_features(bench: Bench) -> None:
    """The control: unscaled features of up to a thousand millions are data, not faults."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    scales = np.array([1e9, 1e6, 1.0, 1e-3], "float32")
    x = ((np.eye(4)[y] + rng.normal(0, 0.3, (400, 4))) * scales).astype("float32")
    inputs = keras.Input((4,))
    h = kl.BatchNormalization()(inputs)
    h = kl.Dense(16, "relu", name="two")(kl.Dense(16, "relu", name="one")(h))
    model = keras.Model(inputs, kl.Dense(4)(h))
    compile_model(model)
    model.fit(x, y, epochs=20, verbose=0)
    try:
        found = search(bench, model, amc_tf.Task(train=(x, y), validation=(x, y)))
    except amc_tf.AmcError as error:
        expect(False, f"refuses ordinary unscaled features: {error}")
    expect(found.best[found.chosen].score > 0.3, "the plan is at chance")


def nan_weights(bench: Bench) -> None:
    model = dense(bench)
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[3, 2] = np.nan
    model.get_layer("hidden").set_weights([kernel, bias])
    search(bench, model, classification())
    expect(False, "searches on NaN weights")


def negative_variance(bench: Bench) -> None:
    model = dense(bench)
    (norm,) = (la for la in model.layers if isinstance(la, kl.BatchNormalization))
    *rest, variance = norm.get_weights()
    variance[1] = -0.5
    norm.set_weights([*rest, variance])
    search(bench, model, classification())
    expect(False, "searches on a batch norm of negative variance")


# --- training ---------------------------------------------------------------------------------


def untrained(bench: Bench) -> str | None:
    keras.utils.set_random_seed(3)
    model = blobs.model()
    compile_model(model)
    compress(bench, model, classification(epochs=1))
    said = bench.heard("(?i)constant|chance|untrained|not trained|no better than")
    expect(said, "compresses an untrained network")
    return said


def ruined(bench: Bench) -> str | None:
    """A fine-tuning that ruins the network."""

    def fine_tune(model):
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(0, 1, w.shape) for w in model.get_weights()])

    result = compress(bench, dense(bench), classification(fine_tune=fine_tune))
    before, after = value(result["pruned"]), value(result["finetuned"])
    x, y = blobs.data(200, 1)
    small = load(bench.workdir / "finetuned.keras")
    kept = float(np.mean(small.predict(x, verbose=0).argmax(-1) == y))
    said = bench.heard("(?i)fine-tuning.*(worse|ruin|kept)")
    expect(kept > before - 0.02, f"exports {after:.1%} as done, where {before:.1%} was before")
    expect(said, "keeps the network before the fine-tuning without a word")
    return said


# --- files that cannot be made ----------------------------------------------------------------


def _bicubic(x):
    return kl.Resizing(12, 12, interpolation="bicubic", name="bicubic")(x)


def _atan(x):
    return ops.arctan(x)


def _product(x):
    flat = kl.Reshape((64, -1))(x)
    return kl.Reshape((8, 8, -1))(ops.einsum("bik,bjk,bjl->bil", flat, flat, flat))


def _loop(x):
    rows = kl.LSTM(8, return_sequences=True, name="loop")(kl.Reshape((8, 32))(x))
    return kl.Reshape((8, 8, 1))(rows)


OPERATIONS = {
    "Resizing by bicubic": _bicubic,
    "erf": ops.erf,
    "atan": _atan,
    "einsum as a batched product": _product,
    "a layer with a loop": _loop,
}


def _network(operation: Callable) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    x = operation(kl.Conv2D(4, 3, padding="same", name="second")(x))
    x = kl.Dense(12, activation="relu", name="hidden")(kl.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, kl.Dense(4)(x))
    compile_model(model)
    model.fit(*blobs.data(400, 0), epochs=6, verbose=0)
    return model


def _int8(name: str, bench: Bench) -> None:
    """int8 of an operation that LiteRT may not run: a file that works, or told at the start."""
    model = _network(OPERATIONS[name])
    result = compress(bench, model, classification(), settings=rehearsing("int8"))
    file = value(result["tflite"]["model_int8.tflite"])
    expect(
        near(file, value(result["finetuned"]), 0.08),
        f"the int8 file has {file:.1%}, its model {value(result['finetuned']):.1%}",
    )


def odd_evaluate(bench: Bench) -> None:
    """The user's evaluate asks for what a file does not have."""

    def evaluate(model, data):
        x, y = data
        inner = keras.Model(model.inputs, model.layers[-1].output)
        return float(np.mean(inner.predict(x, verbose=0).argmax(-1) == y))

    result = compress(bench, dense(bench), classification(evaluate=evaluate), settings=rehearsing())
    file = value(result["tflite"]["model_float32.tflite"])
    expect(near(file, value(result["finetuned"]), 0.02), "the file's number is another one")


def odd_fine_tune(bench: Bench) -> None:
    """The user's fit needs a layer that the rebuilt network has inlined."""
    inputs = keras.Input((8, 8, 1))
    inner = keras.Input((8, 8, 1))
    body = keras.Model(
        inner, kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inner), name="body"
    )
    x = kl.Dense(12, activation="relu", name="hidden")(kl.Flatten()(body(inputs)))
    model = keras.Model(inputs, kl.Dense(4)(x))
    compile_model(model)
    model.fit(*blobs.data(200, 0), epochs=3, verbose=0)

    def fine_tune(m):
        m.get_layer("body").trainable = False
        m.fit(*blobs.data(200, 0), epochs=1, verbose=0)

    compress(bench, model, classification(fine_tune=fine_tune), settings=rehearsing())


def rehearsed(bench: Bench) -> str | None:
    """The first stage names its steps with their seconds."""
    compress(bench, dense(bench), classification(), settings=rehearsing())
    said = bench.heard(r"(?i)rehears.*\d+(\.\d+)? ?s") or bench.heard("(?i)rehears")
    expect(said, "nothing says what was tried before the search")
    return said


REHEARSAL = {
    "what a rehearsal says": rehearsed,
    "an evaluate that fails on files": odd_evaluate,
    "a fit that fails on the rebuilt network": odd_fine_tune,
    **{f"int8 of {name}": functools.partial(_int8, name) for name in OPERATIONS},
}

_NUMBERS = {"NaN": np.nan, "Inf": np.inf, "1e25": 1e25}

CASES = {
    **{f"{n} in calibration data": functools.partial(_calibration, v) for n, v in _NUMBERS.items()},
    **{f"{n} in training data": functools.partial(_training, v) for n, v in _NUMBERS.items()},
    **{f"{n} in validation data": functools.partial(_validation, v) for n, v in _NUMBERS.items()},
    "one calibration image of 1e15": functools.partial(large_image, 1e15),
    "one calibration image of 1e6": functools.partial(large_image, 1e6),
    "features of 1e9 (control)": large_features,
    "NaN weights": nan_weights,
    "a negative variance": negative_variance,
    "an untrained network": untrained,
    "a fine-tuning that ruins": ruined,
}
