"""Linear paths behind a layer, found and probed."""

import math

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

from amc_tf.graph import flattening
from amc_tf.pruning.refit import linear_path


def _follow(build, name="conv"):
    """The path behind the layer of that name in the model that `build` makes of an input."""
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, kl.Flatten(name="end")(build(inputs)))
    flat = flattening.flatten(model)
    (call,) = [c for c in flat.calls if c.operation.name == name]
    path = linear_path.follow(flat, call)
    return path, [c.operation.name for c in path.calls]


def _conv(x, **options):
    return kl.Conv2D(3, 1, name="conv", **options)(x)


def test_through_a_batch_norm_into_the_sum_and_up_to_the_rectifier():
    path, names = _follow(
        lambda x: kl.ReLU(6.0)(
            kl.Add(name="sum")([x, kl.BatchNormalization(name="norm")(_conv(x))])
        )
    )
    assert names == ["norm", "sum"]
    assert path.others == (0,)
    assert path.bounds == (0, 6)


def test_on_through_a_second_sum():
    def build(x):
        y = kl.Conv2D(3, 1)(x)
        return kl.Add(name="second")([y, kl.Add(name="first")([x, _conv(x)])])

    path, names = _follow(build)
    assert names == ["first", "second"]
    assert len(path.others) == 2
    assert path.bounds == linear_path.UNBOUNDED


def test_the_branch_computed_first_does_not_wait_for_the_other():
    def build(x):
        return kl.Add()([_conv(x), kl.Conv2D(3, 1, name="last")(x)])

    assert _follow(build)[1] == []
    path, names = _follow(build, "last")
    assert len(names) == 1 and len(path.others) == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda x: kl.Add()([x, ops.sigmoid(_conv(x))]),
        lambda x: kl.Add()([x, kl.ReLU()(kl.AveragePooling2D(1)(_conv(x)))]),
        lambda x: kl.Multiply()([x, _conv(x)]),
        lambda x: 1.0 / _conv(x),
        lambda x: kl.Add()([ops.mean(x, axis=(1, 2), keepdims=True), _conv(x)]),
        lambda x: (lambda y: ops.add(y, y))(_conv(x)),
        lambda x: (lambda y: kl.Concatenate()([y, kl.BatchNormalization()(y)]))(_conv(x)),
    ],
    ids=["sigmoid", "pooling", "product", "quotient", "broadcast", "doubled", "two readers"],
)
def test_ends_where_the_way_is_not_linear_or_not_the_only_one(build):
    path, names = _follow(build)
    assert names == [] and path.end == path.start


def test_a_fused_activation_leaves_only_its_bounds():
    assert _follow(lambda x: _conv(x, activation="relu"))[0].bounds == (0, math.inf)
    assert _follow(lambda x: _conv(x, activation="relu6"))[0].bounds == (0, 6)
    assert _follow(lambda x: _conv(x, activation="tanh"))[0].bounds == linear_path.UNBOUNDED


@pytest.mark.parametrize(
    "build, bounds",
    [
        (lambda x: ops.relu(_conv(x)), (0, math.inf)),
        (lambda x: ops.relu6(_conv(x)), (0, 6)),
        (lambda x: kl.Activation("relu")(_conv(x)), (0, math.inf)),
        (lambda x: kl.ReLU(negative_slope=0.1)(_conv(x)), linear_path.UNBOUNDED),
        (lambda x: kl.ReLU(threshold=1.0)(_conv(x)), linear_path.UNBOUNDED),
        (
            lambda x: (lambda y: kl.Add()([ops.relu(y), kl.Activation("relu")(y)]))(_conv(x)),
            (0, math.inf),
        ),
        (
            lambda x: (lambda y: kl.Add()([ops.relu(y), ops.tanh(y)]))(_conv(x)),
            linear_path.UNBOUNDED,
        ),
    ],
)
def test_bounds_of_what_reads_the_end(build, bounds):
    assert _follow(build)[0].bounds == bounds


def test_a_path_as_an_affine_function():
    inputs = keras.Input((4, 4, 3))
    x = kl.Subtract()([inputs, kl.Rescaling(3.0, offset=1.0)(_conv(inputs) / 2)])
    flat = flattening.flatten(keras.Model(inputs, kl.Flatten()(x)))
    path = linear_path.follow(flat, flat.calls[0])
    affine = path.affine(flat)
    # x - (3 (y / 2) + 1)
    np.testing.assert_allclose(affine.slope, [-1.5] * 3)
    np.testing.assert_allclose(affine.base, [-1.0] * 3)
    ((number, factor),) = affine.factors
    assert number == flat.inputs[0]
    np.testing.assert_allclose(factor, [1.0] * 3)
