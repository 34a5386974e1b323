"""Data as people have it, in every form that `Model.fit` takes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import blobs
import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl
from silent_judge import Bench, expect
from silent_tasks import (
    HALF,
    classification,
    compile_model,
    compress,
    dense,
    load,
    near,
    settings,
    value,
)

import amc_tf

TRAIN, VALIDATION = blobs.data(200, 0), blobs.data(90, 1)
Data = Any


class Batches(keras.utils.PyDataset):
    """Thirty samples a batch, with an end or without, with weights or without."""

    def __init__(self, arrays, endless=False):
        super().__init__()
        self._arrays, self._endless = arrays, endless

    @property
    def num_batches(self):
        return None if self._endless else -(-len(self._arrays[0]) // 30)

    def __getitem__(self, index):
        index %= -(-len(self._arrays[0]) // 30)
        return tuple(a[30 * index : 30 * index + 30] for a in self._arrays)


def dataset(*arrays) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(30)


def unknown(*arrays) -> tf.data.Dataset:
    return dataset(*arrays).filter(lambda *parts: True)


def from_generator(*arrays) -> tf.data.Dataset:
    return _generated(lambda: dataset(*arrays).as_numpy_iterator(), arrays)


def endless_generator(*arrays) -> tf.data.Dataset:
    many = tuple(np.concatenate(20 * [a]) for a in arrays)  # large batches, which pass quickly
    return _generated(lambda: itertools.repeat(many), arrays)


def _generated(batches: Callable, arrays) -> tf.data.Dataset:
    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in arrays)
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def list_of_batches(*arrays) -> list:
    return list(dataset(*arrays).as_numpy_iterator())


def tensors(*arrays) -> tuple:
    return tuple(map(tf.constant, arrays))


def generator(*arrays):
    yield from dataset(*arrays).as_numpy_iterator()


def flow(*arrays):
    """ImageDataGenerator.flow, whose iterator never ends although it has a length."""
    images = tf.keras.preprocessing.image.ImageDataGenerator()
    return images.flow(*arrays[:2], batch_size=30, shuffle=False)


def sequence(*arrays):
    """The name that Keras 2 had."""

    class Old(keras.utils.Sequence):
        def __len__(self):
            return -(-len(arrays[0]) // 30)

        def __getitem__(self, index):
            return tuple(a[30 * index : 30 * index + 30] for a in arrays)

    return Old()


FORMS: dict[str, Callable[..., Data]] = {
    "arrays": lambda *arrays: arrays,
    "tensors": tensors,
    "PyDataset": lambda *arrays: Batches(arrays),
    "keras.utils.Sequence": sequence,
    "tf.data of known size": dataset,
    "tf.data of unknown size": unknown,
    "tf.data from a generator": from_generator,
    "a list of batches": list_of_batches,
    "ImageDataGenerator.flow": flow,
    "a generator": generator,
}
# Passed by `fit` once, so that nothing is left for the search: to be told.
_MUST_BE_TOLD = ("a generator",)


def weights(count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 3, count).astype("float32")


def truth(bench: Bench, data, weight=None) -> float:
    x, y = data
    small = load(bench.workdir / "finetuned.keras")
    right = small.predict(x, verbose=0).argmax(-1) == y
    return float(np.average(right, weights=weight))


def _compressed(form: str, bench: Bench) -> None:
    make = FORMS[form]
    task = classification(train=make(*TRAIN), validation=make(*VALIDATION), test=make(*VALIDATION))
    result = compress(bench, dense(bench), task)
    expect(form not in _MUST_BE_TOLD, "a generator, which can be read only once, is accepted")
    got, wanted = value(result["finetuned"]), truth(bench, VALIDATION)
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")
    file = value(result["tflite"]["model_float32.tflite"])
    expect(near(file, wanted, 0.02), f"the file has {file:.1%}, its model {wanted:.1%}")


def _weighted_model(bench: Bench) -> keras.Model:
    model = dense(bench)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="heavy")
    model.compile(keras.optimizers.Adam(1e-3), loss, weighted_metrics=[accuracy])
    return model


def _weighted(form: str, bench: Bench) -> None:
    """Sample weights: the score of the search, the result and the file is Keras' own."""
    make = FORMS[form]
    heavy = weights(len(VALIDATION[1]))
    model = _weighted_model(bench)
    wanted = model.evaluate(*VALIDATION, sample_weight=heavy, verbose=0, return_dict=True)
    name = next(n for n in wanted if n != "loss")
    task = classification(
        train=make(*TRAIN, weights(len(TRAIN[1]))),
        validation=make(*VALIDATION, heavy),
        test=make(*VALIDATION, heavy),
        metric=name,
        compile=None,
    )
    result = compress(bench, model, task)
    dense_score = result["dense"][
        "search_score" if "search_score" in result["dense"] else ("search_accuracy")
    ]
    expect(near(dense_score, wanted[name]), f"search: {dense_score:.4f}, Keras {wanted[name]:.4f}")
    got, true = value(result["finetuned"]), truth(bench, VALIDATION, heavy)
    expect(near(got, true), f"reports {got:.4f} where {true:.4f} is true")
    file = value(result["tflite"]["model_float32.tflite"])
    expect(near(file, true, 0.02), f"the file has {file:.4f}, its model {true:.4f}")


