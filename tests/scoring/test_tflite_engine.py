"""Files cut out of a template against Keras models rebuilt for the same plans."""

import keras
import numpy as np
import pytest
import zoo
from ai_edge_litert.interpreter import Interpreter
from keras import layers as kl
from plans import changed_weights, random_plan

import amc_tf
from amc_tf.scoring.batch_norm_folding import NotCarriedError, fold
from amc_tf.scoring.tflite_engine import LiteEngine


def _engine(graph, **options):
    folding = fold(graph)
    return folding, LiteEngine(folding.graph, fixed=folding.fixed, num_threads=1, **options)


def _close(received, expected):
    for a, b in zip(received, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize(
    "name",
    [
        "residual",
        "residual_operators",
        "zero_padded_shortcut",
        "depthwise_multiplier",
        "concatenated",
        "squeeze_excite",
        "sliced",
        "reshaped",
        "shared_layers",
        "two_outputs",
        "one_dimensional",
        "grouped",
        "unlisted_in_the_middle",
    ],
)
def test_a_plans_file_computes_what_the_rebuilt_model_does(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    folding, engine = _engine(graph, batch_size=3)
    inputs = zoo.sample(model, batch=7)
    arrays = inputs if isinstance(inputs, list) else [inputs]
    _close(engine.network(None)(arrays), zoo.outputs(model, inputs))
    for seed in range(3):
        plan, weights = random_plan(graph, seed), changed_weights(graph, seed)
        expected = zoo.outputs(amc_tf.rebuild(model, graph, plan, weights), inputs)
        _close(engine.network(plan, folding.weights(weights))(arrays), expected)


def test_a_file_holds_the_pruned_widths_and_no_more_weights():
    model = zoo.build("plain")
    graph = amc_tf.analyze(model)
    _, engine = _engine(graph, batch_size=2)
    plan = amc_tf.PruningPlan({name: [0, 1] for name in graph.groups})
    file = engine.file(plan)
    interpreter = Interpreter(model_content=file)
    shapes = [d["shape"].tolist() for d in interpreter.get_tensor_details()]
    assert [2, 3, 3, 2] in shapes  # the second and third kernels: out, height, width, in
    assert [5, 2] in shapes  # the Dense kernel: out, in
    assert not any(4 in s or 6 in s[-1:] for s in shapes if len(s) == 4 and s[0] != 2)
    # 2 * 27 + 2, twice 2 * 18 + 2, and 5 * 2 + 5 weights: far less than the dense ones.
    assert amc_tf.params(graph, plan) == 147
    assert len(engine.file(None)) - len(file) > 4 * (amc_tf.params(graph) - 147) - 8 * 64


def test_groups_of_two_channels_do_not_hide_in_which_order_axes_lie():
    """A kernel seen only as 1 x 2 and 2 x 1 could be transposed or not."""
    inputs = keras.Input((4, 4, 3))
    x = kl.Conv2D(2, 1, name="a")(inputs)
    x = y = kl.Conv2D(2, 1, name="b")(x)
    x = kl.Conv2D(2, 1, name="c")(x)
    ends = [kl.Dense(4)(kl.GlobalMaxPooling2D()(v)) for v in (x, y)]
    model = keras.Model(inputs, ends)
    graph = amc_tf.analyze(model)
    images = zoo.sample(model, batch=4)
    for seed in range(2):
        _, engine = _engine(graph, batch_size=4, seed=seed)
        _close(engine.network(None)([images]), zoo.outputs(model, images))


def test_linear_operations_in_a_row_are_not_merged():
    inputs = keras.Input((6,))
    x = kl.Dense(5, activation="relu")(kl.Rescaling(0.3)(inputs))
    x = kl.Dropout(0.5)(kl.BatchNormalization()(x))
    x = keras.ops.multiply(kl.Dense(4)(x), 0.7)
    model = keras.Model(inputs, kl.Dense(3)(kl.Dense(4)(x)))
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    graph = amc_tf.analyze(model)
    _, engine = _engine(graph, batch_size=4)
    plan = random_plan(graph, 3)
    images = zoo.sample(model, batch=4)
    _close(engine.network(plan)([images]), zoo.outputs(amc_tf.rebuild(model, graph, plan), images))


@pytest.mark.parametrize(
    "name, reason", [("recurrent", "control flow"), ("volumes", "cannot be converted")]
)
def test_what_cannot_be_cut_is_refused_with_the_reason(name, reason):
    with pytest.raises(NotCarriedError, match=reason):
        _engine(amc_tf.analyze(zoo.build(name)), batch_size=2)


def test_an_unfolded_batch_norm_is_refused():
    graph = amc_tf.analyze(zoo.build("residual"))
    with pytest.raises(NotCarriedError, match="batch_normalization.* is not copied"):
        LiteEngine(graph, batch_size=2)


def test_a_weight_that_no_plan_changes_cannot_be_replaced():
    graph = amc_tf.analyze(zoo.build("plain"))
    _, engine = _engine(graph, batch_size=2)
    with pytest.raises(amc_tf.AmcError, match="'nowhere/kernel' was not expected to change"):
        engine.file(None, {"nowhere/kernel": np.zeros(3)})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_every_model_of_the_zoo_is_carried_rightly_or_refused(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    refused = {
        "volumes",  # no 3-D pooling in TFLite
        "split_and_stacked",
        "recurrent",
        "mixed_precision",  # no float16 convolutions
    }
    try:
        folding, engine = _engine(graph, batch_size=2)
    except NotCarriedError:
        assert name in refused
        return
    assert name not in refused
    inputs = zoo.sample(model, batch=3)
    plan = random_plan(graph, 0)
    expected = zoo.outputs(amc_tf.rebuild(model, graph, plan), inputs)
    _close(engine.network(plan)(inputs if isinstance(inputs, list) else [inputs]), expected)
