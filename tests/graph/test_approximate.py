"""Streams under layer normalisation: pruned where asked for, with statistics of what is kept."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras.src.applications import convnext

import amc_tf
from amc_tf.pruning.kept_normalization import KeptNormalization
from amc_tf.pruning.masked_model import MaskedModel
from amc_tf.pruning.verification import halved, noise, outputs_of

NORMS = {
    "layer": kl.LayerNormalization,
    "layer without scale": lambda: kl.LayerNormalization(scale=False),
    "layer without centre": lambda: kl.LayerNormalization(center=False),
    "neither": lambda: kl.LayerNormalization(center=False, scale=False),
    "root mean square": kl.RMSNormalization,
    "of another epsilon": lambda: kl.LayerNormalization(epsilon=0.1),
}


def _stream(norm, steps=2):
    inputs = keras.Input((9, 7))
    x = kl.Dense(16, name="stream")(inputs)
    for _ in range(steps):
        y = norm()(x)
        x = x + kl.MultiHeadAttention(4, 4)(y, y)
        x = x + kl.Dense(16)(kl.Dense(24, activation="gelu")(norm()(x)))
    x = kl.GlobalAveragePooling1D()(norm()(x))
    model = keras.Model(inputs, kl.Dense(3)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0.2, 0.5, weight.shape))
    return model


@pytest.mark.parametrize("kind", NORMS)
def test_rebuilt_is_masked_with_the_statistics_of_what_is_kept(kind):
    model = _stream(NORMS[kind])
    graph = amc_tf.analyze(model, allow_approximate=True)
    assert [n for n, group in graph.groups.items() if group.approximate] == ["stream"]
    assert graph.groups["stream"].channels == 16
    assert "statistics over their channels\n  stream" in amc_tf.describe(graph)
    assert amc_tf.verify(model, graph) < 1e-5
    small = amc_tf.rebuild(model, graph, halved(graph))
    assert amc_tf.params(graph, halved(graph)) == small.count_params()


def test_a_normalisation_by_hand():
    """What is left is normalised by the mean and the variance of the channels that are left."""
    inputs = keras.Input((4,))
    x = kl.Dense(5, name="stream", use_bias=False)(inputs)
    norm = kl.LayerNormalization(epsilon=1e-3, name="norm")
    model = keras.Model(inputs, kl.Dense(2, use_bias=False, name="end")(norm(x)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    graph = amc_tf.analyze(model, allow_approximate=True)
    kept = [0, 2, 3]
    small = amc_tf.rebuild(model, graph, amc_tf.PruningPlan({"stream": kept}))
    x = rng.normal(size=(6, 4)).astype("float32")
    first, (gamma, beta), last = (
        model.get_layer(name).get_weights() for name in ("stream", "norm", "end")
    )
    h = (x @ first[0])[:, kept]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-3)
    expected = (h * gamma[kept] + beta[kept]) @ last[0][kept]
    np.testing.assert_allclose(small(x), expected, rtol=1e-4, atol=1e-5)


def test_without_leave_streams_are_frozen():
    model = _stream(kl.LayerNormalization)
    graph = amc_tf.analyze(model)
    assert "stream" not in graph.groups
    assert not any(group.approximate for group in graph.groups.values())
    assert any("normalises by statistics" in reason for _, _, reason in graph.frozen)


def test_the_masked_model_takes_one_plan_after_another():
    model = _stream(kl.LayerNormalization)
    graph = amc_tf.analyze(model, allow_approximate=True)
    masked, x = MaskedModel(graph), noise(model)
    for seed in (0, 1):
        plan = halved(graph, seed)
        masked.assign(plan, {})
        (found,), (expected,) = (
            outputs_of(m, x) for m in (masked.model, amc_tf.rebuild(model, graph, plan))
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    masked.assign(None, {})
    np.testing.assert_allclose(outputs_of(masked.model, x)[0], outputs_of(model, x)[0], atol=1e-5)


def test_a_normalisation_of_all_channels_is_told(monkeypatch):
    model = _stream(kl.LayerNormalization)
    graph = amc_tf.analyze(model, allow_approximate=True)
    right = KeptNormalization.call

    def call(self, x):
        self.kept.assign(np.ones(self.kept.shape))
        return right(self, x)

    monkeypatch.setattr(KeptNormalization, "call", call)
    with pytest.raises(amc_tf.AmcError, match="differs from the masked one"):
        amc_tf.verify(model, graph)


@pytest.mark.parametrize(
    "norm",
    [lambda: kl.LayerNormalization(axis=(1, 2)), lambda: kl.UnitNormalization(), kl.Softmax],
)
def test_other_statistics_stay_frozen(norm):
    inputs = keras.Input((9, 7))
    x = norm()(kl.Dense(16, name="stream")(inputs))
    model = keras.Model(inputs, kl.Dense(3)(x))
    assert not amc_tf.analyze(model, allow_approximate=True).groups


def test_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = _stream(kl.LayerNormalization)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    graph = amc_tf.analyze(model, allow_approximate=True)
    masked = amc_tf.mask(model, graph, halved(graph))
    assert {x.dtype for x in masked.outputs} == {x.dtype for x in model.outputs}
    kinds = {type(layer) for layer in masked.layers}
    assert KeptNormalization in kinds
    own = next(layer for layer in masked.layers if isinstance(layer, KeptNormalization))
    assert own.compute_dtype == "bfloat16"
    assert amc_tf.verify(model, graph) < 0.05


def test_a_shared_normalisation():
    norm = kl.LayerNormalization()
    model = _stream(lambda: norm, steps=1)
    graph = amc_tf.analyze(model, allow_approximate=True)
    assert amc_tf.verify(model, graph) < 1e-5


def test_heads_under_a_normalisation_of_their_width():
    """The width of queries and keys is a group of its own, which is normalised."""
    inputs = keras.Input((9, 7))
    query, key, value = (kl.Reshape((9, 3, 8))(kl.Dense(24)(inputs)) for _ in range(3))
    query, key = kl.RMSNormalization()(query), kl.LayerNormalization()(key)
    x = kl.Reshape((9, 24))(keras.ops.dot_product_attention(query, key, value))
    model = keras.Model(inputs, kl.Dense(3)(x))
    graph = amc_tf.analyze(model, allow_approximate=True)
    assert sorted((g.channels, g.approximate) for g in graph.groups.values()) == [
        (3, False),
        (8, False),
        (8, True),
    ]
    assert amc_tf.verify(model, graph) < 1e-5


def test_scales_of_layers_that_keras_names():
    """ConvNeXt's LayerScale leaves it to Keras to name its weight, anew in each copy."""
    inputs = keras.Input((8, 8, 3))
    x = kl.LayerNormalization()(kl.Conv2D(10, 2, strides=2, name="stem")(inputs))
    y = kl.LayerNormalization()(kl.DepthwiseConv2D(3, padding="same")(x))
    y = kl.Dense(10)(kl.Dense(20, activation="gelu")(y))
    x = x + convnext.LayerScale(0.3, 10)(y)
    model = keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))
    for allowed, groups in ((False, 1), (True, 2)):
        graph = amc_tf.analyze(model, allow_approximate=allowed)
        assert len(graph.groups) == groups
        assert amc_tf.verify(model, graph) < 1e-5
        small = amc_tf.rebuild(model, graph, halved(graph))
        assert amc_tf.params(graph, halved(graph)) == small.count_params()


def test_the_setting_reaches_the_search(tmp_path):
    settings = amc_tf.SearchSettings(allow_approximate=True)
    graph = settings.constraints.analyze(
        _stream(kl.LayerNormalization), allow_approximate=settings.allow_approximate
    )
    assert graph.groups["stream"].approximate
