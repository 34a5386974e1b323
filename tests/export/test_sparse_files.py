"""Weights stored by what is not zero: the same function in fewer bytes."""

import blobs
import keras
import numpy as np
import pytest
import zoo
from keras import layers as kl

import amc_tf
import tflite_tools
from amc_tf.export import exporter as export
from amc_tf.export import standalone
from amc_tf.report import export_table
from amc_tf.runs.result import ExportResult
from tflite_tools import LiteRtModel, convert, flatbuffer, sparse, sparse_weights

NETWORKS = ("residual", "depthwise_multiplier", "two_outputs", "squeeze_excite", "one_dimensional")
FORMATS = (None, "float16", "int8")


def thinned(model, density):
    """The model with its smallest weights zero, in place."""
    for weight in model.weights:
        if len(weight.shape) > 1:
            values = np.array(weight)
            weight.assign(
                np.where(np.abs(values) > np.quantile(np.abs(values), 1 - density), values, 0)
            )
    return model


def samples(x):
    return [x[i : i + 1] for i in range(len(x))]


def unpacked(content, name):
    """A sparse tensor's values at their positions, by the schema's own words."""
    model = flatbuffer.read(content)
    (tensor,) = (t for t in model.subgraphs[0].tensors if t.name == name.encode())
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
    *dense, last = tensor.sparsity.dimMetadata
    assert [d.denseSize for d in dense] == list(tensor.shape[:-1])
    rows = np.zeros((int(np.prod(tensor.shape[:-1])), tensor.shape[-1]), np.float32)
    starts, columns = last.arraySegments.values, last.arrayIndices.values
    for row, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        rows[row, columns[start:end]] = values[start:end]
    return rows.reshape(tensor.shape)


def test_values_and_positions_by_hand():
    inputs = keras.Input((300,))
    layer = kl.Dense(40, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    kernel = np.zeros((300, 40), np.float32)
    kernel[[0, 7, 299], [3, 3, 39]] = (1.5, -2.0, 0.25)
    layer.kernel.assign(kernel)
    content = convert(model, sparse=True)
    (weight,) = sparse_weights(content)
    assert weight.shape == (40, 300) and weight.density == 3 / (40 * 300)
    # Three values of 4 bytes; 41 starts up to 3, a byte each; columns up to 299, two bytes each.
    assert (weight.bytes, weight.dense_bytes) == (3 * 4 + 41 + 3 * 2, 4 * 40 * 300)
    np.testing.assert_array_equal(unpacked(content, weight.name), kernel.T)
    dense = len(convert(model))
    assert len(content) < dense - weight.dense_bytes + weight.bytes + 1000


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_is_the_same(name, monkeypatch):
    """To the bit: what was not stored was zero. Small kernels too, which are left dense else."""
    monkeypatch.setattr(sparse, "_OVERHEAD", 0)
    model = thinned(zoo.build(name), 0.1)
    x = zoo.sample(model, 4)
    # Two outputs, one an image: refused in float, see below.
    for quantize in FORMATS[2:] if name == "two_outputs" else FORMATS:
        given = samples(x) if quantize == "int8" else None
        plain, thin = (convert(model, quantize, given, sparse=s) for s in (False, True))
        assert len(sparse_weights(thin)) >= 1 and not sparse_weights(plain)
        for a, b in zip(
            *(keras.tree.flatten(LiteRtModel(c).predict(x)) for c in (plain, thin)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_what_cannot_be_stored_so_is_refused():
    model = zoo.build("two_outputs")
    x = samples(zoo.sample(model, 4))
    with pytest.raises(ValueError, match="enough zeros.*amc-sparsify"):
        convert(model, sparse=True)
    with pytest.raises(ValueError, match="not for quantize='dynamic': LiteRT does not run"):
        convert(model, "dynamic", sparse=True)
    with pytest.raises(ValueError, match="not for quantize='int8' and keep_float"):
        convert(model, "int8", x, keep_float=("feature",), sparse=True)


def test_images_beside_a_mean_are_not_for_the_sparse_kernels():
    model = thinned(zoo.build("two_outputs"), 0.1)
    with pytest.raises(ValueError, match=r"output of the shape \(1, 6, 6, 4\).*choose 'int8'"):
        convert(model, sparse=True)


@pytest.mark.parametrize("quantize", [None, "float16"])
def test_convolutions_behind_a_global_mean_become_dense_layers(quantize):
    """As in the head of keras.applications' MobileNets."""
    inputs = keras.Input((8, 8, 3))
    x = kl.GlobalAveragePooling2D(keepdims=True)(kl.Conv2D(64, 1)(inputs))
    x = kl.Conv2D(32, 1, activation="relu6", name="head")(x)
    model = thinned(keras.Model(inputs, kl.Reshape((32,))(x)), 0.1)
    content = convert(model, quantize, sparse=True)
    counts = tflite_tools.inspect_file(content).counts
    assert counts["CONV_2D"] == counts["FULLY_CONNECTED"] == 1
    assert (32, 64) in [w.shape for w in sparse_weights(content)]
    images = zoo.sample(model, 3)
    np.testing.assert_allclose(
        LiteRtModel(content).predict(images), model(images), rtol=2e-3, atol=1e-3
    )


def wide():
    x = inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = kl.Conv2D(64, 1, activation="relu")(x)
    return keras.Model(inputs, kl.Dense(4)(kl.Flatten()(x)), name="wide")


def test_sparse_files_are_checked_and_written(tmp_path):
    keras.utils.set_random_seed(0)
    net = wide()
    blobs.compile_model(net)
    net.fit(*blobs.data(400, 0), epochs=3, verbose=0)
    thinned(net, 0.3)
    settings = export.ExportSettings(
        formats=("float32", "float32_sparse", "float16_sparse", "int8", "int8_sparse"),
        latency_rounds=0,
    )
    result = standalone.export_model(net, blobs.task(), tmp_path, settings)
    files = {
        n.removeprefix("model_").removesuffix(".tflite"): f for n, f in result["tflite"].items()
    }
    for name, like in (("float32_sparse", "float32"), ("int8_sparse", "int8")):
        assert files[name]["score"] == files[like]["score"]
        assert files[name]["bytes"] < files[like]["bytes"]
        assert len(files[name]["sparse_weights"]) >= 1 and not files[like]["sparse_weights"]
    # 30 % of 4 bytes and of a position of 1 byte, and what is not a weight.
    assert files["float32_sparse"]["bytes"] < 0.5 * files["float32"]["bytes"]
    assert "weights without their zeros" in export_table.table(
        ExportResult.from_json(result), settings.tolerance
    )


def test_a_dense_network_has_no_sparse_file(tmp_path):
    net = blobs.trained(epochs=1)
    exporter = export.Exporter(net, net, blobs.task(), export.ExportSettings())
    with pytest.raises(amc_tf.AmcError, match="^float32_sparse export: no weight .*amc-sparsify"):
        exporter.write("float32_sparse", tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
    assert tflite_tools.sparse_weights is sparse_weights
