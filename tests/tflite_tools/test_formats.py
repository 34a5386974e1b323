"""Every number format on networks of every kind, against Keras; what a file says of itself."""

import io
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import zoo
from ai_edge_litert import schema_py_generated as schema
from keras import layers as kl
from places import DATA

import tflite_tools
from amc_tf.keras2 import convert as keras2
from tflite_tools import LiteRtModel, Metadata, Normalization, conversion, convert, flatbuffer

GOLDEN = DATA / "golden"
SAMPLES = 16
NETWORKS = ("residual", "depthwise_multiplier", "two_outputs", "squeeze_excite", "one_dimensional")
# A layer with weights, or with several inputs.
ROUNDED = ("Conv", "Dense", "Add", "Multiply", "PReLU")
# The largest error of a number, as a fraction of the range it is in: float32 rounds 24 bits (and
# sums in another order, hundreds of terms); float16 rounds weights to 11 bits; a weight in 8 bits
# is off by half of a step of 1/127; an activation in 8 bits by half of a step of 1/255.
UNIT = {
    None: 2**-16,
    "float16": 2**-11,
    "dynamic": 1 / 127,
    "int8": 1 / 254 + 1 / 510,
    "int8_float_io": 1 / 254 + 1 / 510,
    "int8_uint8_io": 1 / 254 + 1 / 510,
    "int8_per_tensor": 1 / 254 + 1 / 510,
    "int16x8": 1 / 254,
}
ENDS = {
    "int8": np.int8,
    "int8_uint8_io": np.uint8,
    "int8_per_tensor": np.int8,
    "int16x8": np.int16,
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    model = zoo.build(request.param)
    x = zoo.sample(model, SAMPLES)
    return model, x, zoo.outputs(model, x)


def samples(x):
    return [x[i : i + 1] for i in range(len(x))]


@pytest.mark.parametrize("quantize", UNIT)
def test_outputs_are_those_of_keras(case, quantize):
    """Samples calibrate too, so that nothing is clipped and all error is rounding.

    Rounded numbers enter at every layer with weights or two inputs, and at the input; layers
    behind do not enlarge an error relative to the range. Hence a unit of rounding for each.
    """
    model, x, expected = case
    calibrated = quantize in conversion.CALIBRATED
    content = convert(model, quantize, samples(x) if calibrated else None)
    lite = LiteRtModel(content)
    ends = {d["dtype"] for d in lite.input_details + lite.output_details}
    assert ends == {ENDS.get(quantize, np.float32)}
    count = 1 + sum(any(k in type(layer).__name__ for k in ROUNDED) for layer in model.layers)
    assert lite.signature.inputs == tuple(t.name for t in model.inputs)
    received = keras.tree.flatten(lite.predict(x))
    for a, b in zip(expected, received, strict=True):
        assert np.abs(a - b).max() <= count * UNIT[quantize] * np.ptp(a)


@pytest.mark.parametrize("quantize, one", [("int8", False), ("int8_per_tensor", True)])
def test_kernels_have_one_scale_where_accelerators_want_it(quantize, one):
    model = zoo.build("depthwise_multiplier")
    content = convert(model, quantize, samples(zoo.sample(model, SAMPLES)))
    kernels = [
        tensor.quantization.scale
        for tensor in flatbuffer.read(content).subgraphs[0].tensors
        if tensor.type == schema.TensorType.INT8 and len(tensor.shape) == 4 and tensor.buffer
        if flatbuffer.read(content).buffers[tensor.buffer].data is not None
    ]
    assert kernels
    assert all(len(scales) == 1 for scales in kernels) == one


def test_float16_weights_are_rounded_and_nothing_else():
    """A second way to the same numbers: Keras itself with weights rounded to 16 bits."""
    model = zoo.build("plain")
    x = zoo.sample(model, 4)
    received = LiteRtModel(convert(model, "float16")).predict(x)
    model.set_weights([w.astype(np.float16).astype(np.float32) for w in model.get_weights()])
    np.testing.assert_allclose(received, model(x), atol=1e-6)


def test_sizes_follow_from_the_formats():
    inputs = keras.Input((256,))
    model = keras.Model(inputs, kl.Dense(64)(kl.Dense(256)(inputs)))
    weights = 256 * 256 + 256 * 64
    x = np.random.default_rng(0).normal(size=(4, 256)).astype("float32")
    for quantize, width in ((None, 4), ("float16", 2), ("dynamic", 1), ("int8", 1), ("int16x8", 1)):
        calibration = samples(x) if quantize in ("int8", "int16x8") else None
        size = len(convert(model, quantize, calibration))
        # Biases, scales and the graph: some kilobytes.
        assert width * weights <= size <= width * weights + 12_000


def test_equal_vectors_are_written_once():
    """Two layers of 512 channels: their zero points, 8 bytes each, are in the file once."""
    inputs = keras.Input((4, 4, 8))
    x = kl.Conv2D(512, 1)(kl.Conv2D(512, 1)(inputs))
    model = keras.Model(inputs, kl.GlobalAveragePooling2D()(x))
    content = convert(model, "int8", samples(zoo.sample(model, 2)))
    graph = flatbuffer.read(content).subgraphs[0]
    points = [t.quantization.zeroPoint for t in graph.tensors if t.quantization is not None]
    # Of the kernel and the bias of each.
    assert [len(p) for p in points if p is not None].count(512) == 4
    assert content.count(bytes(8 * 512)) == 1


def test_outputs_bear_their_names():
    model = zoo.build("two_outputs")
    assert set(LiteRtModel(convert(model)).signature.outputs) == {"map", "label"}
    inputs = keras.Input((4,), name="features")
    both = [kl.Dense(2, name=name)(inputs) for name in ("output_1", "output_0")]
    model = keras.Model(inputs, both)
    lite = LiteRtModel(convert(model))
    assert lite.signature == tflite_tools.interpreter.FileSignature(
        ("features",), ("output_1", "output_0")
    )
    x = np.eye(4, dtype="float32")
    for a, b in zip(lite.predict(x), model(x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", ["residual", "two_outputs", "shared_layers"])
def test_keras_2_models(name):
    model = zoo.build(name)
    x = zoo.sample(model, 4)
    arrays = x if isinstance(x, list) else [x]
    carried = keras2.to_keras2(model)
    assert isinstance(carried, tf_keras.Model)
    calibration = [[a[i : i + 1] for a in arrays] for i in range(4)]
    for quantize, given in ((None, None), ("int8", calibration)):
        two, three = (LiteRtModel(convert(m, quantize, given)) for m in (carried, model))
        assert two.signature == three.signature
        for a, b in zip(*(keras.tree.flatten(f.predict(x)) for f in (two, three)), strict=True):
            # One int8 step where Keras 2 rounds a folded weight the other way.
            np.testing.assert_allclose(a, b, atol=1e-5 if quantize is None else np.ptp(b) / 64)


def test_a_dynamic_batch_on_request():
    model = zoo.build("plain")
    content = convert(model, dynamic_batch=True)
    details = LiteRtModel(content).input_details[0]
    assert list(details["shape_signature"]) == [-1, 8, 8, 3]
    x = zoo.sample(model, 3)
    np.testing.assert_allclose(LiteRtModel(content).predict(x), model(x), atol=1e-5)


def test_models_trained_in_16_bits():
    model = zoo.build("mixed_precision")
    x = zoo.sample(model, 4)
    received = LiteRtModel(convert(model)).predict(x)
    # bfloat16 rounds to 8 bits, in each of three layers.
    assert np.abs(received - np.asarray(model(x))).max() <= 3 * 2**-8 * np.ptp(received)


@pytest.mark.parametrize("quantize", [name for name in UNIT if name])
def test_named_layers_stay_float(quantize):
    model = zoo.build("two_outputs")
    x = zoo.sample(model, 8)
    given = samples(x) if quantize.startswith("int") else None
    content = convert(model, quantize, given, keep_float=("feature",))
    plain = convert(model, quantize, given)
    kept = [o for o in tflite_tools.inspect_file(content).float_operators if "feature" in o.output]
    assert [o.kind for o in kept] == ["CONV_2D"]
    weights = model.get_layer("feature").kernel.shape.num_elements()
    assert _float_constants(content) >= weights
    if quantize.startswith("int"):
        assert not tflite_tools.inspect_file(plain).float_operators
        assert _float_constants(plain) == 0
    ends = {d["dtype"] for d in LiteRtModel(content).input_details}
    assert ends == {ENDS.get(quantize, np.float32)}
    expected = zoo.outputs(model, x)
    for a, b in zip(expected, LiteRtModel(content).predict(x), strict=True):
        assert np.abs(a - b).max() <= 5 * UNIT[quantize] * np.ptp(a)


def _float_constants(content):
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    return sum(
        int(np.prod(t.shape))
        for t in graph.tensors
        if t.type == schema.TensorType.FLOAT32 and model.buffers[t.buffer].data is not None
    )


def test_operators_without_an_integer_form_are_named():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, kl.Dense(3)(kl.Dense(5, activation="elu", name="bent")(inputs)))
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    found = tflite_tools.inspect_file(convert(model, "int8", samples(x)))
    assert [(o.kind, "bent" in o.output) for o in found.float_operators] == [("ELU", True)]
    assert found.counts["FULLY_CONNECTED"] == 2


# --- metadata --------------------------------------------------------------------------------


def test_metadata_of_the_published_schema_is_read():
    """The golden bytes were written with the bindings of the package tflite-support."""
    inputs = keras.Input((8, 8, 3), name="pixels")
    content = convert(keras.Model(inputs, kl.Dense(2)(kl.Flatten()(inputs))))
    model = flatbuffer.read(content)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer((GOLDEN / "metadata.tflitemeta").read_bytes(), np.uint8)
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)
    file = io.BytesIO(flatbuffer.write(model))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("scores_labels.txt", "cat\ndog")
    assert tflite_tools.read_metadata(file.getvalue()) == Metadata(
        "net",
        "made by the published schema",
        {"scores": ["cat", "dog"]},
        {"pixels": Normalization(127.5, 63.75)},
        {"pixels": (0.0, 255.0)},
    )


def test_metadata_comes_back_and_the_file_still_runs():
    model = zoo.build("two_outputs")
    name = model.inputs[0].name
    plain = convert(model)
    told = Metadata(
        "net",
        "two heads",
        {"label": ["a", "b", "ç", "d", "e"]},
        {name: Normalization((1, 2, 3), 4)},
        {name: (-1.0, 1.0)},
    )
    content = tflite_tools.attach(plain, told)
    assert tflite_tools.read_metadata(content) == told
    assert tflite_tools.read_metadata(plain) is None
    assert tflite_tools.attach(content, told) == content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("label_labels.txt").decode().split("\n") == told.labels["label"]
    x = zoo.sample(model, 2)
    for a, b in zip(LiteRtModel(content).predict(x), LiteRtModel(plain).predict(x), strict=True):
        np.testing.assert_array_equal(a, b)
    # The schema asks for weights at multiples of 16 bytes.
    root = schema.Model.GetRootAsModel(content, 0)
    buffers = [root.Buffers(i) for i in range(root.BuffersLength())]
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
    assert len(starts) > 4 and not [s for s in starts if s % 16]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (Metadata(labels={"scores": ["a"]}), "labels for 'scores', but the file has"),
        (Metadata(labels={"label": ["a"]}), "5 labels"),
        (Metadata(normalization={"x": Normalization()}), "normalization for 'x'"),
    ],
)
def test_metadata_that_does_not_fit(metadata, message):
    with pytest.raises(ValueError, match=message):
        tflite_tools.attach(convert(zoo.build("two_outputs")), metadata)


