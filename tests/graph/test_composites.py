"""Layers that are made of layers or operations: looked into, carried on, or left as they are."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl
from keras import ops

import amc_tf


@keras.saving.register_keras_serializable("composites")
class Block(kl.Layer):
    """A residual block with a weight of its own."""

    def __init__(self, width, **settings):
        super().__init__(**settings)
        self.width = width
        self.wide = kl.Conv2D(2 * width, 3, padding="same")
        self.norm = kl.BatchNormalization()
        self.back = kl.Conv2D(width, 1)
        self.drop = kl.Dropout(0.5)

    def build(self, shape):
        self.wide.build(shape)
        self.norm.build((*shape[:-1], 2 * self.width))
        self.back.build((*shape[:-1], 2 * self.width))
        self.gamma = self.add_weight(shape=(self.width,), name="gamma", initializer="uniform")
        self.built = True

    def call(self, x, training=None):
        y = keras.activations.relu(self.norm(self.wide(x), training=training))
        return x + self.gamma * self.drop(self.back(y), training=training)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class Positions(kl.Layer):
    def build(self, shape):
        self.learnt = self.add_weight(shape=shape[1:], initializer="normal", name="learnt")

    def call(self, x):
        return x + self.learnt


class Token(kl.Layer):
    """A learnt token before the others, by the size of the batch."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal", name="token")

    def call(self, x):
        batch, height, width, channels = ops.shape(x)
        rows = ops.reshape(x, (batch, height * width, channels))
        rows = ops.concatenate([ops.tile(self.token, (batch, 1, 1)), rows], axis=1)
        return ops.reshape(rows[:, 1:] * rows[:, :1], (batch, height, width, channels))


class Outer(kl.Layer):
    """Blocks within a layer, and a functional model within it."""

    def __init__(self):
        super().__init__()
        self.first = Block(6)
        inner = keras.Input((None, None, 6))
        self.second = keras.Model(inner, kl.Conv2D(6, 1, name="inside")(kl.ReLU()(inner)))

    def call(self, x):
        return {"a": self.second(self.first(x)), "b": x}


def _through(*layers, shape=(8, 8, 3), readers=True):
    x = inputs = keras.Input(shape)
    x = kl.Conv2D(6, 3, padding="same", name="stem")(x) if readers else x
    for layer in layers:
        x = layer(x)
        x = kl.Add()(list(x.values())) if isinstance(x, dict) else x
    return keras.Model(inputs, kl.Dense(2, name="head")(kl.GlobalAveragePooling2D()(x)))


def _same(a, b):
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(a(x, training=False), b(x, training=False), atol=1e-5)


@pytest.mark.parametrize(
    "layers, groups",
    [
        ([lambda: Block(6)], {"stem": 6, "wide": 12}),
        ([lambda: Block(6), lambda: Block(6)], {"stem": 6, "wide": 12, "wide_2": 12}),
        ([Positions], {"stem": 6}),
        ([Token], {"stem": 6}),
        ([Outer], {"stem": 6, "wide": 12, "inside": 6}),
    ],
)
def test_blocks_are_pruned_as_the_layers_they_are_made_of(layers, groups):
    model = _through(*(make() for make in layers))
    graph = amc_tf.analyze(model)
    assert not graph.refused
    found = sorted(group.channels for group in graph.groups.values())
    # The second model of `Outer` reads its stream beside it, so it is of the same group.
    wanted = sorted(groups.values()) if layers != [Outer] else [6, 12]
    assert found == wanted
    assert graph.network.opened
    assert amc_tf.verify(model, graph) < 1e-5
    _same(model, amc_tf.rebuild(model, graph, None))


def test_weights_of_a_block_are_carried_on_and_trained(tmp_path):
    model = _through(Block(6), Positions())
    small = amc_tf.rebuild(model, amc_tf.analyze(model), None)
    wanted = {"gamma": (6,), "learnt": (8, 8, 6)}
    carried = {x.name: x for x in small.layers if x.name in wanted}
    assert {name: tuple(x.value.shape) for name, x in carried.items()} == wanted
    assert len(small.trainable_weights) == len(model.trainable_weights)
    small.compile("sgd", "mse")
    before = carried["gamma"].value.numpy()
    small.fit(np.ones((4, 8, 8, 3)), np.zeros((4, 2)), verbose=0)
    assert (carried["gamma"].value.numpy() != before).any()
    small.save(tmp_path / "small.keras")
    _same(small, keras.models.load_model(tmp_path / "small.keras"))


def test_a_model_that_is_looked_into_stays_as_it_was():
    block = Block(6)
    model = _through(block)
    calls = [len(x._inbound_nodes) for x in block._flatten_layers()]
    weights = model.get_weights()
    graph = amc_tf.analyze(model)
    amc_tf.rebuild(model, graph, None)
    assert [len(x._inbound_nodes) for x in block._flatten_layers()] == calls
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # The graph is of the weights that the model has, not of a copy.
    block.gamma.assign(np.full(6, 3.0))
    _same(model, amc_tf.rebuild(model, graph, None))


