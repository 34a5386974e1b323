"""One row teaches a layer: pruned, refitted, followed and folded as the layer it is like."""

import logging

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.graph import flattening, kernel_propagation
from amc_tf.graph.layer_kinds import UNBOUNDED
from amc_tf.graph.layer_table import rule_of
from amc_tf.graph.registration import register_layer
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.pruning.refit import dense, in_order, linear_path, promises
from amc_tf.scoring.batch_norm_folding import fold
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.scoring.tflite_scorer import LiteScorer

REFITS = {"dense": dense.gather, "in_order": in_order.gather_in_order}


@keras.saving.register_keras_serializable("test_one_row")
class MyConv(kl.Conv2D):
    """A convolution with a call of its own that computes the same."""

    def call(self, inputs):
        y = keras.ops.conv(inputs, self.kernel, strides=self.strides, padding=self.padding)
        return self.activation(y + self.bias if self.use_bias else y)


@keras.saving.register_keras_serializable("test_one_row")
class MyNorm(kl.BatchNormalization):
    """A batch norm of one's own."""


@keras.saving.register_keras_serializable("test_one_row")
class MyMix(kl.Layer):
    """A dense layer of one's own, of fixed width, without bias and activation."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x):
        return keras.ops.matmul(x, self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


register_layer(MyConv, like=kl.Conv2D)
register_layer(MyNorm, like=kl.BatchNormalization)
register_layer(MyMix, like=kl.Dense)


def _model(conv=MyConv, norm=kl.BatchNormalization):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="before")(x)
    x = conv(10, 3, padding="same", use_bias=False, name="mine")(x)
    x = kl.ReLU()(norm(name="norm")(x))
    x = kl.Conv2D(6, 3, activation="relu", name="after")(x)
    outputs = kl.Dense(4, name="last")(kl.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(0)
    for weight in model.get_layer("norm").weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def _halved(graph):
    counts = {name: group.channels // 2 for name, group in graph.groups.items()}
    return strongest(consumer_magnitude(graph, None), counts)


def _images(count, seed):
    return np.random.default_rng(seed).normal(size=(count, 8, 8, 3)).astype(np.float32)


def test_it_is_analysed_and_pruned():
    model = _model()
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["before", "mine", "after"]
    assert graph.groups["before"].consumers == ("mine",)
    assert not graph.refused
    assert amc_tf.verify(model, graph) < 1e-5


@pytest.mark.parametrize("name", sorted(REFITS))
def test_its_kernel_is_refitted(name, caplog):
    model = _model()
    graph = amc_tf.analyze(model)
    plan = _halved(graph)
    with caplog.at_level(logging.WARNING):
        weights = REFITS[name](graph, [_images(200, 1)]).refit(plan)
    assert not caplog.records
    assert {"mine/kernel", "norm/moving_mean"} <= set(weights)
    others = {key: value for key, value in weights.items() if not key.startswith("mine/")}

    def error(changed):
        small = amc_tf.rebuild(model, graph, plan, changed)
        x = _images(50, 2)
        return float(np.square(np.asarray(small(x)) - np.asarray(model(x))).mean())

    assert error(weights) < error(others)
    assert error(weights) < error({})


@pytest.mark.parametrize("conv, norm", [(MyConv, kl.BatchNormalization), (kl.Conv2D, MyNorm)])
@pytest.mark.parametrize("refit", [None, "in_order"])
def test_its_batch_norm_is_folded_and_plans_are_scored_by_their_files(conv, norm, refit):
    model = _model(conv, norm)
    model.compile(metrics=["accuracy"], loss=keras.losses.SparseCategoricalCrossentropy(True))
    graph = amc_tf.analyze(model)
    folding = fold(graph)
    assert not folding.fixed  # no batch norm is left
    assert "norm" not in [layer.name for layer in folding.graph.network.model.layers]
    x = _images(64, 3)
    data = (x, np.random.default_rng(4).integers(0, 4, len(x)))
    task = amc_tf.Task(train=data, validation=data)
    fitted = None if refit is None else REFITS[refit](graph, [x])
    score, plan = fastest_scorer(graph, task, fitted), _halved(graph)
    assert isinstance(score, LiteScorer)
    weights = {} if fitted is None else fitted.refit(plan)
    small = amc_tf.rebuild(model, graph, plan, weights)
    small.compile(metrics=["accuracy"], loss=keras.losses.SparseCategoricalCrossentropy(True))
    assert score(plan) == pytest.approx(
        small.evaluate(*data, verbose=0, return_dict=True)["accuracy"]
    )
    np.testing.assert_allclose(score.outputs(plan)[0], small.predict(x, verbose=0), atol=1e-4)


def test_a_layer_that_only_has_the_weights_is_refitted_too():
    inputs = keras.Input((6,))
    x = kl.Dense(8, activation="relu", name="before")(inputs)
    model = keras.Model(inputs, kl.Dense(3)(MyMix(5, name="mine")(x)))
    graph = amc_tf.analyze(model)
    images = [np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)]
    for gather in REFITS.values():
        assert "mine/kernel" in gather(graph, images).refit(_halved(graph))


def test_a_path_goes_through_what_is_like_something_affine_and_no_further():
    class Offset(kl.Layer):
        def call(self, x):
            return 2 * x + 1

    class Bend(kl.Layer):
        def call(self, x):
            return keras.ops.square(x)

    class Gain(kl.Layer):
        def call(self, x):
            return 2 * x

    register_layer(Offset, like=kl.Identity)
    register_layer(Bend, like=kl.Identity)
    register_layer(Gain, like=kl.ReLU)

    def followed(*layers):
        x = inputs = keras.Input((4, 4, 3))
        x = kl.Conv2D(3, 1)(x)
        for layer in layers:
            x = layer(x)
        flat = flattening.flatten(keras.Model(inputs, kl.Flatten()(x)))
        return linear_path.follow(flat, flat.calls[0])

    path = followed(Offset(), kl.ReLU())
    assert len(path.calls) == 1 and path.bounds[0] == 0
    assert not followed(Bend()).calls
    path = followed(Gain())  # "like a ReLU" says that each channel is alone, not that it clips
    assert not path.calls and path.bounds == UNBOUNDED


def _told(caplog, row, conv):
    register_layer(conv, **row)
    model = _model(conv)
    graph = amc_tf.analyze(model)
    assert amc_tf.verify(model, graph) < 1e-5
    for gather in REFITS.values():
        caplog.clear()
        weights = gather(graph, [_images(50, 1)]).refit(_halved(graph))
        assert "mine/kernel" not in weights
        (record,) = caplog.records
        assert "layer 'mine' (" in record.message and "pruned, but not refitted" in record.message
    caplog.clear()
    return graph, record.message


def test_a_row_that_does_not_say_what_its_layer_computes_is_told(caplog):
    @keras.saving.register_keras_serializable("test_one_row")
    class Silent(MyConv):
        pass

    row = {"like": kl.Conv2D, "kind": amc_tf.LayerKind()}
    graph, message = _told(caplog, row, Silent)
    assert "kind=amc_tf.LayerKind(product=" in message
    assert fold(graph).fixed == {"norm/moving_mean", "norm/moving_variance"}
    (record,) = caplog.records
    assert "no batch norm is folded into layer 'mine'" in record.message


def test_a_layer_that_computes_something_else_than_its_row_says_is_told(caplog):
    @keras.saving.register_keras_serializable("test_one_row")
    class Clipped(MyConv):
        def call(self, inputs):
            return keras.ops.relu(super().call(inputs))

    graph, message = _told(caplog, {"like": kl.Conv2D}, Clipped)
    assert "it computes something else" in message
    with pytest.raises(amc_tf.AmcError, match="given to amc_tf.register_layer may be wrong"):
        fold(graph)


def test_a_change_of_the_row_reaches_a_convolution_of_any_groups():
    class Named(MyConv):
        pass

    register_layer(Named, like=kl.Conv2D, macs={})
    model = _model(Named)
    sites = {site.name: site for site in amc_tf.analyze(model).sites}
    assert not sites["mine"].rule.macs and sites["after"].rule.macs


class Blur(kl.Layer):
    """Mixes neighbouring positions: linear, but not in each channel alone."""

    def call(self, x):
        return (x + keras.ops.roll(x, 1, axis=1)) / 2


class PositionGain(kl.Layer):
    """A factor of its own at every position."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(*shape[1:3], 1), initializer="random_normal", name="g")

    def call(self, x):
        return x * self.gain