def test_normalization_is_checked():
    with pytest.raises(ValueError, match="positive"):
        Normalization(0.0, 0.0)
    with pytest.raises(ValueError, match="finite"):
        Normalization(np.nan)


# --- what cannot be converted ----------------------------------------------------------------


def test_unsupported_operators_are_one_sentence(capfd):
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, keras.ops.cumprod(inputs, axis=1))
    with pytest.raises(ValueError, match="operators Cumprod; .*allow_flex"):
        convert(model)
    assert "Cumprod" not in capfd.readouterr().err
    content = convert(model, allow_flex=True)
    assert [o.kind for o in tflite_tools.inspect_file(content).flex_operators] == ["FlexCumprod"]
    with pytest.raises(RuntimeError, match="Flex delegate"):
        LiteRtModel(content)


def test_loops_cannot_be_calibrated_and_would_crash():
    inputs = keras.Input((6, 4))
    x = np.random.default_rng(0).normal(size=(8, 6, 4)).astype("float32")
    looped = keras.Model(inputs, kl.LSTM(3)(inputs))
    with pytest.raises(ValueError, match="unroll=True"):
        convert(looped, "int8", samples(x))
    np.testing.assert_allclose(LiteRtModel(convert(looped)).predict(x), looped(x), atol=1e-5)
    unrolled = keras.Model(inputs, kl.LSTM(3, unroll=True)(inputs))
    received = LiteRtModel(convert(unrolled, "int8", samples(x))).predict(x)
    # A step each for the kernel, the recurrent one and the gates, six times.
    assert np.abs(received - np.asarray(unrolled(x))).max() <= 6 * 4 / 255


