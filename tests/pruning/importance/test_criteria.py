"""Which channels count: numbers by hand, and what every criterion must respect."""

import json

import blobs
import keras
import marks
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance.criteria import IMPORTANCES, taylor
from amc_tf.pruning.weights import mixing_weights, numpy_of


def _scores(criterion, model, task=None):
    (scores,) = IMPORTANCES[criterion](amc_tf.analyze(model), task).values()
    assert scores.dtype == np.float64
    return scores


def _two_layers(**options):
    """Three channels with the filters (3, 4), (0, 1), (-3, -4), read by the rows 1, -2, 3."""
    x = inputs = keras.Input((2,))
    a = kl.Dense(3, use_bias=False, name="a", **options)
    norm = kl.BatchNormalization(name="norm")
    b = kl.Dense(1, use_bias=False, name="b", **options)
    model = keras.Model(inputs, b(norm(a(x))))
    a.kernel.assign([[3, 0, -3], [4, 1, -4]])
    norm.gamma.assign([0.5, -2, 0.5])
    b.kernel.assign([[1], [-2], [3]])
    return model


@pytest.mark.parametrize(
    "criterion, by_hand",
    [
        ("consumer_magnitude", [1, 2, 3]),
        ("producer_l1", [7, 1, 7]),
        ("producer_l2", [5, 1, 5]),
        ("batch_norm_scale", [0.5, 2, 0.5]),
        # Distances: 18**.5 from the first to the second, 10 to the third, 34**.5 between these.
        ("geometric_median", [18**0.5 + 10, 18**0.5 + 34**0.5, 10 + 34**0.5]),
    ],
)
def test_one_layer_each_way_by_hand(criterion, by_hand):
    scores = _scores(criterion, _two_layers())
    np.testing.assert_allclose(scores, np.array(by_hand) / np.mean(by_hand))


def test_layers_that_share_a_group_have_the_same_say():
    """Producers, depthwise layers, batch norms: each is divided by its mean, then added."""
    x = inputs = keras.Input((2, 2, 1))
    a, b = (kl.Conv2D(2, 1, use_bias=False) for _ in range(2))
    depthwise = kl.DepthwiseConv2D(1, depth_multiplier=2, use_bias=False)
    norms = [kl.BatchNormalization(), kl.BatchNormalization()]
    y = norms[1](depthwise(kl.Add()([norms[0](a(x)), b(x)])))
    model = keras.Model(inputs, kl.Conv2D(1, 1)(y))
    a.kernel.assign(np.reshape([1, -3], a.kernel.shape))
    b.kernel.assign(np.reshape([-30, 10], b.kernel.shape))
    depthwise.kernel.assign(np.reshape([4, -3, 1, 0], depthwise.kernel.shape))
    norms[0].gamma.assign([1, 3])
    norms[1].gamma.assign([1, 1, 2, 4])  # two positions for each channel
    # a: 1 and 3, mean 2. b: 30 and 10, mean 20. depthwise: 7 and 1 (L2: 5 and 1), means 4 and 3.
    added = np.array([1 / 2 + 30 / 20, 3 / 2 + 10 / 20])
    np.testing.assert_allclose(_scores("producer_l1", model), added + [7 / 4, 1 / 4])
    np.testing.assert_allclose(_scores("producer_l2", model), added + [5 / 3, 1 / 3])
    expected = np.array([1 / 2, 3 / 2]) + np.array([1 + 1, 2 + 4]) / 2
    np.testing.assert_allclose(_scores("batch_norm_scale", model), expected)


def test_positions_after_flatten_are_added():
    x = inputs = keras.Input((2, 1))
    conv, dense = kl.Conv1D(2, 1), kl.Dense(1)
    norm = kl.BatchNormalization()
    model = keras.Model(inputs, dense(norm(kl.Flatten()(conv(x)))))
    dense.kernel.assign([[1], [2], [-3], [4]])
    norm.gamma.assign([1, 0, 1, 2])
    np.testing.assert_allclose(_scores("consumer_magnitude", model), [4 / 2.5, 6 / 2.5])
    np.testing.assert_allclose(_scores("batch_norm_scale", model), [2, 2])


@pytest.mark.parametrize("name", ["plain", "without gamma"])
def test_groups_without_a_gamma_are_ranked_by_their_consumers(name):
    if name == "plain":
        model = zoo.build("plain")
    else:
        x = inputs = keras.Input((3,))
        y = kl.BatchNormalization(scale=False)(kl.Dense(4)(x))
        model = keras.Model(inputs, kl.Dense(2)(y))
    graph = amc_tf.analyze(model)
    consumers = IMPORTANCES["consumer_magnitude"](graph, None)
    for group, scores in IMPORTANCES["batch_norm_scale"](graph, None).items():
        np.testing.assert_array_equal(scores, consumers[group])


