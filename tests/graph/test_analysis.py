"""Groups, refusals and costs of single graphs, derived by hand."""

import keras
import pytest
import tensorflow as tf
import zoo
from keras import layers as kl

import amc_tf


def _groups(model):
    return {
        n: (g.channels, g.producers, g.consumers) for n, g in amc_tf.analyze(model).groups.items()
    }


def _named(**layers):
    return layers


def test_residual_stream_is_one_group_and_its_branches_are_others():
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same", name="stem")(x)
    y = kl.Conv2D(5, 3, padding="same", name="inner")(x)
    y = kl.Conv2D(8, 1, name="outer")(y)
    x = kl.Add(name="sum")([x, y])
    model = keras.Model(inputs, kl.Dense(2, name="head")(kl.GlobalAveragePooling2D()(x)))
    assert _groups(model) == {
        "stem": (8, ("stem", "outer"), ("inner", "head")),
        "inner": (5, ("inner",), ("outer",)),
    }


def test_slices_part_a_layer_into_groups():
    groups = amc_tf.analyze(zoo.build("sliced")).groups
    first = [g for g in groups.values() if g.producers == next(iter(groups.values())).producers]
    assert sorted(g.channels for g in first) == [3, 5]
    assert len({g.name for g in first}) == 2


def test_squeeze_excite_ties_gate_and_trunk():
    groups = _groups(zoo.build("squeeze_excite"))
    assert sorted(channels for channels, _, _ in groups.values()) == [3, 6, 8]
    trunk = next(g for g in groups.values() if g[0] == 8)
    assert len(trunk[1]) == 2 and len(trunk[2]) == 2


def test_zero_padded_channels_belong_to_the_stream_they_are_added_to():
    groups = amc_tf.analyze(zoo.build("zero_padded_shortcut")).groups
    # 4 channels of the stem also live in the wide stream; 6 of that exist beside them.
    assert sorted(g.channels for g in groups.values()) == [4, 6, 6]


def test_refusals_name_operation_class_and_reason_and_freeze_only_neighbours():
    graph = amc_tf.analyze(zoo.build("unlisted_in_the_middle"))
    refused = {name: (class_name, reason) for name, class_name, reason in graph.refused}
    assert refused["unlisted"][0] == "Unlisted"
    assert "its class is not in the layer table" in refused["unlisted"][1]
    assert sorted(g.channels for g in graph.groups.values()) == [5, 6, 6, 8]


@pytest.mark.parametrize(
    "layer, part",
    [
        (kl.Lambda(lambda t: t[..., ::-1]), "Lambda"),
        (kl.Softmax(), None),
        (kl.Activation("log_softmax"), None),
        (kl.Activation("glu"), "glu"),
        (kl.Lambda(lambda t: t[..., ::2]), "Lambda"),
        (kl.BatchNormalization(axis=1), "axis 1"),
        (kl.Rescaling([1.0] * 6), "differs from channel to channel"),
        (kl.RandomHue(0.1), "mixes colours"),
        (kl.LayerNormalization(axis=(1, 2)), "its weights belong to positions"),
        (kl.GroupNormalization(groups=8, axis=1), "axis 1"),
    ],
)
def test_what_mixes_channels_freezes_them(layer, part):
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(6, 3, padding="same", name="before")(x)
    x = kl.Flatten()(layer(x))
    model = keras.Model(inputs, kl.Dense(2)(kl.Dense(4, name="after")(x)))
    graph = amc_tf.analyze(model)
    assert list(graph.groups) == ["after"]
    told = [f"{r.class_name} {r.reason}" for r in graph.refused]
    if part is None:
        assert not told and any("softmax" in reason for _, _, reason in graph.frozen)
    else:
        assert part in " ".join(told)


def test_a_shared_layer_with_one_refused_call_is_frozen():
    a, b = keras.Input((6, 3)), keras.Input((6, 3))
    mask = keras.Input((6,), dtype="bool")
    norm = kl.BatchNormalization()
    ya, yb = kl.Dense(4, name="left")(a), kl.Dense(4, name="right")(b)
    x = kl.Concatenate()([norm(ya), norm(yb, mask=mask)])
    x = kl.Dense(2)(kl.Dense(5, name="free")(x))
    graph = amc_tf.analyze(keras.Model([a, b, mask], x))
    assert list(graph.groups) == ["free"]
    assert "one of its options is a tensor" in [r.reason for r in graph.refused]


def test_softmax_inside_a_layer_freezes_its_channels():
    x = inputs = keras.Input((6,))
    x = kl.Dense(5, activation="softmax", name="gate")(x)
    model = keras.Model(inputs, kl.Dense(2)(kl.Dense(3, name="free")(x)))
    assert list(amc_tf.analyze(model).groups) == ["free"]


