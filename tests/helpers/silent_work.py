"""Work that is counted as zero, or counted although nobody does it."""

from __future__ import annotations

import contextlib
import io
import sys

import keras
import numpy as np
from keras import layers as kl
from silent_judge import Bench, accepted, expect
from silent_macs import HEAD, image, spectral
from silent_tasks import FAST, compress, load, rehearsing, searching

import amc_tf


def inspected(bench: Bench) -> str | None:
    """amc-inspect must not say 100 % prunable over what it did not count."""
    model, wanted = spectral()
    text = amc_tf.describe(amc_tf.analyze(model))
    if f"{wanted:,}" in text:
        expect("100.0 % prunable" not in text and "100.0% prunable" not in text, _first(text))
        return None
    said = next((line for line in text.splitlines() if "not counted" in line), None)
    expect(said, _first(text))
    return said


def _first(text: str) -> str:
    return next((line for line in text.splitlines() if "MACs" in line), text[:80]).strip()


def _task(model: keras.Model, **changes) -> amc_tf.Task:
    rng = np.random.default_rng(0)
    x = rng.random((32, *(s or 16 for s in model.input_shape[1:])), "float32")
    y = rng.integers(0, 4, 32)
    values = {
        "train": (x, y),
        "validation": (x, y),
        "compile": lambda m: m.compile(
            "sgd",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        ),
    }
    return amc_tf.Task(**{**values, **changes})


def _refused(bench: Bench, model: keras.Model, **changes) -> amc_tf.Compression:
    settings = amc_tf.Settings(rehearse=False, search=searching(**changes), export=FAST)
    return amc_tf.Compression(
        model, _task(model), amc_tf.Budget(macs=0.5), bench.workdir, settings, safe_mode=False
    )


def half_of_nothing(bench: Bench) -> None:
    """Half the MACs of a network whose work is nearly all in a layer that cannot be pruned."""
    inputs = keras.Input((16, 16, 3))
    x = kl.SpectralNormalization(kl.Conv2D(8, 3, padding="same"))(inputs)
    x = kl.Dense(16, name="hidden")(kl.GlobalAveragePooling2D()(x))
    _refused(bench, keras.Model(inputs, kl.Dense(4)(x)))
    expect(False, "accepts a budget of one half, where nothing of weight can be pruned")


class Hidden(kl.Layer):
    """Work of NumPy, which no trace of TensorFlow shows."""

    def call(self, x):
        import tensorflow as tf

        kernel = np.ones((3, 8), "float32")
        y = tf.numpy_function(lambda a: (a @ kernel).astype("float32"), [x], tf.float32)
        return tf.ensure_shape(y, (None, 16, 16, 8))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 8)


def _hiding() -> keras.Model:
    inputs = image()
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(8, 3, name="seen")(Hidden(name="hiding")(inputs)))
    return keras.Model(inputs, kl.Dense(4)(x))


def uncountable(bench: Bench) -> None:
    _refused(bench, _hiding())
    expect(False, "a MACs budget is accepted over work that nobody can count")


def allowed_uncountable(bench: Bench) -> None:
    run = _refused(bench, _hiding(), allow_uncounted=True)
    expect(run.graph is not None, "no graph")


def _two_outputs() -> tuple[keras.Model, int]:
    inputs = image()
    a = kl.Conv2D(8, 3, padding="same", name="a")(inputs)
    b = kl.Conv2D(64, 3, padding="same", name="b1")(a)
    b = kl.Conv2D(64, 3, padding="same", name="b2")(b)
    backbone = keras.Model(inputs, [a, b], name="backbone")
    outer = image()
    x = kl.Conv2D(8, 3, padding="same", name="used")(backbone(outer)[0])
    model = keras.Model(outer, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))
    return model, 16 * 16 * 9 * (3 * 8 + 8 * 8) + HEAD


