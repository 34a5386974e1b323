"""Registered rows that are not true of a call: told as a refusal, never as a bare error."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import amc_tf
from amc_tf.graph.costs import macs_cost
from amc_tf.graph.layer_rule import LayerRule, only
from amc_tf.graph.registration import register_layer


class Sum(kl.Layer):
    def call(self, x, y):
        return x + y


class TwoOutputs(kl.Layer):
    def call(self, x):
        return x, x + 1


class Plain(kl.Layer):
    def call(self, x):
        return x * 2


class OddWeight(kl.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(3,), name="scale")

    def call(self, x):
        return x * ops.sum(self.scale)


def _after(layer, like, inputs=1, **changes):
    kind = type("Own", (layer,), {})
    register_layer(kind, like=like, **changes)
    x = image = keras.Input((4, 4, 3))
    parts = [kl.Conv2D(6, 1, name=f"before{i}")(x) for i in range(inputs)]
    x = keras.tree.flatten(kind(name="own")(*parts))[-1]
    model = keras.Model(image, kl.Conv2D(2, 1, name="after")(x))
    return model, amc_tf.analyze(model)


@pytest.mark.parametrize(
    "layer, like, changes, reason",
    [
        (Sum, kl.ReLU, {"inputs": 2}, "reads one tensor; it reads 2"),
        (Sum, kl.Conv2D, {"inputs": 2}, "no attribute 'groups'"),
        (Sum, kl.Dense, {"inputs": 2}, "reads one tensor; it reads 2"),
        (TwoOutputs, kl.ReLU, {}, "channels of its output 1"),
        (Plain, kl.GroupNormalization, {}, "AttributeError"),
        (OddWeight, kl.ReLU, {"weights": {"scale": ("in",)}}, "its weight 'scale' of (3,)"),
        (OddWeight, kl.ReLU, {"weights": {"scale": ("in", "out")}}, "its weight 'scale' of (3,)"),
        (OddWeight, kl.ReLU, {"weights": {"scale": ("mid",)}}, "its weight 'scale' of (3,)"),
    ],
)
def test_it_is_refused_with_a_reason(layer, like, changes, reason):
    model, graph = _after(layer, like, **changes)
    (refused,) = [r for r in graph.refused if r.operation == "own"]
    assert reason in refused.reason
    assert not graph.groups  # what it touches stays
    assert amc_tf.params(graph) == model.count_params()
    again = amc_tf.rebuild(model, graph, None)
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(again(image), model(image), atol=1e-6)


def test_a_row_like_a_sum_reads_two_tensors():
    model, graph = _after(Sum, kl.Add, inputs=2)
    assert not graph.refused and amc_tf.verify(model, graph) < 1e-5


def test_a_mask_passed_by_position_is_no_operand():
    x = inputs = keras.Input((4, 6))
    x = kl.Conv1D(6, 1, name="before")(x)
    x = kl.Softmax(axis=1)(x, kl.Conv1D(6, 1, name="mask")(inputs) > 0)
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(x)))
    assert not graph.groups
    assert "one of its options is a tensor" in [r.reason for r in graph.refused]


@keras.saving.register_keras_serializable("test_unfit_rows")
class Quadratic(kl.Layer):
    """y_k = sum over i and j of x_i x_j K_ijk: a weight with three roles."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units

    def build(self, shape):
        size = shape[-1]
        self.kernel = self.add_weight(shape=(size, size, self.units), name="kernel")

    def call(self, x):
        return ops.matmul(
            ops.reshape(x[:, :, None] * x[:, None], (-1, x.shape[-1] ** 2)),
            ops.reshape(self.kernel, (-1, self.units)),
        )

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_a_weight_may_have_three_roles():
    def connect(c, call, inputs, out_shape):
        return {"in": only(inputs).ids, "out": c.fresh(out_shape[-1])}

    register_layer(
        Quadratic,
        rule=LayerRule(
            connect,
            weights={"kernel": ("in", "in", "out")},
            widths={"units": "out"},
            mixes={"kernel": "in"},
            macs={"kernel": "out"},
        ),
    )
    inputs = keras.Input((5,))
    x = Quadratic(6, name="square")(kl.Dense(4, name="before")(inputs))
    model = keras.Model(inputs, kl.Dense(2)(x))
    graph = amc_tf.analyze(model)
    cost = macs_cost(graph)
    assert list(graph.groups) == ["before", "square"] and not cost.fixed
    assert cost(np.array([4, 6])) == 5 * 4 + 4 * 4 * 6 + 6 * 2
    assert cost(np.array([3, 2])) == 5 * 3 + 3 * 3 * 2 + 2 * 2


def test_what_a_registered_layer_does_beyond_its_row_is_counted():
    class Blur(kl.Layer):
        def call(self, x):
            return ops.depthwise_conv(x, ops.ones((3, 3, x.shape[-1], 1)), padding="same")

    model, graph = _after(Blur, kl.ReLU)
    cost = macs_cost(graph)
    assert cost.fixed == {"own": 16 * 9 * 6}
    assert cost(cost.dense) == 16 * 3 * 6 + 16 * 9 * 6 + 16 * 6 * 2