def test_subclasses_of_listed_layers_are_not_guessed():
    class Reversed(kl.Conv2D):
        def call(self, inputs):
            return super().call(inputs)[..., ::-1]

    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, name="before")(x)
    x = Reversed(5, 3, name="mine")(x)
    model = keras.Model(inputs, kl.GlobalAveragePooling2D()(x))
    graph = amc_tf.analyze(model)
    assert not graph.groups
    assert [tuple(r)[:2] for r in graph.refused] == [("mine", "Reversed")]


def test_models_that_cannot_be_seen_are_refused_in_one_sentence():
    class Mine(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(amc_tf.AmcError, match="keras.Model\\(inputs, outputs\\)"):
        amc_tf.analyze(Mine())
    with pytest.raises(amc_tf.AmcError, match="known input shape"):
        amc_tf.analyze(keras.Sequential([kl.Dense(3)]))
    with pytest.raises(amc_tf.AmcError, match="expected a keras.Model"):
        amc_tf.analyze("model.keras")


def test_costs_by_hand():
    x = inputs = keras.Input((10, 10, 3))
    x = kl.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)  # 5 x 5
    x = kl.BatchNormalization()(x)
    x = kl.DepthwiseConv2D(3, name="depthwise")(x)  # 3 x 3
    x = kl.SeparableConv2D(6, 2, name="separable")(x)  # 2 x 2
    x = kl.Conv2DTranspose(5, 2, strides=2, name="transposed")(x)  # 4 x 4
    model = keras.Model(inputs, kl.Dense(7, name="dense")(kl.Flatten()(x)))
    graph = amc_tf.analyze(model)
    conv = 25 * 9 * 3 * 4
    depthwise = 9 * 9 * 4
    separable = 4 * 4 * 4 + 4 * 4 * 6
    transposed = 4 * 4 * 6 * 5
    dense = 80 * 7
    assert amc_tf.macs(graph) == conv + depthwise + separable + transposed + dense
    # Two of conv's four channels, one of the six, three of the five.
    plan = amc_tf.PruningPlan({"conv": [0, 3], "separable": [2], "transposed": [0, 1, 2]})
    expected = 25 * 9 * 3 * 2 + 9 * 9 * 2 + (4 * 4 * 2 + 4 * 2 * 1) + 4 * 4 * 1 * 3 + 48 * 7
    assert amc_tf.macs(graph, plan) == expected
    parameters = (27 * 2 + 2) + 4 * 2 + (9 * 2 + 2) + (4 * 2 + 2 * 1 + 1) + (4 * 3 + 3) + 48 * 7 + 7
    assert amc_tf.params(graph, plan) == parameters


def test_open_input_size_has_parameters_but_no_macs():
    x = inputs = keras.Input((None, None, 3))
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3)(x))
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(x)))
    assert amc_tf.params(graph) == 112 + 10
    with pytest.raises(amc_tf.AmcError, match="fixed input size"):
        amc_tf.macs(graph)
    assert "MACs unknown" in amc_tf.describe(graph)


# Multiply-adds per the networks' papers and Keras' documentation: MobileNet 569 M (table 8),
# MobileNetV2 300 M (table 4), ResNet-50 3.8 G (He et al., table 1; v1 strides as in Keras),
# VGG-16 15.5 G. Exact values counted layer by layer.
@pytest.mark.parametrize(
    "name, millions, exact",
    [
        ("MobileNet", 569, 568_740_352),
        ("MobileNetV2", 301, 300_774_272),
        ("ResNet50", 3858, 3_857_973_248),
        ("VGG16", 15470, 15_470_264_320),
    ],
)
def test_published_macs(name, millions, exact):
    model = getattr(keras.applications, name)(weights=None)
    graph = amc_tf.analyze(model)
    assert amc_tf.macs(graph) == exact
    assert round(exact / 1e6) == millions
    assert amc_tf.params(graph) == model.count_params()
    assert not graph.refused


def test_listing_names_groups_and_reasons():
    text = amc_tf.describe(amc_tf.analyze(zoo.build("unlisted_in_the_middle")))
    assert "4 groups, 25 prunable channels" in text
    assert "unlisted (Unlisted): its class is not in the layer table" in text
    assert "3 channels of input: model input" in text
    assert "mixes channels" in text  # the classifier's softmax


def _through(shape, *layers):
    x = inputs = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def test_channels_first_is_refused_in_one_sentence():
    model = _through((8, 8, 3), kl.Conv2D(4, 3), kl.MaxPooling2D(data_format="channels_first"))
    with pytest.raises(amc_tf.AmcError, match="max_pooling2d.*channels_last"):
        amc_tf.analyze(model)


