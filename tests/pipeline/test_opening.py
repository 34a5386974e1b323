"""What a run tells before its work."""

import keras
import pytest
from keras import layers as kl

import amc_tf
from amc_tf import story
from amc_tf.pipeline.opening import tell_opening
from amc_tf.runs.workdir import Workdir
from amc_tf.search.problem import problem_of


@pytest.fixture(scope="module")
def model():
    """Two Dense layers of 16 channels before one of 4: 8 * 16 + 16 * 16 + 16 * 4 = 448 MACs."""
    inputs = keras.Input((8,))
    x = kl.Dense(16, "relu", name="first")(inputs)
    x = kl.Dense(16, "relu", name="second")(x)
    return keras.Model(inputs, kl.Dense(4, name="last")(x), name="net")


def told(model, tmp_path, capsys, budget, settings, trains=True):
    graph = amc_tf.analyze(model)
    with story.told(True):
        tell_opening(
            graph, problem_of(graph, settings, budget), budget, Workdir(tmp_path), settings, trains
        )
    return capsys.readouterr().out.splitlines()


def test_the_model_and_the_budget(model, tmp_path, capsys):
    settings = amc_tf.SearchSettings(rounding=4, min_preserve=0.25)
    budget = amc_tf.Budget(macs=0.5, latency=0.4)
    # Of 448 + 36 biases 224; with 4 channels each, 8 * 4 + 4 * 4 + 4 * 4 = 64 are left.
    assert told(model, tmp_path, capsys, budget, settings) == [
        f"net: 2 groups of channels to prune; 448 MACs, 484 parameters; results in {tmp_path}",
        "budget: at most 224 MACs, 50.0% of dense (the smallest network of the search has 14.3%); "
        "latency at most 40.0% of dense",
    ]


def test_what_was_chosen(model, tmp_path, capsys):
    lines = told(model, tmp_path, capsys, amc_tf.Budget(latency_ms=2.5), amc_tf.SearchSettings())
    what = "channel counts are multiples of 4 (2 groups); at least 25% of a group is kept"
    assert lines[1] == what
    assert lines[2] == "budget: latency at most 2.5 ms"


def test_frozen_layers(model, tmp_path, capsys):
    frozen = keras.models.clone_model(model)
    frozen.get_layer("second").trainable = False
    settings = amc_tf.SearchSettings(rounding=4, min_preserve=0.25)
    warning = [
        line
        for trains in (True, False)
        for line in told(frozen, tmp_path, capsys, None, settings, trains)
        if line.startswith("warning")
    ]
    assert len(warning) == 1 and warning[0].startswith("warning: 1 layers are frozen")
    assert "'second'" in warning[0]
