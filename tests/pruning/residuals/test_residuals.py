"""Folded residual blocks compute what they did, and their channels are free."""

import logging
import re

import keras
import numpy as np
import pytest
import zoo
from keras import layers as kl
from keras import ops

import amc_tf
from amc_tf.pruning.verification import noise, outputs_of, relative_difference


def _bn(x):
    return kl.BatchNormalization()(x)


def _conv(x, filters, size=3, **options):
    return kl.Conv2D(filters, size, padding="same", **options)(x)


def _stem(shape=(8, 8, 3), filters=4, activation="relu"):
    inputs = keras.Input(shape)
    return inputs, _conv(inputs, filters, activation=activation)


def _model(inputs, x):
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))


def _shaken(model, seed=0):
    """Gives every weight, batch norm statistics too, a value of its own."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0, 0.3, weight.shape)
        if weight.name in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, weight.shape)
        weight.assign(values)
    return model


def _signed(model, samples=3):
    return [2 * array - 1 for array in noise(model, samples, seed=1)]


def _difference(a, b):
    inputs = _signed(a)
    pairs = zip(outputs_of(a, inputs), outputs_of(b, inputs), strict=True)
    return max(relative_difference(y, x) for x, y in pairs)


def _adds(model):
    return [layer for layer in model.layers if isinstance(layer, kl.Add)]


# --- by hand ------------------------------------------------------------------------------------


def test_two_dense_layers_by_hand():
    x = inputs = keras.Input((2,))
    x = kl.ReLU()(x)
    y = kl.Dense(1, activation="relu", name="first")(x)
    y = kl.Dense(2, name="second")(y)
    model = keras.Model(inputs, kl.Add(name="sum")([x, y]))
    model.get_layer("first").set_weights([np.array([[2.0], [3.0]]), np.array([-1.0])])
    model.get_layer("second").set_weights([np.array([[5.0, 7.0]]), np.array([0.5, 0.25])])
    folded = amc_tf.fold_residuals(model)
    kernel, bias = folded.get_layer("first").get_weights()
    np.testing.assert_array_equal(kernel, [[2, 1, 0], [3, 0, 1]])
    np.testing.assert_array_equal(bias, [-1, 0, 0])
    kernel, bias = folded.get_layer("second").get_weights()
    np.testing.assert_array_equal(kernel, [[5, 7], [1, 0], [0, 1]])
    np.testing.assert_array_equal(bias, [0.5, 0.25])
    # x = (1, 2): first = relu(2 + 6 - 1) = 7; second = (35.5, 49.25); sum = (36.5, 51.25).
    np.testing.assert_array_equal(folded(np.array([[1.0, 2.0]])), [[36.5, 51.25]])
    assert folded.output_names == model.output_names == ["sum"]
    (told,) = amc_tf.residuals(model)
    # 2 x 1 + 1 x 2 MACs; then 2 x 3 + 3 x 2.
    assert (told.reason, told.carried, told.macs, told.folded_macs) == (None, 2, 4, 12)


def test_an_input_of_any_sign_is_carried_twice():
    x = inputs = keras.Input((1,))
    y = kl.Dense(1, activation="relu", name="first")(x)
    y = kl.Dense(1, name="second")(y)
    model = keras.Model(inputs, kl.Add()([x, y]))
    folded = amc_tf.fold_residuals(model)
    np.testing.assert_array_equal(folded.get_layer("first").get_weights()[0][:, 1:], [[1, -1]])
    np.testing.assert_array_equal(folded.get_layer("second").get_weights()[0][1:], [[1], [-1]])
    assert _difference(model, folded) < 1e-6


def test_a_branch_of_one_kernel_gets_no_wider():
    inputs, x = _stem(activation=None)
    model = _shaken(_model(inputs, kl.Add()([x, _bn(_conv(x, 4, use_bias=False, name="conv"))])))
    folded = amc_tf.fold_residuals(model)
    assert not _adds(folded) and _difference(model, folded) < 1e-6
    before = model.get_layer("conv").kernel
    assert folded.get_layer("conv").kernel.shape == before.shape
    assert amc_tf.macs(amc_tf.analyze(folded)) == amc_tf.macs(amc_tf.analyze(model))


@pytest.mark.parametrize("size, place", [(8, 0), (7, 1)])
def test_with_strides_the_one_stands_where_the_shortcut_reads(size, place):
    """TensorFlow pads an even size behind alone: 2 p + t is read, so that t = 0 gives 2 p."""
    inputs, x = _stem((size, size, 3))
    y = _conv(x, 5, strides=2, activation="relu", name="first")
    y = _conv(y, 6, name="second")
    model = _shaken(_model(inputs, kl.ReLU()(kl.Add()([_conv(x, 6, 1, strides=2), y]))))
    folded = amc_tf.fold_residuals(model)
    carried = np.array(folded.get_layer("first").kernel)[..., 5:]
    assert np.argwhere(carried)[:, :2].tolist() == [[place, place]] * 4
    assert _difference(model, folded) < 1e-6


def test_batch_norms_leave_what_is_carried_as_it_is_in_training_too():
    inputs, x = _stem()
    for strides in (1, 2):
        y = kl.ReLU()(_bn(_conv(x, 5, strides=strides)))
        y = _bn(_conv(y, 6))
        x = kl.ReLU()(kl.Add()([_bn(_conv(x, 6, 1, strides=strides)), y]))
    model = _shaken(_model(inputs, x))
    norms = [layer for layer in model.layers if isinstance(layer, kl.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # statistics become those of the batch
    given = _signed(model, 16)
    model(given[0], training=True)
    folded = amc_tf.fold_residuals(model, given)
    (answer,) = outputs_of(model, given)
    trained = np.asarray(folded(given[0], training=True))
    assert relative_difference(trained, answer) < 1e-5
    bare = amc_tf.fold_residuals(model)
    assert relative_difference(np.asarray(bare(given[0], training=True)), answer) > 0.1


# --- a small zoo --------------------------------------------------------------------------------


def _basic(x, filters, activation, strides=1):
    y = activation()(_bn(_conv(x, 5, strides=strides, use_bias=False)))
    return _bn(_conv(y, filters, use_bias=False))


def _padded(x, filters, activation, strides=1):
    y = kl.ZeroPadding2D()(x)
    y = activation()(_bn(kl.Conv2D(5, 3, strides=strides, use_bias=False)(y)))
    return _conv(y, filters)


def _bottleneck(x, filters, activation, strides=1):
    y = activation()(_bn(_conv(x, 3, 1, strides=strides)))
    y = activation()(_bn(_conv(y, 4, dilation_rate=1 if strides > 1 else 2)))
    return _bn(_conv(y, filters, 1))


def _inverted(x, filters, activation, strides=1):
    y = activation()(_bn(_conv(x, 7, 1, use_bias=False)))
    y = kl.DepthwiseConv2D(5, padding="same", strides=strides, use_bias=False)(y)
    return _bn(_conv(activation()(_bn(y)), filters, 1, use_bias=False))


def _relu6():
    return kl.ReLU(6.0)


def _leaky():
    return kl.LeakyReLU(0.2)


@pytest.fixture
def float64():
    before = keras.config.dtype_policy().name
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("branch", [_basic, _padded, _bottleneck, _inverted])
@pytest.mark.parametrize("activation", [kl.ReLU, _relu6, _leaky])
@pytest.mark.parametrize("projection", ["none", "1x1", "slice"])
def test_folded_networks_compute_the_same(branch, activation, projection, float64):
    """In float64, so that anything but rounding shows."""
    inputs = keras.Input((9, 8, 3))
    x = activation()(_bn(_conv(inputs, 4)))
    if activation is _leaky:
        x = kl.MaxPooling2D(3, 1, padding="same")(kl.ReLU()(x))
    if projection == "1x1":
        shortcut = _bn(_conv(x, 6, 1, strides=2))
        x = kl.Add()([branch(x, 6, activation, 2), shortcut])
    elif projection == "slice":
        shortcut = ops.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [1, 1]])
        x = shortcut + branch(x, 6, activation, 2)
    else:
        x = kl.Add()([x, branch(x, 4, activation)])
    x = activation()(x)
    if activation is not _leaky:
        x = kl.Add()([branch(x, x.shape[-1], activation), x])
    model = _shaken(_model(inputs, x))
    told = amc_tf.residuals(model, most_growth=99)
    assert [residual.reason for residual in told] == [None] * len(told) and told
    folded = amc_tf.fold_residuals(model, most_growth=99)
    assert _difference(model, folded) < 1e-10
    macs = [amc_tf.macs(amc_tf.analyze(m)) for m in (model, folded)]
    # Known sizes: what each addition is said to cost is what the network costs.
    assert macs[1] - macs[0] == sum(r.folded_macs - r.macs for r in told)


@pytest.mark.parametrize("seed", range(3))
def test_linear_bottlenecks_with_relu(seed, float64):
    inputs = keras.Input((6, 6, 3))
    x = _bn(_conv(inputs, 4))
    for _ in range(2):
        x = kl.Add()([x, _inverted(x, 4, kl.ReLU)])
    model = _shaken(_model(inputs, x), seed)
    folded = amc_tf.fold_residuals(model, _signed(model))
    assert not _adds(folded) and _difference(model, folded) < 1e-10


def test_additions_are_told_in_their_order_and_growth_is_bounded():
    inputs, x = _stem()
    x = kl.ReLU()(kl.Add(name="wider")([x, _basic(x, 4, kl.ReLU)]))
    x = kl.ReLU()(kl.Add(name="free")([x, _conv(x, 4)]))
    x = kl.Add(name="late")([x, _conv(x, 4, activation="relu")])
    model = _shaken(_model(inputs, x))
    told = amc_tf.residuals(model, most_growth=1)
    assert [(r.name, r.reason is None) for r in told] == [
        ("wider", False),
        ("free", True),
        ("late", False),
    ]
    folded = amc_tf.fold_residuals(model, most_growth=1)
    assert [layer.name for layer in _adds(folded)] == ["wider", "late"]
    assert _difference(model, folded) < 1e-5


def test_a_block_that_holds_a_block():
    inputs, x = _stem()
    y = _conv(x, 4, activation="relu")
    y = kl.ReLU()(kl.Add(name="inner")([y, _conv(y, 4)]))
    y = _conv(y, 4)
    model = _shaken(_model(inputs, kl.Add(name="outer")([x, y])))
    told = amc_tf.residuals(model)
    assert {r.name: r.reason for r in told} == {"inner": None, "outer": None}
    folded = amc_tf.fold_residuals(model)
    assert not _adds(folded) and _difference(model, folded) < 1e-5


def test_nested_models_and_open_sizes():
    part_inputs = keras.Input((None, None, 4))
    part = keras.Model(part_inputs, kl.Add()([part_inputs, _basic(part_inputs, 4, kl.ReLU)]))
    inputs, x = _stem((None, None, 3))
    model = _shaken(_model(inputs, kl.ReLU()(part(x))))
    folded = amc_tf.fold_residuals(model)
    assert not any("add" in layer.name for layer in folded.layers)
    assert _difference(model, folded) < 1e-5


# --- freer choices ------------------------------------------------------------------------------


def test_channels_that_an_addition_tied_are_groups_of_their_own():
    model = zoo.residual()  # a stem of 8 channels, and two blocks 8 -> 5 -> 8
    graph = amc_tf.analyze(model)
    assert sorted(group.channels for group in graph.groups.values()) == [5, 5, 8]
    folded = amc_tf.fold_residuals(model)
    graph = amc_tf.analyze(folded)
    # Each of the three layers of 8 is a group; those of 5 carry 8 more, prunable like their own.
    assert sorted(group.channels for group in graph.groups.values()) == [8, 8, 8, 13, 13]
    assert amc_tf.verify(folded, graph) < 1e-3
    plan = amc_tf.PruningPlan(
        {name: range(5) for name, group in graph.groups.items() if group.channels == 13}
    )
    # Without what is carried, the network is that without shortcuts.
    assert amc_tf.rebuild(folded, graph, plan).count_params() == model.count_params()


# --- what stays ---------------------------------------------------------------------------------


def _mobile_net_v2():
    inputs, x = _stem(activation=None)
    return _model(inputs, kl.Add(name="sum")([x, _inverted(x, 4, _relu6)]))


def _unknown_activation():
    inputs, x = _stem()
    y = _conv(_conv(x, 4, activation="gelu"), 4)
    return _model(inputs, kl.Add(name="sum")([x, y]))


def _pre_activation():
    inputs, x = _stem()
    y = _conv(kl.ReLU()(_bn(x)), 4)
    return _model(inputs, kl.Add(name="sum")([x, y]))


def _squeezed():
    inputs, x = _stem()
    y = _conv(_conv(x, 4, activation="relu"), 4)
    gate = kl.Dense(4, activation="sigmoid")(kl.GlobalAveragePooling2D(keepdims=True)(y))
    return _model(inputs, kl.Add(name="sum")([x, kl.Multiply()([y, gate])]))


def _late_activation():
    inputs, x = _stem()
    return _model(inputs, kl.Add(name="sum")([x, _conv(x, 4, activation="relu")]))


def _three():
    inputs, x = _stem()
    return _model(inputs, kl.Add(name="sum")([x, _conv(x, 4), _conv(x, 4, 1)]))


def _wide_shortcut():
    inputs, x = _stem()
    y = _conv(_conv(x, 5, activation="relu"), 6)
    return _model(inputs, kl.Add(name="sum")([_conv(x, 6, 3), y]))


def _pooled_shortcut():
    inputs, x = _stem()
    y = _conv(_conv(x, 5, strides=2, activation="relu"), 6)
    return _model(inputs, kl.Add(name="sum")([_conv(kl.AveragePooling2D(2)(x), 6, 1), y]))


def _cropping():
    """The first kernel leaves out the border, which the shortcut has."""
    inputs, x = _stem()
    y = kl.ZeroPadding2D()(kl.Conv2D(5, 3, activation="relu")(x))
    return _model(inputs, kl.Add(name="sum")([x, _conv(y, 4)]))


def _open_strides():
    inputs, x = _stem((None, None, 3))
    y = _conv(_conv(x, 5, strides=2, activation="relu"), 6)
    return _model(inputs, kl.Add(name="sum")([_conv(x, 6, 1, strides=2), y]))


def _wide_bottleneck():
    """4 c MACs for each of the 1x1 kernels and 9 c for the 3x3 one; 20, 225 and 20 when folded."""
    inputs, x = _stem(filters=8)
    y = _conv(_conv(_conv(x, 2, 1, activation="relu"), 2, activation="relu"), 8, 1)
    return _model(inputs, kl.Add(name="sum")([x, y]))


def _shared():
    inputs, x = _stem()
    conv = kl.Conv2D(4, 3, padding="same", activation="relu")
    return _model(inputs, kl.Add(name="sum")([x, conv(conv(x))]))


def _dropped():
    inputs, x = _stem()
    y = _conv(kl.Dropout(0.5)(_conv(x, 4, activation="relu")), 4)
    return _model(inputs, kl.Add(name="sum")([x, y]))


@pytest.mark.parametrize(
    "build, reason",
    [
        (_mobile_net_v2, r"keeps only what is within \[0, 6\].*known to be within \[-inf, inf\]"),
        (_unknown_activation, "changes what passes it"),
        (_pre_activation, "before its first kernel"),
        (_squeezed, "is not made of one value by two chains"),
        (_late_activation, "ends its branch with an activation"),
        (_three, "it adds 3 values"),
        (_wide_shortcut, "reads several positions"),
        (_pooled_shortcut, "average_pooling.* is no linear map of single positions"),
        (_cropping, "cannot carry every position"),
        (_open_strides, "open sizes"),
        (_wide_bottleneck, "15.6 times its MACs, above the limit most_growth=4"),
        (_shared, "called several times"),
        (_dropped, "Dropout.* changes what passes it"),
    ],
)
def test_what_cannot_be_folded_is_left_and_told(build, reason, caplog):
    model = _shaken(build())
    with caplog.at_level(logging.INFO, "amc_tf"):
        folded = amc_tf.fold_residuals(model)
    assert len(_adds(folded)) == 1 and _difference(model, folded) < 1e-5
    (told,) = [r for r in amc_tf.residuals(model) if r.name == "sum"]
    assert re.search(reason, told.reason), told.reason
    assert f"sum stays: {told.reason}" in caplog.text


def test_a_model_without_additions_is_copied():
    model = zoo.plain()
    folded = amc_tf.fold_residuals(model)
    assert folded is not model and amc_tf.residuals(model) == ()
    assert _difference(model, folded) == 0
