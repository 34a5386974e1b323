"""Random models from the whole layer table, and everything that must hold for each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers as kl
from keras import ops
from recount import recount
from zoo import outputs, sample

import amc_tf
import tflite_tools

# Edge length of the input by number of spatial axes.
EDGE = {1: 12, 2: 8, 3: 4}
WIDTHS = st.integers(2, 8)


@dataclasses.dataclass
class Drawing:
    """A model in the making: the source of random choices, and the tensors so far."""

    draw: Callable[[Any], Any]
    rank: int
    tensors: list[Any]
    convolutions: list[Any] = dataclasses.field(default_factory=list)

    def one_of(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def kind(self, name: str) -> type:
        """Returns the class of this name for the number of spatial axes."""
        return getattr(kl, name.format(self.rank))

    def like(self, x: Any, axes: slice) -> list[Any]:
        """Lists earlier tensors that agree with `x` in some axes."""
        return [t for t in self.tensors if len(t.shape) == len(x.shape) and same(t, x, axes)]


def same(a, b, axes: slice) -> bool:
    return a.shape[axes] == b.shape[axes]


SPATIAL, ALL = slice(1, -1), slice(1, None)


# --- steps: each takes the drawing and its last tensor, and returns a new one ------------------


def convolution(d: Drawing, x):
    size = d.one_of([1, 2, 3])
    strides = d.one_of([1, 1, 2])
    layer = d.kind("Conv{}D")(
        d.draw(WIDTHS),
        size,
        strides=strides,
        dilation_rate=d.one_of([1, 2]) if strides == 1 else 1,
        padding="same",
        activation=d.one_of([None, "relu", "gelu"]),
        use_bias=d.one_of([True, False]),
    )
    d.convolutions.append((layer, x.shape[-1]))
    return layer(x)


def grouped_convolution(d: Drawing, x):
    groups, inside, made = (d.one_of(options) for options in ([2, 3, 4], [1, 2, 3, 4], [1, 2, 3]))
    x = d.kind("Conv{}D")(groups * inside, 1)(x)
    return d.kind("Conv{}D")(groups * made, 3, groups=groups, padding="same")(x)


def shared_convolution(d: Drawing, x):
    fitting = [layer for layer, width in d.convolutions if width == x.shape[-1]]
    return d.one_of(fitting)(x) if fitting else convolution(d, x)


def transposed(d: Drawing, x):
    if max(x.shape[1:-1]) > EDGE[d.rank]:
        return x
    return d.kind("Conv{}DTranspose")(d.draw(WIDTHS), 2, strides=d.one_of([1, 2]))(x)


def depthwise(d: Drawing, x):
    if d.rank == 3:
        return convolution(d, x)
    multiplier = d.one_of([1, 2])
    if d.one_of([True, False]):
        return d.kind("DepthwiseConv{}D")(3, depth_multiplier=multiplier, padding="same")(x)
    layer = d.kind("SeparableConv{}D")
    return layer(d.draw(WIDTHS), 3, depth_multiplier=multiplier, padding="same")(x)


def dense(d: Drawing, x):
    units = d.draw(WIDTHS)
    if d.one_of([True, False]):
        return kl.Dense(units, activation=d.one_of([None, "tanh"]))(x)
    letters = "abcde"[: d.rank + 2]
    equation = f"{letters},{letters[-1]}x->{letters[:-1]}x"
    return kl.EinsumDense(equation, (*x.shape[1:-1], units), bias_axes=d.one_of([None, "x"]))(x)


def normalisation(d: Drawing, x):
    kinds = [
        kl.BatchNormalization(),
        kl.BatchNormalization(scale=False, center=False),
        kl.GroupNormalization(groups=-1),
        kl.UnitNormalization(axis=tuple(range(1, d.rank + 1))),
        kl.LayerNormalization(),
    ]
    if x.shape[-1] % 2 == 0:
        kinds.append(kl.GroupNormalization(groups=x.shape[-1] // 2))
    return d.one_of(kinds)(x)


def elementwise(d: Drawing, x):
    return d.one_of(
        [
            kl.ReLU(),
            kl.LeakyReLU(),
            kl.ELU(),
            kl.PReLU(shared_axes=list(range(1, d.rank + 1))),
            kl.PReLU(),
            kl.Activation("silu"),
            kl.Activation("hard_sigmoid"),
            kl.Dropout(0.5),
            kl.GaussianNoise(1.0),
            kl.Rescaling(0.5, 0.1),
            ops.tanh,
            lambda t: ops.relu6(t) * 2 - 1,
            d.kind("SpatialDropout{}D")(0.5),
        ]
    )(x)


def resized(d: Drawing, x):
    if min(x.shape[1:-1]) < 3 or max(x.shape[1:-1]) > EDGE[d.rank]:
        return x
    kinds = [
        d.kind("MaxPooling{}D")(2),
        d.kind("AveragePooling{}D")(2, padding="same"),
        d.kind("Cropping{}D")(1),
        d.kind("ZeroPadding{}D")(1),
        d.kind("UpSampling{}D")(2),
        kl.Reshape((*reversed(x.shape[1:-1]), x.shape[-1])),
    ]
    if d.rank == 2:
        kinds += [kl.Resizing(5, 6), kl.Permute((2, 1, 3))]
        kinds += [lambda t: ops.transpose(t, (0, 2, 1, 3))]
    return d.one_of(kinds)(x)


def merged(d: Drawing, x):
    other = d.one_of(d.like(x, ALL))
    if d.one_of([True, False]):
        names = ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]
        return getattr(kl, d.one_of(names))()([x, other])
    return d.one_of([ops.add, ops.subtract, ops.multiply, ops.maximum])(x, other)


def residual(d: Drawing, x):
    y = d.kind("Conv{}D")(x.shape[-1], 3, padding="same")(elementwise(d, x))
    return kl.Add()([x, y])


def concatenated(d: Drawing, x):
    if d.one_of([True, False]):
        return kl.Concatenate()([x, d.one_of(d.like(x, SPATIAL))])
    if max(x.shape[1:-1]) > EDGE[d.rank]:
        return x
    return ops.concatenate([d.one_of(d.like(x, ALL)), x], axis=1)


def stacked(d: Drawing, x):
    x = ops.stack([x, d.one_of(d.like(x, ALL))], axis=1)
    if d.one_of([True, False]):
        return ops.mean(x, axis=1)
    return ops.squeeze(x[:, 1:], axis=1)


def sliced(d: Drawing, x):
    if x.shape[-1] < 3:
        return x
    cut = d.draw(st.integers(1, x.shape[-1] - 1))
    way = d.one_of(["slice", "split", "pad", "rows"])
    if way == "slice":
        return x[..., cut:]
    if way == "pad":
        return ops.pad(x, [[0, 0]] * (d.rank + 1) + [[1, 2]])
    if way == "rows":
        return ops.concatenate(ops.split(x, [1], axis=1)[::-1], axis=1)
    parts = ops.split(x, [cut], axis=-1)
    return parts[d.one_of([0, 1])]


def squeeze_excite(d: Drawing, x):
    y = d.kind("GlobalAveragePooling{}D")(keepdims=d.one_of([True, False]))(x)
    y = kl.Dense(d.draw(WIDTHS), activation="relu")(y)
    y = kl.Dense(x.shape[-1], activation="sigmoid")(y)
    return kl.Multiply()([x, kl.Reshape((*[1] * d.rank, x.shape[-1]))(y)])


def attention(d: Drawing, x):
    if np.prod(x.shape[1:-1]) > 64:
        return x
    tokens = kl.Reshape((int(np.prod(x.shape[1:-1])), x.shape[-1]))(x)
    heads, width, values = (d.one_of(options) for options in ([1, 2, 3], [2, 3, 4], [None, 3]))
    if d.one_of([True, False]):
        dropout = d.one_of([0.0, 0.1])
        y = kl.MultiHeadAttention(heads, width, values, dropout=dropout)(tokens, tokens)
        return kl.Reshape(x.shape[1:])(y)
    query, key, value = (
        ops.transpose(kl.Reshape((-1, heads, width))(kl.Dense(heads * width)(tokens)), (0, 2, 1, 3))
        for _ in range(3)
    )
    shares = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))))
    y = kl.Reshape((-1, heads * width))(ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3)))
    return kl.Reshape((*x.shape[1:-1], x.shape[-1]))(kl.Dense(x.shape[-1])(y))


def shuffled(d: Drawing, x):
    groups = d.one_of([n for n in (2, 3, 4) if x.shape[-1] % n == 0] or [1])
    y = kl.Reshape((*x.shape[1:-1], groups, x.shape[-1] // groups))(x)
    rank = len(y.shape)
    y = ops.transpose(y, (*range(rank - 2), rank - 1, rank - 2))
    return kl.Reshape(x.shape[1:])(y)


def over_positions(d: Drawing, x):
    """A Dense over one axis of positions, as in an MLP-Mixer."""
    last = len(x.shape) - 1
    y = kl.Permute((*range(1, last - 1), last, last - 1))(x)
    y = kl.Dense(x.shape[-2])(kl.Dense(d.draw(WIDTHS), activation="relu")(y))
    return x + ops.swapaxes(y, -1, -2)


def attention_map(d: Drawing, x):
    return x * kl.Dense(1, activation="sigmoid")(x)


def unlisted(d: Drawing, x):
    return d.one_of(
        [lambda t: ops.flip(t, axis=-1), lambda t: ops.cumsum(t, axis=-1), kl.Softmax()]
    )(x)


def nested(d: Drawing, x):
    y = inside = keras.Input(x.shape[1:])
    for _ in range(2):
        y = d.one_of([convolution, elementwise, normalisation])(d, y)
    block = keras.Model(inside, y)
    y = block(x)
    return block(y) if d.one_of([True, False]) and same(x, y, ALL) else y


STEPS = (
    convolution,
    grouped_convolution,
    shared_convolution,
    transposed,
    depthwise,
    dense,
    normalisation,
    elementwise,
    resized,
    merged,
    residual,
    concatenated,
    stacked,
    sliced,
    squeeze_excite,
    attention_map,
    attention,
    shuffled,
    over_positions,
    unlisted,
    nested,
)


def head(d: Drawing, x):
    way = d.one_of(["pooled", "flat", "other flat", "channels"])
    if way == "channels":
        return kl.Dense(3)(x)
    if way == "pooled":
        x = d.kind("GlobalMaxPooling{}D")()(x)
    else:
        x = kl.Flatten(data_format=None if way == "flat" else "channels_first")(x)
    return kl.Dense(4, activation=d.one_of([None, "softmax"]))(x)


@st.composite
def models(draw, most_steps: int = 9) -> keras.Model:
    """Draws a random model with random weights."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    inputs = keras.Input((*[EDGE[rank]] * rank, 3))
    d = Drawing(draw, rank, [inputs])
    x = convolution(d, inputs)
    for _ in range(draw(st.integers(2, most_steps))):
        d.tensors.append(x)
        x = d.one_of(STEPS)(d, x)
    ends = [head(d, x)]
    if draw(st.integers(0, 3)) == 0:
        ends.append(head(d, d.one_of(d.tensors[1:])))
    model = keras.Model(inputs, ends if len(ends) > 1 else ends[0])
    randomise(model, draw(st.integers(0, 99)))
    return model


