"""Tests of tflite_tools: conversion, inference and host latency of TFLite files."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

import tflite_tools
from tflite_tools import Latency, LiteRtModel, measure_host, time_model
from tflite_tools.conversion import convert
from tflite_tools.interpreter import dequantise, quantise

SAMPLES = 6


def residual() -> keras.Model:
    x = inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = shortcut = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 1)(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(layers.Add()([x, shortcut]))
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


def flat_dense() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="board"),
            layers.Conv2D(4, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(7, activation="relu"),
            layers.Dense(3),
        ]
    )


def multi_input() -> keras.Model:
    # The order of the inputs is neither alphabetical nor that of their use.
    image, vector = keras.Input((8, 8, 2), name="a_image"), keras.Input((5,), name="z_vector")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(image))
    return keras.Model(
        [vector, image], layers.Dense(3)(layers.Add()([pooled, layers.Dense(4)(vector)]))
    )


def multi_output() -> keras.Model:
    # Twelve outputs, numbered against the alphabet and all of one shape: a wrong order shows in
    # the values alone, and "output_10" would sort before "output_2".
    inputs = keras.Input((6,), name="features")
    hidden = layers.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, [layers.Dense(3, name=name)(hidden) for name in "lkjihgfedcba"])


def squeeze_excite() -> keras.Model:
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(2, 1, activation="relu")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


ZOO = [residual, flat_dense, multi_input, multi_output, squeeze_excite]


def _as_list(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@pytest.fixture(scope="module", params=ZOO, ids=lambda build: build.__name__)
def case(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A model of the zoo with random weights, samples for it and its outputs."""
    keras.utils.set_random_seed(7)
    model = request.param()
    rng = np.random.default_rng(7)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            # As it starts, batch normalisation is the identity, and folding it proves nothing.
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    x = [rng.normal(size=(SAMPLES, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    y = [np.asarray(t) for t in _as_list(model(x if len(x) > 1 else x[0], training=False))]
    return SimpleNamespace(model=model, x=x, y=y, single=len(x) == 1)


@pytest.fixture(scope="module")
def small() -> keras.Model:
    return flat_dense()


def test_float32_file_equals_keras(case: SimpleNamespace) -> None:
    lite = LiteRtModel(convert(case.model))
    assert [d["name"] for d in lite.input_details] == [t.name for t in case.model.inputs]
    assert all(d["shape"][0] == 1 for d in lite.input_details)
    predicted = _as_list(lite.predict(case.x[0] if case.single else case.x))
    assert len(predicted) == len(case.y)
    for got, expected in zip(predicted, case.y, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_int8_file_is_integer_and_close_to_keras(case: SimpleNamespace) -> None:
    samples = [[x[i : i + 1] for x in case.x] for i in range(SAMPLES)]
    content = convert(case.model, "int8", (s[0] if case.single else s for s in samples))

    plain = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    assert {d["dtype"] for d in plain.get_tensor_details()} <= {np.int8, np.int32}
    ends = plain.get_input_details() + plain.get_output_details()
    assert {d["dtype"] for d in ends} == {np.int8}

    # The samples are the calibration data, so nothing is clipped and every error is one of
    # rounding. A tensor or a weight in 8 bits is off by at most half a step of its range, that is
    # one output step for a layer's activations and weights together if the layers behind do not
    # enlarge errors relative to the range. Hence one output step for each layer with weights or
    # with two inputs, the gated product included, and one for the input and output themselves.
    kinds = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, layers.Add, layers.Multiply)
    steps = 1 + sum(isinstance(layer, kinds) for layer in case.model.layers)
    if len(case.y) > 1:
        steps = 3  # twelve heads side by side: each path holds two layers
    lite = LiteRtModel(content)
    predicted = _as_list(lite.predict(case.x[0] if case.single else case.x))
    for got, expected, detail in zip(predicted, case.y, lite.output_details, strict=True):
        scale = detail["quantization"][0]
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() <= steps * scale
        assert np.ptp(expected) > 4 * steps * scale  # else the bound would prove nothing


def test_outputs_of_a_file_with_a_signature_come_in_order() -> None:
    model = multi_output()
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    lite = LiteRtModel(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    for got, expected in zip(lite.predict(x), model(x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_dict_inputs_and_outputs() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    model = keras.Model({"b": b, "a": a}, {"y": layers.Dense(2)(a), "x": layers.Dense(2)(b)})
    rng = np.random.default_rng(1)
    data = {"a": rng.normal(size=(4, 3)), "b": rng.normal(size=(4, 4))}
    flat = [data[t.name].astype(np.float32) for t in model.inputs]
    expected = keras.tree.flatten(model({key: v.astype(np.float32) for key, v in data.items()}))
    for got, wanted in zip(LiteRtModel(convert(model)).predict(flat), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    as_mappings = [{key: v[i : i + 1] for key, v in data.items()} for i in range(4)]
    as_sequences = [tuple(v[i : i + 1] for v in flat) for i in range(4)]
    assert convert(model, "int8", as_mappings) == convert(model, "int8", as_sequences)
    with pytest.raises(ValueError, match="must have the keys"):
        convert(model, "int8", [{"a": data["a"][:1]}])


def test_unscaled_integers_pass_unchanged() -> None:
    tokens = keras.Input((2,), dtype="int32", name="tokens")
    model = keras.Model(tokens, layers.Embedding(300, 4)(tokens))
    x = np.array([[0, 299], [7, 128]], np.int32)
    np.testing.assert_allclose(LiteRtModel(convert(model)).predict(x), model(x), rtol=1e-6)


def test_unknown_quantisation_lists_the_allowed(small: keras.Model) -> None:
    with pytest.raises(ValueError, match="None, 'float16'.*'int8'.*received 'int4'"):
        convert(small, "int4")


@pytest.mark.parametrize(
    ("representative", "message"),
    [
        (None, "needs representative data.*received None"),
        (3, "received int"),
        ([], "empty"),
        (np.zeros((4, 6, 6, 2)), r"sample 0 has the shapes \[\(6, 6, 2\)\]"),
        ([np.zeros((1, 6, 6, 2)), np.zeros((4, 6, 6, 2))], "sample 1 has the shapes"),
        ([[np.zeros((1, 6, 6, 2))] * 2], "must hold 1 arrays.*received 2"),
        ([np.full((1, 6, 6, 2), np.nan)], "sample 0 holds NaN"),
        ([np.full((1, 6, 6, 2), "0.5")], "must hold numbers.*<U3. Convert it to float32"),
        ([[[[1.0], [1.0, 2.0]]]], "must hold numbers.*object"),
        ([np.full((1, 6, 6, 2), 0.5)] * 3, "the value 0.5 and no other"),
    ],
)
def test_unfit_representative_data(small: keras.Model, representative: object, message: str):
    with pytest.raises(ValueError, match=message):
        convert(small, "int8", representative)


def test_representative_data_without_use(small: keras.Model) -> None:
    with pytest.raises(ValueError, match="uses no representative data"):
        convert(small, representative=[np.zeros((1, 6, 6, 2))])


def test_nan_in_weights() -> None:
    model = flat_dense()
    bias = model.layers[-1].bias
    bias.assign([0.0, np.nan, 0.0])
    with pytest.raises(ValueError, match="1 of 6 variables.*bias"):
        convert(model)


def test_unfit_models() -> None:
    inputs = keras.Input((None, 8, 3), name="wide")
    with pytest.raises(ValueError, match=r"'wide' has shape \(None, None, 8, 3\)"):
        convert(keras.Model(inputs, layers.GlobalAveragePooling2D()(inputs)))
    with pytest.raises(ValueError, match="without them"):
        convert(keras.Sequential([layers.Dense(2)]))


def test_quantise_by_hand() -> None:
    # scale 0.5, zero point 3: 0.6 / 0.5 = 1.2 -> 1 + 3; 0.75 / 0.5 = 1.5 -> 2 + 3; -0.25 / 0.5 =
    # -0.5 -> -1 + 3; 1.25 / 0.5 = 2.5 -> 3 + 3, away from zero where rounding to even gives 2.
    values = np.array([0.0, 0.6, 0.75, -0.25, 1.25, 62.0, 62.5, 1e9, -1e9, np.inf, -np.inf])
    expected = [3, 4, 5, 2, 6, 127, 127, 127, -128, 127, -128]
    result = quantise(values, 0.5, 3, np.int8)
    assert result.dtype == np.int8
    assert result.tolist() == expected
    assert quantise(np.array([-1.0, 0.0, 200.0]), 1.0, 10, np.uint8).tolist() == [9, 10, 210]
    just_below_half = np.nextafter(np.float32(0.5), np.float32(0))
    assert quantise(just_below_half, 1.0, 0, np.int8) == 0
    with pytest.raises(ValueError, match="NaN"):
        quantise(np.array([np.nan]), 1.0, 0, np.int8)


def test_dequantise_by_hand() -> None:
    # 127 - (-128) = 255, beyond int8.
    result = dequantise(np.array([-128, 0, 127], np.int8), 0.5, -128)
    assert result.dtype == np.float32
    assert result.tolist() == [0.0, 64.0, 127.5]


def test_predict_refuses_unfit_inputs() -> None:
    lite = LiteRtModel(convert(multi_input()))
    vector, image = np.zeros((2, 5)), np.zeros((2, 8, 8, 2))
    with pytest.raises(ValueError, match="expected 2 input arrays .*; received 1"):
        lite.predict(vector)
    with pytest.raises(ValueError, match="'z_vector' must have shape"):
        lite.predict([image, vector])
    with pytest.raises(ValueError, match="batch dimension"):
        lite.predict([vector[0], image])
    with pytest.raises(ValueError, match=r"same number of samples; received \[2, 1\]"):
        lite.predict([vector, image[:1]])
    assert lite.predict([vector[:0], image[:0]]).shape == (0, 3)
    with pytest.raises(ValueError, match="num_threads"):
        LiteRtModel(b"", num_threads=0)
    with pytest.raises(ValueError):
        LiteRtModel(b"no such file")


class FakeClock:
    """A clock that only a run advances, by ``step`` seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        return self.now

    def run(self) -> None:
        self.now += self.step


@pytest.mark.parametrize(
    ("step", "num_runs", "min_secs", "max_secs", "expected"),
    [
        (0.25, 3, 2.0, 100.0, 8),  # enough runs after 0.75 s, enough time after 8 runs
        (0.25, 50, 2.0, 100.0, 50),  # enough time after 8 runs, enough runs after 50
        (1.0, 50, 2.0, 10.0, 11),  # at 10 s no more than max_secs have passed: one further run
        (30.0, 50, 1.0, 20.0, 1),  # a single run beyond max_secs
        (0.25, 0, 0.0, 10.0, 0),  # nothing asked for
    ],
)
def test_stopping_rule(step, num_runs, min_secs, max_secs, expected) -> None:
    clock = FakeClock(step)
    durations = time_model.repeat(
        clock.run, num_runs=num_runs, min_secs=min_secs, max_secs=max_secs, clock=clock
    )
    assert durations == [step] * expected


def test_random_inputs() -> None:
    rng = np.random.default_rng(0)
    shape = np.array([1, 100, 100])
    floats = time_model.random_input(
        {"shape": shape, "dtype": np.float32, "quantization": (0.0, 0)}, rng
    )
    assert floats.shape == (1, 100, 100) and floats.dtype == np.float32
    assert floats.min() >= -0.5 and floats.max() < 0.5 and floats.std() > 0.2
    magnitudes = np.abs(floats[floats != 0])
    assert magnitudes.min() >= np.finfo(np.float32).tiny
    integers = time_model.random_input(
        {"shape": shape, "dtype": np.int8, "quantization": (0.1, 5)}, rng
    )
    assert integers.dtype == np.int8 and (integers.min(), integers.max()) == (-128, 127)
    indices = time_model.random_input(
        {"shape": shape, "dtype": np.int32, "quantization": (0.0, 0)}, rng
    )
    assert indices.dtype == np.int32 and not indices.any()


def test_latency_of_a_big_and_a_small_model(small: keras.Model) -> None:
    inputs = keras.Input((32, 32, 32))
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(inputs)
    big = keras.Model(inputs, layers.Conv2D(64, 3, padding="same")(x))
    samples = np.random.default_rng(0).normal(size=(3, 1, 6, 6, 2))
    result = measure_host(
        {
            "big": convert(big),
            "small": convert(small),
            "small/int8": convert(small, "int8", samples),
        },
        rounds=2,
        num_runs=5,
        min_secs=0.05,
        warmup_min_secs=0.02,
    )
    assert list(result) == ["big", "small", "small/int8"]
    for entry in result.values():
        assert isinstance(entry, Latency)
        assert 0 < entry.min_ms <= entry.median_ms <= entry.max_ms
        assert entry.rounds == 2
        assert entry.runs >= 10
        assert entry.conditions["threads"] == 1
    # 57 million multiplications against some thousand.
    assert result["big"].min_ms > 10 * result["small"].max_ms
    with pytest.raises(FrozenInstanceError):
        result["big"].runs = 0


def test_public_names() -> None:
    assert set(tflite_tools.__all__) <= set(dir(tflite_tools))
    assert tflite_tools.convert is convert
    with pytest.raises(AttributeError, match="no attribute 'utils'; it has"):
        _ = tflite_tools.utils
