"""Networks that are hard to quantise: every file runs by both kinds of kernels, and is right."""

import functools

import hostile
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers as kl

import tflite_tools
from tflite_tools import LiteRtModel, convert, flatbuffer, ranges
from tflite_tools.running import KERNELS, require_runs

case_of = functools.cache(hostile.build)
# A few layers with a rounding of one in 255 each, and a sum that cancels.
TOLERANCE = 0.02
# Attention multiplies quiet rows by loud ones in int8, and the scores are means over all rows.
OF_ATTENTION = 0.15


@functools.cache
def file_of(name, quantize):
    case = case_of(name)
    return convert(case.model, quantize, case.samples)


@pytest.mark.parametrize("quantize", ["int8_float_io", "int16x8"])
@pytest.mark.parametrize("name", hostile.CASES)
def test_both_kinds_of_kernels_run_every_file_and_are_near_keras(name, quantize):
    case, content = case_of(name), file_of(name, quantize)
    expected = case.outputs[0]
    attention = name == "transformer" and quantize != "int16x8"
    allowed = OF_ATTENTION if attention else TOLERANCE
    for kernels in KERNELS.values():
        received, _ = hostile.run(content, case.samples, kernels)
        assert np.abs(received - expected).max() <= allowed * np.ptp(expected)


def _factors(content):
    """Yields `scale of the input * largest scale of the weights / scale of the output`."""
    model = flatbuffer.read(content)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            if code in (
                schema.BuiltinOperator.CONV_2D,
                schema.BuiltinOperator.DEPTHWISE_CONV_2D,
                schema.BuiltinOperator.FULLY_CONNECTED,
            ):
                read, weights = (graph.tensors[i].quantization for i in operator.inputs[:2])
                made = graph.tensors[operator.outputs[0]].quantization
                yield read.scale[0] * max(weights.scale) / made.scale[0]


@pytest.mark.parametrize("name", [name for name in hostile.CASES if name.startswith("dead")])
def test_dead_layers_have_scales_that_kernels_take(name):
    factors = list(_factors(file_of(name, "int8_float_io")))
    # TensorFlow's quantiser rounds zero points, and with them scales, by up to a part in 255.
    assert factors and max(factors) <= ranges.GREATEST_FACTOR * 1.01


def test_ranges_that_need_no_mending_stay_as_they_are():
    interpreter = tflite_tools.convert(case_of("mixed signs").model)
    assert ranges.widened(interpreter) is interpreter