def randomise(model: keras.Model, seed: int) -> None:
    """Sets random weights everywhere, of a size that keeps activations near 1."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.dtype.startswith("float"):
            fan_in = max(1, np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 4)
            weight.assign(rng.normal(0, 1.5 / np.sqrt(fan_in), weight.shape))


@st.composite
def plans(draw, graph: amc_tf.ChannelGraph) -> amc_tf.PruningPlan:
    """Draws any plan: every group keeps a random non-empty set of channels."""
    return amc_tf.PruningPlan(
        {
            name: sorted(draw(st.sets(st.integers(0, group.channels - 1), min_size=1)))
            for name, group in graph.groups.items()
        }
    )


# --- what must hold ----------------------------------------------------------------------------


def close(a: Sequence[np.ndarray], b: Sequence[np.ndarray], tolerance: float = 2e-4) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(
            x, y, rtol=tolerance, atol=tolerance * max(np.abs(y).max(), 1e-6)
        )


def check_identity(model, graph) -> None:
    """Checks that keeping everything changes nothing."""
    copy = amc_tf.rebuild(model, graph, None)
    inputs = sample(model)
    close(outputs(copy, inputs), outputs(model, inputs), 1e-6)
    assert (amc_tf.macs(graph), amc_tf.params(graph)) == recount(copy)


def check_plan(model, graph, plan) -> keras.Model:
    """Checks that rebuilt equals masked and costs equal a recount; returns the rebuilt model."""
    rebuilt = amc_tf.rebuild(model, graph, plan)
    masked = amc_tf.mask(model, graph, plan)
    inputs = sample(model)
    close(outputs(rebuilt, inputs), outputs(masked, inputs))
    assert (amc_tf.macs(graph, plan), amc_tf.params(graph, plan)) == recount(rebuilt)
    return rebuilt


def check_twice(model, graph, plan, rebuilt, draw_plan) -> bool:
    """Checks that pruning the pruned model equals pruning once by the composed plan.

    Returns:
        Whether the pruned model's groups are those of the model; a grouped
        convolution that has lost groups may be pruned another way.
    """
    again = amc_tf.analyze(rebuilt, allow_approximate=graph.allow_approximate)
    second = draw_plan(again)
    twice = check_plan(rebuilt, again, second)
    widths = {name: group.channels for name, group in again.groups.items()}
    if widths != {name: len(kept) for name, kept in plan.keep.items()}:
        return False
    composed = {name: np.asarray(kept)[list(second.keep[name])] for name, kept in plan.keep.items()}
    once = amc_tf.rebuild(model, graph, amc_tf.PruningPlan(composed))
    inputs = sample(model)
    close(outputs(twice, inputs), outputs(once, inputs))
    return True


def check_files(model, rebuilt, folder) -> bool:
    """Checks that it computes the same when saved and loaded, and when converted to TFLite.

    Returns:
        Whether TFLite could be tried. It lacks, for instance, PReLU and grouped
        and dilated convolutions in three dimensions; then the dense model cannot
        be converted either. And its converter fails at an EinsumDense of one
        input channel, pruned or not (TensorFlow 2.21).
    """
    rebuilt.save(folder / "rebuilt.keras")
    loaded = keras.models.load_model(folder / "rebuilt.keras")
    inputs = sample(rebuilt)
    expected = outputs(rebuilt, inputs)
    close(outputs(loaded, inputs), expected, 1e-6)
    if any(isinstance(x, kl.EinsumDense) and x.kernel.shape[0] == 1 for x in rebuilt.layers):
        return False
    if any(isinstance(x, kl.UnitNormalization) for x in rebuilt.layers):
        return False  # TFLite's norm of a map of zeros, which a ReLU may leave, is NaN
    try:
        file = tflite_tools.convert(rebuilt)
    except Exception:
        with pytest.raises(Exception):  # noqa: B017 - whatever it is, it is not the pruning
            tflite_tools.convert(model)
        return False
    lite = tflite_tools.LiteRtModel(file)
    found = keras.tree.flatten(lite.predict(inputs))
    close([np.asarray(x) for x in found], expected, 1e-3)
    return True