class _Closed(kl.Layer):
    """A layer with a weight that stays whole; `how` says why."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.inner = kl.Conv2D(6, 1)

    def build(self, shape):
        self.inner.build(shape)
        self.table = self.add_weight(shape=(4, 6), name="table", initializer="normal")
        self.built = True

    def call(self, x, training=None):
        y = self.inner(x)
        if self.how == "tensorflow":
            return tf.multiply(y, self.table[0])
        if self.how == "training":
            return y * (1.0 + 0.0 * self.table[0]) if not training else ops.tanh(y) + self.table[1]
        if self.how == "unseen":
            return y + ops.take(self.trainable_weights[0], 1, axis=0)
        if self.how == "loss":
            self.add_loss(ops.mean(y * y))
            return y * self.table
        if self.how == "branch":
            return ops.cond(ops.sum(x) > 0, lambda: y + self.table[0], lambda: y)
        raise ValueError(self.how)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.parametrize(
    "how, reason",
    [
        ("tensorflow", "does not take symbolic tensors"),
        ("training", "does something else in training"),
        ("unseen", "computes with the values of its weight"),
        ("loss", "add_loss"),
        ("branch", "call functions of their own"),
    ],
)
def test_what_cannot_be_looked_into_stays_whole_and_says_why(how, reason):
    layer = _Closed(how)
    graph = amc_tf.analyze(_through(layer))
    (refused,) = graph.refused
    assert refused.operation == layer.name
    assert reason in refused.reason
    assert not graph.network.opened


class _Jitter(kl.Layer):
    """Without weights, and random in training alone."""

    def call(self, x, training=None):
        return x + keras.random.normal(ops.shape(x)) if training else x


def test_layers_without_weights_are_followed_whole_where_a_run_allows_it():
    layer = _Jitter()
    model = _through(layer)
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["stem"]
    assert graph.probed == ((layer.name, "_Jitter"),)
    small = amc_tf.rebuild(model, graph, None)
    assert any(isinstance(x, _Jitter) for x in small.layers)


MIXING = {
    "reversed": lambda x: x[..., ::-1],
    "normalised": lambda x: x / (1e-3 + ops.sum(ops.abs(x), axis=-1, keepdims=True)),
    "cumulated": lambda x: ops.cumsum(x, axis=-1),
    "sorted": lambda x: ops.sort(x, axis=-1),
    "first channel": lambda x: x * x[..., :1],
    "of a fixed width": lambda x: ops.broadcast_to(x, (2, 8, 8, 6)),
    "random": lambda x: x + keras.random.normal((1,)),
    "over the batch": lambda x: x - ops.mean(x, axis=0, keepdims=True) * 0 + ops.flip(x, 0)[:1],
    "gated": lambda x: ops.where(ops.max(x, axis=-1, keepdims=True) > 1, x, 0 * x),
}
ALONE = {
    "own swish": lambda x: x * ops.sigmoid(1.7 * x),
    "rolled": lambda x: ops.roll(x, 2, axis=1),
    "flipped": lambda x: ops.flip(x, axis=2),
    "deviation over space": lambda x: ops.std(x, axis=(1, 2), keepdims=True) + x,
    "cumulated over rows": lambda x: ops.cumsum(x, axis=1),
    "log-sum-exp": lambda x: x - ops.logsumexp(x, axis=(1, 2), keepdims=True),
    "where": lambda x: ops.where(x > 0.3, x, ops.erf(x)),
    "rows moved": lambda x: ops.swapaxes(x, 1, 2),
    "rows mixed": lambda x: ops.matmul(ops.ones((8, 8)), x),
    "tiled": lambda x: ops.tile(x, (1, 2, 1, 1)),
}


@pytest.mark.parametrize("kind", MIXING)
def test_a_lambda_that_mixes_channels_freezes_them(kind):
    graph = amc_tf.analyze(_through(kl.Lambda(MIXING[kind], output_shape=(8, 8, 6))))
    assert not graph.groups
    assert graph.refused[0].class_name == "Lambda"


@pytest.mark.parametrize("of", ["a Lambda", "operations", "an own layer"])
@pytest.mark.parametrize("kind", ALONE)
def test_what_treats_each_channel_alone_is_followed(kind, of):
    function = ALONE[kind]

    class Own(kl.Layer):
        def call(self, x):
            return function(x)

    model = _through({"a Lambda": kl.Lambda(function), "operations": function}.get(of) or Own())
    graph = amc_tf.analyze(model)
    assert [g.channels for g in graph.groups.values()] == [6], amc_tf.describe(graph)
    assert amc_tf.verify(model, graph) < 1e-5
    plan = amc_tf.PruningPlan({"stem": [0, 2, 3]})
    small = amc_tf.rebuild(model, graph, plan)
    assert amc_tf.macs(graph, plan) == amc_tf.macs(amc_tf.analyze(small))


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "gelu", "silu"])
def test_activations_written_as_functions_are_followed(name):
    model = _through(getattr(keras.activations, name))
    graph = amc_tf.analyze(model)
    assert [g.channels for g in graph.groups.values()] == [6]
    assert not graph.probed
    assert amc_tf.verify(model, graph) < 1e-5


def _own_activation(x):
    return ops.where(x > 0, x, 0.1 * ops.tanh(x))


@pytest.mark.parametrize("make", [lambda f: kl.Dense(6, activation=f), kl.Activation])
def test_an_activation_of_ones_own_is_followed(make):
    model = _through(make(_own_activation))
    graph = amc_tf.analyze(model)
    assert not graph.refused
    assert sum(g.channels for g in graph.groups.values()) >= 6
    assert amc_tf.verify(model, graph) < 1e-5


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.stem = kl.Conv2D(6, 3, padding="same")
        self.block = Block(6)
        self.heads = {"a": kl.Dense(2), "b": kl.Dense(3)}
        self.offset = self.add_weight(shape=(6,), initializer="normal", name="offset")

    def call(self, x, training=None):
        y = self.block(self.stem(x) + self.offset, training=training)
        y = ops.reshape(y, (ops.shape(y)[0], -1))
        return {name: head(y) for name, head in self.heads.items()}


def test_a_subclassed_model_becomes_functional():
    model = _Subclassed()
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    expected = model(x)
    made = amc_tf.functional(model)
    assert {id(w) for w in made.weights} == {id(w) for w in model.weights}
    received = made(x)
    assert received.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(received[name], expected[name], atol=1e-6)
    graph = amc_tf.analyze(made)
    assert sorted(g.channels for g in graph.groups.values()) == [6, 12]
    assert amc_tf.verify(made, graph) < 1e-5
    assert amc_tf.functional(made) is made


def test_what_a_functional_model_would_lose_is_refused():
    class OwnStep(_Subclassed):
        def train_step(self, data):
            return super().train_step(data)

    class Eager(_Subclassed):
        def call(self, x):
            return {"a": self.heads["a"](tf.nn.relu(x))}

    for kind, told in ((OwnStep, "train_step"), (Eager, "cannot be made functional")):
        with pytest.raises(amc_tf.AmcError, match=told):
            amc_tf.functional(kind(), keras.Input((8, 8, 3)))
    with pytest.raises(amc_tf.AmcError, match="amc_tf.functional"):
        amc_tf.analyze(_Subclassed())
    with pytest.raises(amc_tf.AmcError, match="the inputs of .* are not known"):
        amc_tf.functional(_Subclassed())


class HoldsMore(keras.Layer):
    """A block with a weight that it reads in no call."""

    def build(self, shape):
        self.inner = kl.Dense(6, name="inner")
        self.inner.build(shape)
        self.spare = self.add_weight(shape=(7,), name="spare")

    def call(self, x):
        return self.inner(x)


def test_a_weight_that_is_never_read_is_left_out_and_told():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, kl.Dense(2)(HoldsMore(name="block")(inputs)))
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["inner"]
    assert "block/spare" in amc_tf.describe(graph).split("left out, as they reach no output")[1]
    small = amc_tf.rebuild(model, graph, None)
    assert amc_tf.params(graph) == small.count_params() == model.count_params() - 7


def _video(inner, shape=(5, 8, 8, 3)):
    inputs = keras.Input(shape)
    x = kl.TimeDistributed(inner, name="each")(inputs)
    model = keras.Model(inputs, kl.Dense(3)(kl.Flatten()(x)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name else -0.5
        weight.assign(rng.uniform(low, 1.0, weight.shape))
    return model


def _network_of_frames():
    frames = keras.Input((8, 8, 3))
    x = kl.BatchNormalization()(kl.Conv2D(6, 3, name="conv")(frames))
    return keras.Model(frames, kl.GlobalAveragePooling2D()(kl.ReLU()(x)), name="frames")


@pytest.mark.parametrize(
    ("inner", "group"),
    [(lambda: kl.Conv2D(6, 3, activation="relu", name="conv"), "conv"),
     (lambda: kl.Dense(6, name="dense"), "dense"),
     (_network_of_frames, "conv")],
)  # fmt: skip
def test_what_is_called_at_each_step_is_called_once(inner, group):
    model = _video(inner())
    graph = amc_tf.analyze(model)
    assert [g.channels for name, g in graph.groups.items() if name == group] == [6]
    assert amc_tf.macs(graph) == amc_tf.macs(amc_tf.analyze(amc_tf.rebuild(model, graph, None)))
    x = np.random.default_rng(1).normal(size=(2, 5, 8, 8, 3)).astype("float32")
    assert amc_tf.verify(model, graph, inputs=[x]) < 1e-5
    np.testing.assert_allclose(
        amc_tf.rebuild(model, graph, None)(x), model(x), rtol=1e-4, atol=1e-4
    )


def test_steps_of_open_number_stay_whole():
    inputs = keras.Input((None, 8, 3))
    x = kl.GlobalMaxPooling2D()(kl.TimeDistributed(kl.Dense(6))(inputs))
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(x)))
    assert "open sizes" in next(iter(graph.refused)).reason