def test_frozen_patterns_keep_a_layers_channels():
    model = _through(
        (8, 8, 3), kl.Conv2D(4, 3, name="stem"), kl.Conv2D(5, 3, name="body"), kl.Flatten()
    )
    model = keras.Model(model.inputs, kl.Dense(2)(model.outputs[0]))
    graph = amc_tf.analyze(model, freeze=("ste*",))
    assert list(graph.groups) == ["body"]
    assert (("stem",), 4, "frozen by the pattern 'ste*'") in graph.frozen


@pytest.mark.parametrize(
    "filters, groups, before, expected",
    [
        # Two groups of six inputs and four outputs: the same positions of both.
        (8, 2, 12, {"before": 6, "grouped": 4}),
        # Six groups of two: whole groups, inputs with outputs.
        (18, 6, 12, {"before": 6}),
        (12, 12, 12, {"before": 12}),
    ],
)
def test_grouped_convolutions(filters, groups, before, expected):
    model = _through(
        (6, 6, 3),
        kl.Conv2D(before, 1, name="before"),
        kl.Conv2D(filters, 3, groups=groups, name="grouped"),
        kl.GlobalAveragePooling2D(),
        kl.Dense(2),
    )
    graph = amc_tf.analyze(model)
    assert {name: group.channels for name, group in graph.groups.items()} == expected
    half = amc_tf.PruningPlan({name: range(n // 2) for name, n in expected.items()})
    pruned = amc_tf.rebuild(model, graph, half).get_layer("grouped")
    whole = "grouped" not in expected
    assert pruned.groups == (groups // 2 if whole else groups)
    assert pruned.filters == filters // 2
    inside = before // groups
    assert pruned.kernel.shape == (3, 3, inside if whole else inside // 2, filters // 2)


def test_macs_of_layers_that_are_never_pruned():
    model = _through((5, 8), kl.LSTM(6, return_sequences=True))
    assert amc_tf.macs(amc_tf.analyze(model)) == 5 * 4 * (8 * 6 + 6 * 6)
    x, y = keras.Input((5, 8)), keras.Input((7, 4))
    model = keras.Model([x, y], kl.MultiHeadAttention(2, 3, value_dim=5)(x, y))
    projections = 5 * 8 * 2 * 3 + 7 * 4 * 2 * 3 + 7 * 4 * 2 * 5 + 5 * 2 * 5 * 8
    assert amc_tf.macs(amc_tf.analyze(model)) == projections + 2 * 5 * 7 * (3 + 5)
    model = _through((5, 8), kl.EinsumDense("abc,cde->abde", (None, 2, 3)))
    assert amc_tf.macs(amc_tf.analyze(model)) == 5 * 8 * 6


class Scale(kl.Layer):
    """y = x * scale, one factor for each channel, by an operation that Keras cannot see."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale", initializer="uniform")

    def call(self, x):
        return tf.multiply(x, self.scale)

    def compute_output_shape(self, shape):
        return shape


def test_a_layer_of_ones_own_can_be_registered():
    class Mine(Scale):
        pass

    class Wrong(Scale):
        pass

    def model(layer):
        return _through((6,), kl.Dense(8, name="before"), layer, kl.Dense(3))

    assert not amc_tf.analyze(model(Mine())).groups
    amc_tf.register_layer(Mine, like=kl.ReLU, weights={"scale": ("in",)})
    mine = model(Mine())
    graph = amc_tf.analyze(mine)
    assert list(graph.groups) == ["before"]
    assert amc_tf.verify(mine, graph) < 1e-6
    assert not amc_tf.analyze(model(Scale())).groups  # it alone was meant
    # A wrong promise: the scales are not sliced.
    amc_tf.register_layer(Wrong, like=kl.ReLU)
    wrong = model(Wrong())
    with pytest.raises(Exception, match="shape"):
        amc_tf.verify(wrong, amc_tf.analyze(wrong))


def test_verify_tells_a_wrong_row():
    class Reversing(kl.Layer):
        def call(self, x):
            return x[..., ::-1]

    amc_tf.register_layer(Reversing, like=kl.ReLU)
    model = _through((6,), kl.Dense(8, name="before"), Reversing(), kl.Dense(3))
    with pytest.raises(amc_tf.AmcError, match="register_layer may be wrong"):
        amc_tf.verify(model, amc_tf.analyze(model))


def test_register_layer_refuses_what_it_cannot_read():
    class Mine(kl.Layer):
        pass

    with pytest.raises(amc_tf.AmcError, match="either like="):
        amc_tf.register_layer(Mine)
    with pytest.raises(amc_tf.AmcError, match="Hashing is not in the layer table"):
        amc_tf.register_layer(Mine, like=kl.Hashing)
    with pytest.raises(amc_tf.AmcError, match="a row has the fields connect, weights"):
        amc_tf.register_layer(Mine, like=kl.ReLU, wieghts={})
    with pytest.raises(amc_tf.AmcError, match="expected a layer class"):
        amc_tf.register_layer(Mine(), like=kl.ReLU)
