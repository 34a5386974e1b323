"""Models of open input sizes: for which size their work is counted."""

import json

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import amc_tf
import tflite_tools


def backbone(shape):
    x = inputs = keras.Input(shape)
    x = kl.Conv2D(6, 3, padding="same", activation="relu", name="first")(x)
    x = kl.MaxPooling2D()(x)
    x = kl.Conv2D(4, 3, padding="same", activation="relu", name="second")(x)
    return keras.Model(inputs, x, name="backbone")


def open_model():
    x = backbone((None, None, 3))
    return keras.Model(x.inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x.outputs[0])))


def macs_at(height, width):
    return height * width * 9 * 3 * 6 + (height // 2) * (width // 2) * 9 * 6 * 4 + 4 * 4


def test_a_backbone_of_open_size_takes_the_size_of_the_model_around_it():
    inner, inputs = backbone((None, None, 3)), keras.Input((10, 8, 3))
    x = kl.Flatten()(inner(inputs))
    model = keras.Model(inputs, kl.Dense(4)(x))
    graph = amc_tf.analyze(model)
    assert amc_tf.macs(graph) == macs_at(10, 8) - 4 * 4 + 5 * 4 * 4 * 4
    # The Flatten after the backbone is followed, which needs the backbone's size.
    assert list(graph.groups) == ["first", "second"] and not graph.refused
    assert amc_tf.verify(model, graph) < 1e-5
    again = amc_tf.analyze(amc_tf.rebuild(model, graph, None))
    assert amc_tf.macs(again) == amc_tf.macs(graph)


def test_a_nested_model_within_a_nested_model_takes_its_size_too():
    middle_in = keras.Input((None, None, 3))
    middle = keras.Model(middle_in, backbone((None, None, 3))(middle_in) * 2)
    inputs = keras.Input((10, 8, 3))
    x = ops.reshape(middle(inputs), (-1, 5 * 4 * 4))
    graph = amc_tf.analyze(keras.Model(inputs, x))
    shapes = [graph.network.tensors[n].shape for c in graph.network.calls for n in c.outputs]
    assert shapes[0] == (None, 10, 8, 6) and shapes[2] == (None, 5, 4, 4)


def test_the_size_may_be_given_and_the_input_stays_open():
    model = open_model()
    graph = amc_tf.analyze(model, input_shape=(10, 8, 3))
    assert amc_tf.macs(graph) == macs_at(10, 8)
    assert amc_tf.rebuild(model, graph, None).input_shape == (None, None, None, 3)
    assert "MACs for 10 x 8 x 3 (" in amc_tf.describe(graph)


def test_without_a_size_both_remedies_are_told():
    graph = amc_tf.analyze(open_model())
    with pytest.raises(amc_tf.AmcError, match=r"input_shape=\(224.*fixed input size"):
        amc_tf.macs(graph)
    assert "MACs unknown" in amc_tf.describe(graph)


def test_several_inputs_are_named_or_in_order():
    image, meta = keras.Input((None, None, 3), name="image"), keras.Input((7,), name="meta")
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, padding="same")(image))
    model = keras.Model([image, meta], kl.Dense(2)(ops.concatenate([x, meta], axis=-1)))
    expected = 10 * 8 * 9 * 3 * 4 + 11 * 2
    for shape in ({"image": (10, 8, 3)}, [(10, 8, 3), (7,)]):
        assert amc_tf.macs(amc_tf.analyze(model, input_shape=shape)) == expected
    for wrong in (
        (10, 8, 3),
        {"picture": (10, 8, 3)},
        [(10, 8, 3), (6,)],
        [(10, 8), (7,)],
        {"image": (10, 0, 3)},
        {"image": (10, 8.0, 3)},
    ):
        with pytest.raises(amc_tf.AmcError, match="input_shape: expected"):
            amc_tf.analyze(model, input_shape=wrong)


@pytest.mark.slow
def test_a_search_counts_for_the_size_of_the_validation_data(tmp_path):
    model = open_model()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 10, 8, 3)).astype("float32"), rng.integers(0, 4, 24)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"])
    settings = amc_tf.Settings(
        rehearse=False,
        search=amc_tf.SearchSettings(
            episodes=3, rounding=1, refit="dense", final_refit="dense", policies=("amc",)
        ),
        finetune=amc_tf.FineTuneSettings(compare=()),
        export=amc_tf.ExportSettings(
            formats=("float32",), latency_rounds=1, latency_runs=5, latency_min_secs=0.02
        ),
    )
    task = amc_tf.Task(train=(x, y), validation=(x, y), calibration_size=8)
    amc_tf.compress(model, task, amc_tf.Budget(macs=0.5), tmp_path, settings)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["input_shapes"] == [[10, 8, 3]]
    assert result["dense"]["macs"] == macs_at(10, 8)
    assert result["pruned"]["macs"] <= macs_at(10, 8) // 2
    tuned = keras.models.load_model(tmp_path / "finetuned.keras")
    assert tuned.input_shape == (None, None, None, 3)
    file = tflite_tools.LiteRtModel((tmp_path / "model_float32.tflite").read_bytes())
    np.testing.assert_allclose(file.predict(x), tuned.predict(x, verbose=0), atol=1e-4)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["search"]["input_shape"] == []