def phantom(bench: Bench) -> None:
    model, wanted = _two_outputs()
    graph = amc_tf.analyze(model)
    found = amc_tf.macs(graph)
    expect(found == wanted, f"counts {found:,} MACs of {wanted:,}, the rest reaches no output")
    names = list(graph.groups)
    expect(not any(n.startswith("b") for n in names), f"a group nobody reads: {names}")
    small = amc_tf.rebuild(model, graph, None)
    expect(amc_tf.params(graph) == small.count_params(), "counts weights nobody reads")


def phantom_budget(bench: Bench) -> None:
    model, wanted = _two_outputs()
    compress(bench, model, _task(model))
    small = amc_tf.macs(amc_tf.analyze(load(bench.workdir / "finetuned.keras")))
    expect(small <= wanted / 2, f"half of {wanted:,} MACs was met by dead code: {small:,}")


def _open_backbone() -> tuple[keras.Model, keras.Model, int]:
    inputs = keras.Input((None, None, 3))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="c1")(inputs)
    backbone = keras.Model(inputs, kl.Conv2D(8, 3, padding="same", name="c2")(x), name="backbone")
    outer = image()
    fixed = keras.Model(outer, kl.Dense(4)(kl.GlobalAveragePooling2D()(backbone(outer))))
    head = kl.Dense(4)(kl.GlobalAveragePooling2D()(backbone.output))
    return fixed, keras.Model(inputs, head), 16 * 16 * 9 * (3 * 8 + 8 * 8) + HEAD


def nested_open(bench: Bench) -> None:
    fixed, _, wanted = _open_backbone()
    try:
        found = amc_tf.macs(amc_tf.analyze(fixed))
    except amc_tf.AmcError as error:
        expect("fixed input size" not in str(error), f"has a fixed input, but: {error}")
        raise
    expect(found == wanted, f"counts {found:,} MACs of {wanted:,}")


def open_sizes(bench: Bench) -> None:
    """Sizes from the validation data; the model's input stays open."""
    _, model, wanted = _open_backbone()
    with accepted():
        result = compress(bench, model, _task(model), settings=rehearsing())
    expect(result["dense"]["macs"] == wanted, f"counts {result['dense']['macs']:,} of {wanted:,}")
    small = load(bench.workdir / "finetuned.keras")
    expect(small.input_shape == (None, None, None, 3), f"the input is {small.input_shape}")


def said_sizes(bench: Bench) -> None:
    _, model, wanted = _open_backbone()
    graph = amc_tf.analyze(model, input_shape=(16, 16, 3))
    expect(amc_tf.macs(graph) == wanted, f"counts {amc_tf.macs(graph):,} of {wanted:,}")


def open_command(bench: Bench) -> None:
    """The command amc-inspect --input_shape."""
    _, model, wanted = _open_backbone()
    model.save("open.keras")
    said = _inspect("--input_shape=16,16,3", "open.keras")
    expect(f"{wanted:,}" in said, f"amc-inspect prints {_first(said)}")


def _inspect(*arguments: str) -> str:
    from amc_tf.cli import inspect

    printed = io.StringIO()
    sys.argv = ["amc-inspect", *arguments]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            inspect.entry()
        except SystemExit as end:
            if isinstance(end.code, str):
                raise amc_tf.AmcError(end.code) from None
            if end.code:
                raise amc_tf.AmcError(f"exit code {end.code}: {printed.getvalue()}") from None
    return printed.getvalue()


CASES = {
    "amc-inspect says 100 % prunable": inspected,
    "half of what cannot be pruned": half_of_nothing,
    "work that cannot be counted": uncountable,
    "allow_uncounted=True": allowed_uncountable,
    "outputs of a backbone that nobody reads": phantom,
    "a budget met by dead code": phantom_budget,
    "an open backbone in a model of fixed size": nested_open,
    "open sizes, from the validation data": open_sizes,
    "open sizes, input_shape of analyze": said_sizes,
    "open sizes, --input_shape of amc-inspect": open_command,
}