def test_an_equal_filter_is_the_first_to_go_and_zeros_before_it():
    x = inputs = keras.Input((2,))
    dense = kl.Dense(4, use_bias=False)
    model = keras.Model(inputs, kl.Dense(1)(dense(x)))
    # By distances alone the zeros, far from all, would be the most important.
    dense.kernel.assign([[9, 9, 0, 10], [1, 1, 0, 0]])
    scores = _scores("geometric_median", model)
    assert scores[2] == 0
    far = 82**0.5
    np.testing.assert_allclose(
        scores / scores[0], np.array([1, 1, 0, (2 * 2**0.5 + 10) / (2**0.5 + far)]), rtol=1e-6
    )


# --- the loss --------------------------------------------------------------------------------


def _linear(**options):
    """y = 1 * (3 a + 4 b) - 2 * b + 3 * (-3 a - 4 b): no batch norm in between."""
    x = inputs = keras.Input((2,))
    a = kl.Dense(3, use_bias=False, name="a", **options)
    b = kl.Dense(1, use_bias=False, name="b", **options)
    model = keras.Model(inputs, b(a(x)))
    a.kernel.assign([[3, 0, -3], [4, 1, -4]])
    b.kernel.assign([[1], [-2], [3]])
    return model


def _squares(model):
    model.compile("sgd", "mse")


def _task(x, y, **changes):
    data = np.array(x, "float32"), np.array(y, "float32")
    return amc_tf.Task(train=data, validation=None, compile=_squares, **changes)


# For the input (1, 2): channels 11, 2, -11, contributions to the output 11, -4, -33: y = -26.
CONTRIBUTIONS = np.array([11, 4, 33])


def test_taylor_by_hand():
    # The loss is (y - 1)**2; a gate's gradient is 2 * (y - 1) times the channel's contribution.
    scores = _scores("taylor", _linear(), _task([[1, 2]], [[1]]))
    np.testing.assert_allclose(scores, 2 * 27 * CONTRIBUTIONS, rtol=1e-6)


def test_taylor_takes_magnitudes_before_it_averages():
    """32 examples and one more, whose gradients cancel as at the end of a training."""
    task = _task([[1, 2]] * 33, [[-27]] * 32 + [[-26 + 32]])  # errors: 1, and -32
    model = _linear()
    scores = _scores("taylor", model, task)
    np.testing.assert_allclose(scores, (32 * 2 + 64) * CONTRIBUTIONS / 33, rtol=1e-5)
    # Of two examples, the first and the last.
    few = _task(*task.train, calibration_size=2)
    np.testing.assert_allclose(
        _scores("taylor", model, few), abs(1 - 32) * CONTRIBUTIONS, rtol=1e-5
    )


def test_taylor_weights_examples_and_leaves_out_penalties():
    model = _linear(kernel_regularizer=keras.regularizers.L2(10.0))
    model.trainable = False
    x, y = np.array([[1, 2], [1, 2]], "float32"), np.array([[1], [5]], "float32")
    task = amc_tf.Task(train=(x, y, np.array([2, 0], "float32")), validation=None, compile=_squares)
    # The mean over two examples of 2 * 27**2 and 0.
    np.testing.assert_allclose(_scores("taylor", model, task), 54 * CONTRIBUTIONS, rtol=1e-6)


def test_taylor_is_the_slope_of_the_loss():
    """Against finite differences: all readers of one channel scaled by 1 - h and 1 + h."""
    for name in ("residual", "shared_layers", "grouped"):
        model = zoo.build(name)
        graph = amc_tf.analyze(model)
        x = zoo.sample(model, 4)
        (y,) = zoo.outputs(model, x)
        y = y + np.random.default_rng(1).normal(0, 1, y.shape).astype("float32")
        task = amc_tf.Task(train=(x, y), validation=None, compile=_squares)
        found = taylor(graph, task)
        dense = {key: numpy_of(weight) for key, weight, *_ in _readers(graph)}

        def loss(member, factor, model=model, graph=graph, x=x, y=y, dense=dense):
            for key, weight, axis, classes in _readers(graph):
                scale = np.where(np.isin(classes, member), factor, 1)
                shape = [-1 if i == axis else 1 for i in range(len(weight.shape))]
                weight.assign(dense[key] * scale.reshape(shape))
            (output,) = zoo.outputs(model, x)
            return np.mean(np.square(output.astype(np.float64) - y))

        for group in list(graph.groups.values())[:3]:
            for i, member in enumerate(group.classes[:2]):
                slope = abs(loss(member, 1.01) - loss(member, 0.99)) / 0.02
                scale = max(found[group.name])
                np.testing.assert_allclose(
                    found[group.name][i], slope, rtol=0.02, atol=0.01 * scale, err_msg=name
                )