class ChannelShift(kl.Layer):
    """Affine in each channel."""

    def build(self, shape):
        self.shift = self.add_weight(shape=shape[-1:], initializer="random_normal", name="shift")

    def call(self, x):
        return 2.0 * x + self.shift


class GainedDense(kl.Dense):
    """A Dense whose call needs another argument."""

    def call(self, x, *, gain):
        return gain * super().call(x)


@pytest.mark.parametrize(
    "kind, weights, affine",
    [(Blur, {}, False), (PositionGain, {}, False), (ChannelShift, {"shift": ("in",)}, True)],
)
def test_what_is_not_affine_in_each_channel_is_not_followed(kind, weights, affine):
    register_layer(kind, like=kl.Dropout, weights=weights)
    inputs = keras.Input((6, 6, 3))
    x = kl.ReLU()(kind()(kl.Conv2D(8, 3, padding="same")(inputs)))
    model = keras.Model(inputs, kl.Conv2D(4, 3)(x))
    graph = amc_tf.analyze(model)
    (call,) = [call for call in graph.network.calls if isinstance(call.operation, kind)]
    assert (promises.broken_affine(graph.network, call) is None) == affine
    plan = _halved(graph)
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype("float32")
    assert in_order.gather_in_order(graph, [images]).refit(plan)  # and nothing is raised
    amc_tf.verify(model, graph, plan)


def test_a_call_keeps_its_other_arguments_when_its_promise_is_checked():
    register_layer(GainedDense, like=kl.Dense)
    inputs = keras.Input((6,))
    x = GainedDense(8)(kl.Dense(16, activation="relu")(inputs), gain=3.0)
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(x)))
    (call,) = [c for c in graph.network.calls if isinstance(c.operation, GainedDense)]
    told = promises.broken_product(graph.network, call, graph.site_at(call).rule.kind.product)
    assert "computes something else" in told


def test_a_row_of_ones_own_for_a_subclass_computes_what_its_class_does():
    class OwnDense(kl.Dense):
        pass

    row = amc_tf.LayerRule(
        kernel_propagation.mixer,
        weights={"kernel": ("in", "out"), "bias": ("out",)},
        widths={"units": "out"},
        mixes={"kernel": "in"},
    )
    register_layer(OwnDense, rule=row)
    assert rule_of(OwnDense(3)).kind.product == rule_of(kl.Dense(3)).kind.product is not None
    register_layer(OwnDense, rule=row, kind=amc_tf.LayerKind())
    assert rule_of(OwnDense(3)).kind.product is None
    with pytest.raises(amc_tf.AmcError, match="expected rule= to be an amc_tf.LayerRule"):
        register_layer(OwnDense, rule=3)