def _fitted(form: str, bench: Bench) -> None:
    """The same forms given to Compressor.fit."""
    make = FORMS[form]
    model = dense(bench)
    small = amc_tf.Compressor(model, HALF, bench.workdir, settings(), trained=True)
    train, held_out = make(*TRAIN), make(*VALIDATION)
    if isinstance(train, tuple):
        small.fit(*train, validation_data=held_out, verbose=0)
    else:
        small.fit(train, validation_data=held_out, verbose=0)
    got, wanted = value(small.result["finetuned"]), truth(bench, VALIDATION)
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")


# --- several inputs ---------------------------------------------------------------------------


def two_inputs() -> keras.Model:
    keras.utils.set_random_seed(0)
    a, b = keras.Input((8, 8, 1), name="a"), keras.Input((4,), name="b")
    x = kl.Conv2D(8, 3, activation="relu", name="stem")(a)
    x = kl.Concatenate()([kl.Flatten()(kl.MaxPooling2D()(x)), kl.Dense(8, "relu")(b)])
    model = keras.Model([a, b], kl.Dense(4)(kl.Dense(12, "relu", name="hidden")(x)))
    compile_model(model)
    return model


def _pairs(count: int, seed: int):
    x, y = blobs.data(count, seed)
    hint = np.eye(4, dtype="float32")[y] + np.random.default_rng(seed).normal(0, 1, (count, 4))
    return x, hint.astype("float32"), y


def _structured(make: Callable, bench: Bench) -> None:
    train, held_out = _pairs(200, 0), _pairs(90, 1)
    model = two_inputs()
    model.fit(list(train[:2]), train[2], epochs=3, verbose=0)
    task = classification(train=make(*train), validation=make(*held_out), test=None)
    result = compress(bench, model, task)
    small = load(bench.workdir / "finetuned.keras")
    found = small.predict(list(held_out[:2]), verbose=0).argmax(-1)
    wanted = float(np.mean(found == held_out[2]))
    got = value(result["finetuned"])
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")


STRUCTURES = {
    "a list of arrays": lambda a, b, y: ([a, b], y),
    "a dict of arrays": lambda a, b, y: ({"b": b, "a": a}, y),
    "tf.data of dicts": lambda a, b, y: tf.data.Dataset.from_tensor_slices(
        ({"b": b, "a": a}, y)
    ).batch(30),
    "tf.data of tuples": lambda a, b, y: tf.data.Dataset.from_tensor_slices(((a, b), y)).batch(30),
}


def pandas_frames(bench: Bench) -> None:
    import pandas as pd

    def frames(count, seed):
        _, hint, y = _pairs(count, seed)
        return pd.DataFrame(hint, columns=list("klmn")), pd.Series(y)

    inputs = keras.Input((4,))
    x = kl.Dense(16, "relu", name="one")(inputs)
    model = keras.Model(inputs, kl.Dense(4)(kl.Dense(16, "relu", name="two")(x)))
    compile_model(model)
    train, held_out = frames(200, 0), frames(90, 1)
    model.fit(*train, epochs=3, verbose=0)
    task = classification(train=train, validation=held_out, test=None)
    result = compress(bench, model, task)
    small = load(bench.workdir / "finetuned.keras")
    wanted = float(np.mean(small.predict(held_out[0].values, verbose=0).argmax(-1) == held_out[1]))
    got = value(result["finetuned"])
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")


def each(prefix: str, case: Callable, names) -> dict[str, Callable[[Bench], Any]]:
    return {f"{prefix}{name}": functools.partial(case, name) for name in names}


CASES = {
    **each("data as ", _compressed, FORMS),
    **each(
        "sample weights in ",
        _weighted,
        ("arrays", "PyDataset", "tf.data of known size", "a list of batches"),
    ),
    **each(
        "Compressor.fit on ",
        _fitted,
        ("PyDataset", "tf.data of unknown size", "a list of batches", "a generator"),
    ),
    **{f"inputs as {n}": functools.partial(_structured, m) for n, m in STRUCTURES.items()},
    "pandas frames": pandas_frames,
}