def test_a_file_that_litert_refuses_is_not_handed_out():
    content = file_of("mixed signs", "int8_float_io")
    assert require_runs(content) is content
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    first = next(
        o
        for o in graph.operators
        if model.operatorCodes[o.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D
    )
    graph.tensors[first.outputs[0]].quantization.scale = np.array([1e-9], np.float32)
    layer = flatbuffer.text(graph.tensors[first.outputs[0]].name).split(";")[0]
    told = f"default kernels .XNNPACK. refuse it at '{layer}': .*keep_float"
    with pytest.raises(ValueError, match=told):
        require_runs(flatbuffer.write(model))


def test_a_file_with_a_clipped_bias_is_not_handed_out():
    model = flatbuffer.read(file_of("huge biases", "int8_float_io"))
    bias = next(
        t
        for t in model.subgraphs[0].tensors
        if t.type == schema.TensorType.INT32 and "shifted" in flatbuffer.text(t.name)
    )
    values = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32).copy()
    values[1] = np.iinfo(np.int32).min
    model.buffers[bias.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    with pytest.raises(ValueError, match="1 of 8 biases of .*shifted.* do not fit into 32 bits"):
        require_runs(flatbuffer.write(model))


@pytest.mark.parametrize("keep_float", [(), ("after",)])
def test_no_bias_of_a_zero_filter_overflows(keep_float):
    case = case_of("zero filters")
    content = convert(case.model, "int8_float_io", case.samples, keep_float=keep_float)
    model = flatbuffer.read(content)
    biases = [
        np.frombuffer(bytes(model.buffers[t.buffer].data), np.int32)
        for t in model.subgraphs[0].tensors
        if t.type == schema.TensorType.INT32 and t.quantization and t.quantization.scale is not None
    ]
    assert biases and all(np.abs(b.astype(np.int64)).max() < 2**31 - 1 for b in biases)
    expected, received = case.outputs[0], LiteRtModel(content).predict(case.inputs[0])
    assert np.abs(received - expected).max() <= TOLERANCE * np.ptp(expected)


def _float_layers(content):
    operators = tflite_tools.inspect_file(content).float_operators
    return {o.output.split("/")[1].rpartition("_")[0] for o in operators}


def _normalised(sizes, normalisation):
    """A network that normalises rows of given sizes, and inputs of it."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((len(sizes), 12))
    mixed = kl.Dense(24, name="mixed", use_bias=False)(inputs)
    rows = normalisation(mixed)
    model = keras.Model(inputs, kl.Dense(4, name="scores")(rows))
    rng = np.random.default_rng(2)
    x = rng.normal(size=(24, len(sizes), 12)) * np.reshape(sizes, (1, -1, 1))
    return model, x.astype(np.float32)


LOUD_AND_QUIET = np.geomspace(0.03, 3.0, 16)
NORMALISATIONS = {
    "layer": lambda: kl.LayerNormalization(name="norm"),
    "rms": lambda: kl.RMSNormalization(name="norm"),
    "group": lambda: kl.GroupNormalization(3, axis=-1, name="norm"),
}


@pytest.mark.parametrize("quantize", ["int8_float_io", "int16x8"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_quiet_rows_are_right(kind, quantize):
    model, x = _normalised(LOUD_AND_QUIET, NORMALISATIONS[kind]())
    content = convert(model, quantize, list(x[:, None]))
    expected, received = model.predict(x, verbose=0), LiteRtModel(content).predict(x)
    of_rows = np.linalg.norm(received - expected, axis=(0, 2))
    assert (of_rows / np.linalg.norm(expected, axis=(0, 2))).max() < 0.05
    assert "norm" in _float_layers(content) and "scores" not in _float_layers(content)


def test_sparse_integer_files_have_no_float_layers_beside_them():
    model, x = _normalised(LOUD_AND_QUIET, NORMALISATIONS["layer"]())
    with pytest.raises(ValueError, match="rows of very different size.*'float16'"):
        convert(model, "int8", list(x[:, None]), sparse=True)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_rows_of_one_size_are_normalised_in_integers(kind):
    model, x = _normalised(np.ones(16), NORMALISATIONS[kind]())
    content = convert(model, "int8_float_io", list(x[:, None]))
    kinds = {o.kind for o in tflite_tools.inspect_file(content).float_operators}
    assert kinds <= {"NEG", "SQUARE"}  # which have no integer form


def test_depthwise_layers_of_dynamic_files_stay_float():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 16, 128))
    features = kl.DepthwiseConv2D(3, padding="same", name="deep")(inputs)
    model = keras.Model(inputs, kl.Conv2D(64, 1, name="mixed")(features))
    x = np.random.default_rng(3).normal(size=(4, 16, 16, 128)).astype(np.float32)
    content = convert(model, "dynamic")
    graph = flatbuffer.read(content).subgraphs[0]
    kinds = {tuple(t.shape): t.type for t in graph.tensors if t.shape is not None}
    assert kinds[1, 3, 3, 128] == schema.TensorType.FLOAT32
    assert kinds[64, 1, 1, 128] == schema.TensorType.INT8
    alone = keras.Model(inputs, features)
    received = LiteRtModel(convert(alone, "dynamic")).predict(x)
    np.testing.assert_allclose(received, alone.predict(x, verbose=0), atol=1e-5)


def test_the_cause_comes_first_among_the_worst_tensors():
    """One channel is a thousand times as large as the others, which a later layer enlarges."""
    keras.utils.set_random_seed(4)
    factors = np.array([1000.0] + [1.0] * 7, np.float32)
    inputs = keras.Input((8, 8, 3))
    wide = kl.Conv2D(8, 1, name="wide", activation="relu")(inputs)
    even = kl.DepthwiseConv2D(1, name="even", activation="relu")(wide)
    model = keras.Model(inputs, kl.Conv2D(4, 3, name="last")(even))
    layer = model.get_layer("wide")
    layer.set_weights([w * factors for w in layer.get_weights()])
    model.get_layer("even").set_weights([1 / factors.reshape(1, 1, 8, 1), np.zeros(8)])
    x = np.random.default_rng(4).uniform(size=(16, 8, 8, 3)).astype(np.float32)
    samples = [[a[None]] for a in x]
    content = convert(model, "int8", samples)
    worst = tflite_tools.worst_tensors(content, convert(model), samples)
    assert "/wide_" in worst[0].name
    assert worst[0].added > 0.5 > 0.05 > worst[0].relative_rms
