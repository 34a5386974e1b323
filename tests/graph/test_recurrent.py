"""Units of recurrent layers: followed, rebuilt and counted, and what a wrong row does."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.graph import layer_table
from amc_tf.pruning.verification import halved

LAYERS = {
    "LSTM": lambda: kl.LSTM(8, name="units"),
    "LSTM of sequences": lambda: kl.LSTM(8, return_sequences=True, name="units"),
    "backwards, with dropout": lambda: kl.LSTM(
        8, go_backwards=True, dropout=0.2, recurrent_dropout=0.1, name="units"
    ),
    "GRU": lambda: kl.GRU(8, name="units"),
    "GRU of Keras 1": lambda: kl.GRU(8, reset_after=False, use_bias=False, name="units"),
    "SimpleRNN": lambda: kl.SimpleRNN(8, return_sequences=True, name="units"),
}


def _around(layer, steps=7):
    inputs = keras.Input((steps, 4))
    x = layer(kl.Conv1D(6, 3, padding="same", name="before")(inputs))
    if isinstance(x, (list, tuple)):
        x = kl.Concatenate()(list(x))
    x = kl.LSTM(5, name="reader")(x) if len(x.shape) == 3 else x
    model = keras.Model(inputs, kl.Dense(3)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(rng.normal(size=weight.shape) * 0.5)
    return model


def _checked(model, expected):
    graph = amc_tf.analyze(model)
    found = {name: group.channels for name, group in graph.groups.items()}
    assert {name: found[name] for name in expected} == expected
    assert amc_tf.verify(model, graph) < 1e-5
    plan = halved(graph)
    small = amc_tf.rebuild(model, graph, plan)
    assert amc_tf.macs(graph, plan) == amc_tf.macs(amc_tf.analyze(small))
    assert amc_tf.params(graph, plan) == small.count_params()
    return graph, small


@pytest.mark.parametrize("kind", LAYERS)
def test_units_are_pruned_with_all_their_gates(kind):
    graph, small = _checked(_around(LAYERS[kind]()), {"before": 6, "units": 8})
    assert small.get_layer("units").units == 4
    assert not graph.refused
    # The traced computation is a second count of the dense work.
    assert amc_tf.macs(graph) == sum(work.macs for work in graph.trace.work)


CONVOLUTIONAL = {
    "1D": (lambda o: kl.ConvLSTM1D(8, 3, padding="same", name="units", **o), (5, 6, 4)),
    "2D": (lambda o: kl.ConvLSTM2D(8, (3, 2), padding="same", name="units", **o), (5, 4, 3, 4)),
    "3D": (lambda o: kl.ConvLSTM3D(8, 2, padding="same", name="units", **o), (3, 2, 3, 2, 4)),
}


@pytest.mark.parametrize("options", [{}, {"return_sequences": True, "go_backwards": True}])
@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_filters_of_convolutional_cells_are_pruned_with_all_their_gates(kind, options):
    make, shape = CONVOLUTIONAL[kind]
    inputs = keras.Input(shape)
    x = make(options)(kl.Dense(6, name="before")(inputs))
    model = keras.Model(inputs, kl.Dense(3)(kl.Flatten()(x)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.5)
    graph, small = _checked(model, {"before": 6, "units": 8})
    assert small.get_layer("units").filters == 4
    assert not graph.refused
    assert amc_tf.macs(graph) == sum(work.macs for work in graph.trace.work)


@pytest.mark.parametrize("options", [{"padding": "valid"}, {"padding": "same", "strides": 2}])
def test_convolutional_cells_of_other_sizes_stay(options):
    inputs = keras.Input((3, 6, 6, 4))
    x = kl.ConvLSTM2D(4, 3, **options)(kl.Dense(5)(inputs))
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(kl.Flatten()(x))))
    assert [refused.class_name for refused in graph.refused] == ["ConvLSTM2D"]
    assert not graph.groups


@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul"])
@pytest.mark.parametrize("kind", [kl.LSTM, kl.GRU])
def test_both_directions_of_a_bidirectional_layer_are_pruned(merge, kind):
    layer = kl.Bidirectional(kind(5, return_sequences=True, name="of"), merge_mode=merge)
    apart = {"forward_of": 5, "backward_of": 5} if merge == "concat" else {"forward_of": 5}
    graph, _ = _checked(_around(layer), {"before": 6, **apart, "reader": 5})
    assert len(graph.groups) == 2 + len(apart)


def test_returned_states_have_the_units_of_the_outputs():
    layer = kl.LSTM(8, return_state=True, name="units")
    _checked(_around(layer), {"before": 6, "units": 8})


@pytest.mark.parametrize(
    "layer, told",
    [
        (lambda: kl.LSTM(8, stateful=True), "keeps its state"),
        (lambda: kl.LSTM(8, activation="softmax"), "mixes channels"),
        (lambda: kl.GRU(8, recurrent_activation="softmax"), "mixes channels"),
    ],
)
def test_what_ties_units_freezes_them(layer, told):
    inputs = keras.Input(batch_shape=(2, 7, 4))
    model = keras.Model(inputs, kl.Dense(3)(kl.Dense(6)(layer()(inputs))))
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["dense"] or len(graph.groups) == 1
    assert told in amc_tf.describe(graph)


def test_states_that_are_given_freeze_the_layer():
    inputs, state = keras.Input((7, 4)), keras.Input((8,))
    x = kl.GRU(8, name="units")(inputs, initial_state=kl.Dense(8)(state))
    graph = amc_tf.analyze(keras.Model([inputs, state], kl.Dense(3)(x)))
    assert not graph.groups


FAULTS = {
    "gates side by side": lambda roles, gates: {
        **roles,
        "gates": np.repeat(roles["out"], gates),
    },
    "gates the other way round": lambda roles, gates: {**roles, "gates": roles["gates"][::-1]},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_row_is_told(fault, monkeypatch):
    model = _around(kl.LSTM(8, return_sequences=True, name="units"))
    right = layer_table.TABLE[kl.LSTM]

    def connect(*args):
        return FAULTS[fault](right.connect(*args), 4)

    wrong = dataclasses.replace(right, connect=connect)
    monkeypatch.setitem(layer_table.TABLE, kl.LSTM, wrong)
    with pytest.raises(amc_tf.AmcError):
        amc_tf.verify(model, amc_tf.analyze(model))


def test_a_recurrent_kernel_that_is_not_masked_is_told(monkeypatch):
    model = _around(kl.LSTM(8, return_sequences=True, name="units"))
    right = layer_table.TABLE[kl.LSTM]
    wrong = dataclasses.replace(right, mixes={"kernel": "in"})
    monkeypatch.setitem(layer_table.TABLE, kl.LSTM, wrong)
    with pytest.raises(amc_tf.AmcError):
        amc_tf.verify(model, amc_tf.analyze(model))