def _readers(graph):
    for site, weight, axis, *_ in mixing_weights(graph):
        classes = site.roles[site.rule.mixes[weight.name]]
        yield f"{site.name}/{weight.name}", weight, axis, classes


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # as in fit and evaluate
def test_taylor_takes_any_form_of_data_and_is_the_same_each_time():
    net = blobs.trained(1)
    graph = amc_tf.analyze(net)
    x, y = blobs.data(40, 0)

    class Untouchable:
        def __iter__(self):
            raise AssertionError("only training data may be read")

    def scores(train, **changes):
        task = blobs.task(
            train=train,
            validation=Untouchable(),
            test=Untouchable(),
            calibration_size=40,
            **changes,
        )
        return taylor(graph, task)

    before = [np.array(w) for w in net.weights]
    optimizer = net.optimizer
    arrays = scores((x, y))
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    for other in (
        scores((x, y)),
        scores(batches),
        scores(batches.repeat(), train_steps=6),
        scores(({net.inputs[0].name: x}, y)),
        scores(([x], y.tolist()), compile=None),  # the dense model's own compile settings
    ):
        for name in arrays:
            np.testing.assert_array_equal(other[name], arrays[name])
    for a, b in zip(before, net.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert net.optimizer is optimizer


def test_taylor_says_what_it_lacks():
    net = _linear()
    graph = amc_tf.analyze(net)
    with pytest.raises(amc_tf.AmcError, match="needs labelled data and a loss"):
        taylor(graph, None)
    data = np.ones((2, 2), "float32"), np.ones((2, 1), "float32")
    with pytest.raises(amc_tf.AmcError, match="loss the model is trained with"):
        taylor(graph, amc_tf.Task(train=data, validation=data, evaluate=lambda model, data: 1.0))
    with pytest.raises(amc_tf.AmcError, match="not finite"):
        taylor(graph, _task([[1, 2]], [[np.nan]]))


# --- what every criterion must respect ---------------------------------------------------------


@pytest.mark.parametrize("name", marks.slow_but(zoo.ZOO, marks.VARIED))
def test_a_channel_of_zeros_is_the_last_of_its_group(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    x = zoo.sample(model, 3)
    targets = keras.tree.map_structure(
        lambda a: np.random.default_rng(0).normal(size=a.shape).astype("float32"),
        model(x, training=False),
    )
    task = amc_tf.Task(train=(x, targets), validation=None, compile=_squares)
    dead = {group: g.channels // 2 for group, g in graph.groups.items()}
    classes = [graph.groups[group].classes[i] for group, i in dead.items()]

    def check(score_of_dead):
        for criterion, function in IMPORTANCES.items():
            found = function(graph, task)
            assert set(found) == set(graph.groups)
            for group, scores in found.items():
                assert scores.shape == (graph.groups[group].channels,)
                assert np.isfinite(scores).all() and (scores >= 0).all()
                score_of_dead(criterion, scores, dead[group])

    check(lambda criterion, scores, i: None)
    for site in graph.sites:
        for weight, axes in site.rule.weight_axes(site.call.operation):
            value = numpy_of(weight).copy()
            for axis, role in enumerate(axes):
                if role is not None:
                    gone = np.isin(site.roles[role], classes)
                    np.moveaxis(value, axis, 0)[gone] = 0
            weight.assign(value)

    def is_last(criterion, scores, i):
        assert scores[i] == 0, criterion
        if criterion != "taylor":  # other channels may be dead for these inputs
            assert (np.delete(scores, i) > 0).all(), criterion

    check(is_last)


# --- in a search -------------------------------------------------------------------------------


def test_settings_name_a_criterion():
    assert amc_tf.SearchSettings().importance == "elimination"
    with pytest.raises(amc_tf.AmcError, match="unknown importance 'l3'; choose one of 'consumer_"):
        amc_tf.SearchSettings(importance="l3")


def test_a_workdir_belongs_to_one_criterion(tmp_path):
    net = blobs.trained(1)

    def start(importance):
        settings = amc_tf.Settings(
            rehearse=False, search=blobs.search_settings(importance=importance)
        )
        amc_tf.Compression(net, blobs.task(), amc_tf.Budget(macs=0.5), tmp_path, settings)

    start("taylor")
    start("taylor")
    with pytest.raises(amc_tf.AmcError, match="search.importance: 'taylor' there, 'producer_l1'"):
        start("producer_l1")


@pytest.mark.slow
def test_a_resumed_search_keeps_its_ranks(tmp_path):
    """Shuffled training data would rank the channels anew: what was found before is taken."""
    net = blobs.trained(1)
    groups = amc_tf.analyze(net).groups
    earlier = {name: list(range(group.channels)) for name, group in groups.items()}
    (tmp_path / "importance.json").write_text(
        json.dumps({"criterion": "taylor", "scores": earlier})
    )
    settings = blobs.search_settings(importance="taylor", policies=("amc",), episodes=1)
    found = amc_tf.search_plan(net, blobs.task(), amc_tf.Budget(macs=0.5), tmp_path, settings)
    for name, kept in found.plan.keep.items():
        assert kept == tuple(range(groups[name].channels))[-len(kept) :]
    assert sum(map(len, found.plan.keep.values())) < sum(g.channels for g in groups.values())
