"""Biases of int8 files: what rounding shifted on average is taken back."""

import blobs
import keras
import numpy as np
import zoo
from keras import layers as kl

import tflite_tools
from amc_tf.export import exporter
from tflite_tools import LiteRtModel, convert, correct_biases, flatbuffer


def samples(x):
    return [[x[i : i + 1]] for i in range(len(x))]


def test_shifted_biases_are_found_again():
    """One bias is made wrong by 8 of its layer's 256 steps; more would be cut off by the range."""
    inputs = keras.Input((8, 8, 3))
    x = kl.DepthwiseConv2D(3, name="second")(kl.Conv2D(8, 3, name="first")(inputs))
    model = keras.Model(inputs, kl.Dense(5)(kl.GlobalAveragePooling2D()(x)))
    x = zoo.sample(model, 16)
    given = samples(x)
    reference, content = convert(model), convert(model, "int8", given)
    wrong = flatbuffer.read(content)
    graph = wrong.subgraphs[0]
    (spoilt,) = (o for o in graph.operators if "second" in _output(graph, o))
    scale = float(graph.tensors[int(spoilt.outputs[0])].quantization.scale[0])
    bias = graph.tensors[int(spoilt.inputs[2])]
    steps = (8 * scale / np.asarray(bias.quantization.scale)).astype(np.int32)
    values = np.frombuffer(bytes(wrong.buffers[bias.buffer].data), np.int32) + steps
    wrong.buffers[bias.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    expected = np.asarray(model(x))

    def error(file):
        return float(np.sqrt(np.mean((LiteRtModel(file).predict(x) - expected) ** 2)))

    corrected = correct_biases(flatbuffer.write(wrong), reference, given)
    assert error(flatbuffer.write(wrong)) > 3 * error(content)
    assert error(corrected) < 1.5 * error(content)
    assert len(corrected) < len(content) + 1000


def test_a_correction_beyond_the_range_ends_at_its_limits():
    """The mean in the float file is 1e6 away: at least 1e9 steps more than 32 bits hold."""
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, use_bias=True, name="first")(inputs)
    model = keras.Model(inputs, kl.Dense(5)(kl.GlobalAveragePooling2D()(x)))
    x = zoo.sample(model, 8)
    layer = model.get_layer("first")
    layer.bias.assign([0.1, 0.2, 0.3, 0.4])
    content = convert(model, "int8", samples(x))
    layer.set_weights([layer.get_weights()[0], np.array([1e6, -1e6, np.nan, 0.0], np.float32)])
    reference = _float_file(model, layer)
    graph_of = flatbuffer.read(correct_biases(content, reference, samples(x)))
    corrected = _biases(graph_of, "first")
    assert corrected[0] == 2**31 - 1 and corrected[1] == -(2**31)
    assert corrected[2] == _biases(flatbuffer.read(content), "first")[2]
    assert abs(int(corrected[3])) < 2**24  # its mean moved by 0.4 only


def _float_file(model, layer):
    """The float file of a model with a bias that `convert` would refuse."""
    wanted = layer.get_weights()[1]
    layer.set_weights([layer.get_weights()[0], np.arange(1.0, 5.0, dtype=np.float32)])
    file = flatbuffer.read(convert(model))
    graph = file.subgraphs[0]
    (operator,) = (o for o in graph.operators if "first" in _output(graph, o))
    buffer = file.buffers[graph.tensors[int(operator.inputs[2])].buffer]
    assert np.frombuffer(bytes(buffer.data), np.float32).tolist() == [1.0, 2.0, 3.0, 4.0]
    buffer.data = np.frombuffer(wanted.tobytes(), np.uint8)
    return flatbuffer.write(file)


def _biases(file, name):
    graph = file.subgraphs[0]
    (operator,) = (o for o in graph.operators if name in _output(graph, o))
    tensor = graph.tensors[int(operator.inputs[2])]
    return np.frombuffer(bytes(file.buffers[tensor.buffer].data), np.int32)


def _output(graph, operator):
    return flatbuffer.text(graph.tensors[int(operator.outputs[0])].name)


def test_means_of_a_right_file_hardly_move():
    model = zoo.build("residual")
    x = zoo.sample(model, 16)
    reference, content = convert(model), convert(model, "int8", samples(x))
    corrected = correct_biases(content, reference, samples(x))
    wanted = LiteRtModel(reference).predict(x).mean(0)
    before, after = (
        np.abs(LiteRtModel(c).predict(x).mean(0) - wanted).max() for c in (content, corrected)
    )
    step = LiteRtModel(content).output_details[0]["quantization"][0]
    assert after <= before + step


def test_an_export_may_correct_them(tmp_path):
    net = blobs.trained()
    settings = exporter.ExportSettings(bias_samples=16)
    told = exporter.Exporter(net, net, blobs.task(), settings).write("int8", tmp_path / "a.tflite")
    plain = exporter.Exporter(net, net, blobs.task(), exporter.ExportSettings()).write(
        "int8", tmp_path / "b.tflite"
    )
    assert (tmp_path / "a.tflite").read_bytes() != (tmp_path / "b.tflite").read_bytes()
    assert told.score >= plain.score - 0.005
    assert tflite_tools.inspect_file((tmp_path / "a.tflite").read_bytes()).float_operators == ()


def _readers_of_one_gain():
    """The converter folds the gain into all three kernels, and names all three by it."""
    inputs = keras.Input((6, 24))
    x = kl.RMSNormalization()(inputs)
    outputs = [kl.Dense(8, name=name)(x) for name in ("query", "key", "value")]
    model = keras.Model(inputs, kl.Concatenate()(outputs))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(1.0, 0.5, weight.shape))
    return model


def test_layers_that_share_a_name_are_corrected_by_their_own_means():
    model = _readers_of_one_gain()
    x = np.random.default_rng(1).normal(size=(16, 6, 24)).astype("float32")
    reference, content = convert(model), convert(model, "int8_float_io", samples(x))
    kernels = [
        name
        for graph in flatbuffer.read(reference).subgraphs
        for operator in graph.operators
        if "query" in (name := _output(graph, operator)) or "key" in name or "value" in name
    ]
    assert len({name.split(";")[0] for name in kernels}) < len(kernels)  # they do share it
    expected = np.asarray(model(x))

    def shift(file):
        found = LiteRtModel(file).predict(x) - expected
        return np.abs(found.mean(axis=(0, 1))).max() / np.ptp(expected)

    assert shift(correct_biases(content, reference, samples(x))) < 0.01


def test_the_worst_tensors_of_layers_that_share_a_name_are_told_apart():
    model = _readers_of_one_gain()
    x = np.random.default_rng(1).normal(size=(4, 6, 24)).astype("float32")
    reference, content = convert(model), convert(model, "int8_float_io", samples(x))
    worst = tflite_tools.worst_tensors(content, reference, samples(x), 20)
    names = [error.name for error in worst]
    assert len(names) == len(set(names))
    assert all(any(part in name for name in names) for part in ("query", "key", "value"))