def test_keep_float_names_what_it_knows():
    model = zoo.build("two_outputs")
    with pytest.raises(ValueError, match="no such layer; it has .*feature"):
        convert(model, "dynamic", keep_float=("head",))
    with pytest.raises(ValueError, match="keep_float .* quantize is None"):
        convert(model, keep_float=("feature",))
    dropped = keras.Sequential([keras.Input((3,)), kl.Dropout(0.5, name="drop"), kl.Dense(2)])
    with pytest.raises(ValueError, match="no operator of that layer"):
        convert(dropped, "dynamic", keep_float=("drop",))


def test_what_is_no_file_is_refused():
    with pytest.raises(ValueError, match="TFL3"):
        tflite_tools.inspect_file(b"PK\x03\x04 something else")


def test_a_recurrent_file_forgets_a_sample_before_the_next():
    """TensorFlow's converter fuses an LSTM of tf_keras, with its state in a variable."""
    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input((5, 3), batch_size=1)
    model = tf_keras.Model(inputs, tf_keras.layers.LSTM(4)(inputs))
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in tflite_tools.inspect_file(content).counts
    x = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    expected = np.concatenate([model(x[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(LiteRtModel(content).predict(x), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [kl.LSTM, kl.GRU, kl.SimpleRNN])
@pytest.mark.parametrize("unroll", [False, True])
def test_dropout_of_recurrent_layers_is_left_out(kind, unroll):
    """Keras draws the seed of its masks in inference, too."""
    inputs = keras.Input((6, 4))
    x = kind(5, dropout=0.2, recurrent_dropout=0.3, unroll=unroll)(inputs)
    model = keras.Model(inputs, kl.Dense(2)(x))
    given = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    seeds = [np.array(v) for v in model.variables if "seed" in v.name]
    received = LiteRtModel(convert(model)).predict(given)
    np.testing.assert_allclose(received, model.predict(given, verbose=0), atol=1e-5)
    assert seeds
    model.compile("sgd", "mse")  # which was not changed: it can be trained as before
    model.fit(given, np.zeros((3, 2)), verbose=0)


def test_a_model_that_keeps_state_is_refused():
    inputs = keras.Input(batch_shape=(1, 6, 4))
    model = keras.Model(inputs, kl.LSTM(5, stateful=True, name="kept")(inputs))
    with pytest.raises(ValueError, match="kept.* changes a variable in inference.*stateful=False"):
        convert(model)
