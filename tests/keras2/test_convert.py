"""Keras 2 models carried over to Keras 3 and back, each side run on the same numbers."""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import zoo
from tf_keras import layers as l2

import amc_tf
from amc_tf.errors import AmcError
from amc_tf.graph.activations import keras2_hard_sigmoid
from amc_tf.graph.layer_table import TABLE
from amc_tf.keras2 import model_files, tensorflow_op


def _conv_bn(x, filters, activation="relu", **options):
    options = {"padding": "same", "use_bias": False, **options}
    x = l2.Conv2D(filters, 3, **options)(x)
    return l2.Activation(activation)(l2.BatchNormalization()(x))


def _head(x):
    return l2.Dense(3, activation="softmax")(l2.GlobalAveragePooling2D()(x))


def residual():
    x = inputs = l2.Input((8, 8, 3))
    x = _conv_bn(x, 8, "swish")
    x = l2.Add()([x, _conv_bn(x, 8, tf.nn.relu6)])
    return tf_keras.Model(inputs, _head(_conv_bn(x, 6)))


def operators():
    """TensorFlow functions, constants on both sides, keyword arguments, a name that repeats."""
    inputs = l2.Input((8, 8, 3))
    y = l2.Conv2D(6, 3, padding="same", name="add")(inputs)
    x = tf.nn.relu(y * 2 + 0.5 * y) / 3 - 1
    x = tf.maximum(1 - x, y=y)
    x = tf.nn.leaky_relu(x, alpha=0.1) * tf.sigmoid(y)
    x = tf.nn.silu(tf.concat([x, tf.nn.relu6(y)], axis=-1))
    x = tf_keras.activations.hard_sigmoid(l2.Conv2D(5, 3)(x)) - tf.clip_by_value(
        -x[:, 2:, 2:, :5], 0, 1
    )
    x = tf.pad(x, [[0, 0], [1, 1], [0, 1], [0, 0]])
    x = tf.reshape(tf.nn.max_pool2d(x, 2, 2, "SAME"), (-1, 16, 5))
    return tf_keras.Model(inputs, l2.Dense(2)(tf.reduce_mean(x, 1)))


def shapes_at_run_time():
    """What no keras.ops call stands for, sizes that are tensors among it."""
    inputs = l2.Input((8, 8, 3))
    x = l2.Conv2D(4, 3, padding="same")(inputs)
    a, b = tf.split(x, 2, axis=-1)
    x = tf.stack([a, b], axis=-1)
    x = tf.reshape(x, [tf.shape(x)[0], 64, 4])
    x = tf.image.resize(tf.expand_dims(x, 1), (1, 5)) ** 2 + np.linspace(0, 1, 4)
    return tf_keras.Model(inputs, l2.Dense(2)(l2.Flatten()(x)))


def upsampled():
    inputs = l2.Input((8, 8, 3))
    x = _conv_bn(inputs, 4, strides=2)
    x = tf.image.resize(x, (8, 8)) + l2.UpSampling2D()(x)
    x = l2.Conv2DTranspose(5, 3)(tf.image.resize(x, (16, 8), method="nearest"))
    return tf_keras.Model(inputs, _head(x))


def depthwise_and_gates():
    inputs = l2.Input((9, 9, 3))
    x = l2.Rescaling(1 / 4, offset=0.5)(inputs)
    x = l2.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(x)
    x = l2.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(_conv_bn(x, 6))
    x = l2.LeakyReLU(0.07)(l2.PReLU(shared_axes=[1, 2])(x))
    x = l2.ReLU(6.0, negative_slope=0.1, threshold=0.2)(l2.ELU(0.7)(x))
    x = l2.SeparableConv2D(8, 3, depth_multiplier=2, activation="hard_sigmoid")(x)
    s = l2.Dense(4, activation="gelu")(l2.GlobalAveragePooling2D(keepdims=True)(x))
    x = l2.Multiply()([x, l2.Dense(8, activation="hard_sigmoid")(s)])
    return tf_keras.Model(inputs, _head(x))


def nested():
    """A frozen backbone that runs in inference mode, and a Sequential inside it."""
    inner = tf_keras.Sequential([l2.Input((8, 8, 6)), l2.Conv2D(5, 3, name="conv"), l2.ReLU()])
    backbone_in = l2.Input((8, 8, 3))
    backbone = tf_keras.Model(backbone_in, inner(_conv_bn(backbone_in, 6)), name="backbone")
    backbone.trainable = False
    inputs = l2.Input((8, 8, 3))
    x = backbone(inputs, training=False)
    return tf_keras.Model(inputs, _head(l2.Conv2D(4, 3, name="conv")(x)))


def shared_and_structured():
    """A layer and a model called twice; dictionaries in and out."""
    conv = l2.Conv2D(5, 3, activation="relu")
    tower = tf_keras.Sequential([l2.Input((6, 6, 5)), l2.Conv2D(4, 3), l2.Flatten()])
    inputs = {"right": l2.Input((8, 8, 3), name="r"), "left": l2.Input((8, 8, 3), name="l")}
    left, right = (tower(conv(inputs[k])) for k in ("left", "right"))
    outputs = {"z": l2.Dense(2)(left - right), "a": [l2.Subtract()([right, left]), left]}
    return tf_keras.Model(inputs, outputs)


def functions():
    """Functions of the user's own."""
    inputs = l2.Input((8, 8, 3))
    x = l2.Conv2D(5, 3, activation=lambda x: tf.nn.relu(x) - 0.1 * tf.square(x))(inputs)
    x = l2.Lambda(lambda x, power: tf.abs(x) ** power, arguments={"power": 1.5})(x)
    return tf_keras.Model(inputs, _head(x))


def recurrent():
    inputs = l2.Input((3,))
    x = l2.Embedding(11, 4, mask_zero=True)(inputs)
    x = l2.Bidirectional(l2.LSTM(2, return_sequences=True))(x)
    state = l2.GlobalMaxPooling1D()(l2.TimeDistributed(l2.Dense(3))(x))
    y = l2.Embedding(11, 4)(inputs)
    y = l2.GRU(3)(l2.MultiHeadAttention(2, 3)(y, y), initial_state=state)
    return tf_keras.Model(inputs, l2.LayerNormalization()(y))


def smallest():
    inputs = l2.Input((4,))
    return tf_keras.Model(inputs, tf.nn.relu(l2.Dense(3, activation="hard_sigmoid")(inputs) - 0.5))


def sequential():
    return tf_keras.Sequential(
        [
            l2.Input((16, 3)),
            l2.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="elu"),
            l2.ZeroPadding1D(1),
            l2.MaxPooling1D(),
            l2.SpatialDropout1D(0.2),
            l2.Conv1DTranspose(4, 3, strides=2),
            l2.Flatten(),
            l2.Dense(2, activation="sigmoid"),
        ]
    )


ZOO2 = [
    residual,
    operators,
    shapes_at_run_time,
    upsampled,
    depthwise_and_gates,
    nested,
    shared_and_structured,
    functions,
    recurrent,
    sequential,
]


def _randomised(model):
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if "variance" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.dtype.is_floating:
            weight.assign(rng.normal(0, 0.4, weight.shape))
    for layer in model.layers:
        if isinstance(layer, l2.Normalization):
            layer.finalize_state()
    return model


def _inputs(model):
    """In the nesting that the model takes."""
    rng = np.random.default_rng(5)

    def array(t):
        shape = [2 if i == 0 else n or 7 for i, n in enumerate(t.shape)]
        whole = any(isinstance(layer, l2.Embedding) for layer in model.layers)
        values = rng.integers(0, 11, shape) if whole else rng.normal(size=shape)
        return tf.constant(values, t.dtype)

    return tf.nest.map_structure(array, model._nested_inputs)


def _assert_same(a, b, tolerance=1e-5):
    tf.nest.assert_same_structure(a, b)
    for x, y in zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(x).max())


@pytest.mark.parametrize("make", ZOO2, ids=lambda make: make.__name__)
def test_there_and_back_with_pruning_between(make):
    keras.utils.set_random_seed(0)
    old = _randomised(make())
    x = _inputs(old)
    new = amc_tf.from_keras2(old)
    assert isinstance(new, keras.Model)
    _assert_same(old(x, training=False), new(x, training=False))

    graph = amc_tf.analyze(new)
    plan = amc_tf.PruningPlan(
        {name: range(0, group.channels, 2) for name, group in graph.groups.items()}
    )
    pruned = amc_tf.rebuild(new, graph, plan)
    if make in (residual, operators, upsampled, nested, sequential):
        assert pruned.count_params() < new.count_params()
    back = amc_tf.to_keras2(pruned)
    assert isinstance(back, tf_keras.Model)
    assert back.count_params() == pruned.count_params()
    _assert_same(pruned(x, training=False), back(x, training=False))


@pytest.mark.parametrize(
    "name",
    [
        "residual_operators",
        "zero_padded_shortcut",
        "sliced",
        "reshaped",
        "nested_backbone",
        "shared_layers",
        "two_outputs",
        "spatial_attention",
    ],
)
def test_keras_3_models_go_out_and_come_in(name):
    model = zoo.build(name)
    x = zoo.sample(model)
    old = amc_tf.to_keras2(model)
    expected = model(x, training=False)
    _assert_same(expected, old(x, training=False))
    _assert_same(expected, amc_tf.from_keras2(old)(x, training=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, groups",
    [("MobileNet", 14), ("MobileNetV2", 25), ("ResNet50", 37), ("EfficientNetB0", 40)],
)
def test_applications(name, groups):
    """As many groups as in Keras 3's own version."""
    old = _randomised(getattr(tf_keras.applications, name)(weights=None, input_shape=(64, 64, 3)))
    new = amc_tf.from_keras2(old)
    assert len(amc_tf.analyze(new).groups) == groups
    back = amc_tf.to_keras2(new)
    x = _inputs(old)
    _assert_same(old(x, training=False), back(x, training=False))


# --- layer classes -------------------------------------------------------------------------

_ARGUMENTS = {
    "Activation": ("tanh",),
    "CategoryEncoding": (4,),
    "Dense": (4,),
    "DepthwiseConv1D": (3,),
    "DepthwiseConv2D": (3,),
    "GroupNormalization": (5,),
    "EinsumDense": ("ab,bc->ac", 4),
    "Embedding": (11, 4),
    "Lambda": (tf.abs,),
    "Permute": ((1,),),
    "RepeatVector": (3,),
    "Rescaling": (0.5, 0.1),
    "Reshape": ((-1,),),
    "Resizing": (5, 6),
    "CenterCrop": (3, 3),
    "RandomRotation": (0.1,),
    "RandomTranslation": (0.1, 0.1),
    "RandomZoom": (0.1,),
    "RandomContrast": (0.1,),
    "RandomBrightness": (0.1,),
}
_RANK_4 = "Resizing CenterCrop UnitNormalization GroupNormalization Random"
_STOCK = sorted(
    name
    for name, kind in vars(l2).items()
    if isinstance(kind, type) and kind.__name__ == name and hasattr(keras.layers, name)
)
# Called in another way, or on something else than a tensor of numbers.
_APART = set(
    "LSTM GRU "  # slow, and like others that are tried
    "Layer Wrapper InputLayer InputSpec RNN StackedRNNCells LSTMCell GRUCell SimpleRNNCell "
    "Bidirectional TimeDistributed SpectralNormalization Dot MultiHeadAttention Attention "
    "AdditiveAttention Hashing HashedCrossing StringLookup IntegerLookup TextVectorization "
    # Keras 3 crops what is smaller than the crop in another way.
    "Discretization RandomCrop".split()
)
_MERGES = "Add Subtract Multiply Average Maximum Minimum Concatenate".split()


def _single_layer_model(name):
    rank = next((int(n) for n in "123" if f"{n}D" in name), None)
    if name.startswith("ConvLSTM"):
        rank += 1
    if rank is None:
        rank = 2 if any(part in name for part in _RANK_4.split()) else 0
    if name in ("LSTM", "GRU", "SimpleRNN", "Masking"):
        rank = 1
    arguments = _ARGUMENTS.get(name, ())
    if not arguments and name.startswith(("Conv", "Separable")):
        arguments = (4, 2)
    elif not arguments and ("Dropout" in name or "Noise" in name):
        arguments = (0.3,)
    elif not arguments and name in ("LSTM", "GRU", "SimpleRNN"):
        arguments = (4,)
    elif not arguments and name.startswith(("MaxPooling", "AveragePooling")):
        arguments = (2,)
    inputs = l2.Input((*[6] * rank, 5))
    layer = getattr(l2, name)(*arguments)
    return tf_keras.Model(inputs, layer([inputs, inputs] if name in _MERGES else inputs))


@pytest.mark.parametrize("name", [n for n in _STOCK if n not in _APART])
def test_every_stock_layer_goes_over_and_back(name):
    """The copies are checked against their originals within; what must not happen is an error."""
    old = _randomised(_single_layer_model(name))
    new = amc_tf.from_keras2(old)
    assert type(new.layers[-1]).__name__ == name
    back = amc_tf.to_keras2(new)
    assert type(back.layers[-1]) is type(old.layers[-1])
    ours, theirs = (m.layers[-1].get_config() for m in (back, old))
    # The constructor's `factor` may be one number for a range.
    if name not in ("Lambda", "RandomContrast", "RandomRotation"):
        assert {k: str(v) for k, v in ours.items() if not k.endswith("initializer")} == {
            k: str(v) for k, v in theirs.items() if not k.endswith("initializer")
        }


@pytest.mark.parametrize("name", ["Attention", "AdditiveAttention"])
def test_attention_of_two_sequences_goes_over_and_back(name):
    inputs = [l2.Input((6, 5)), l2.Input((4, 5))]
    old = _randomised(tf_keras.Model(inputs, getattr(l2, name)()(inputs)))
    x = _inputs(old)
    new = amc_tf.from_keras2(old)
    _assert_same(old(x, training=False), new(x, training=False))
    _assert_same(old(x, training=False), amc_tf.to_keras2(new)(x, training=False))


def test_no_class_of_the_table_is_left_untested():
    layers = {kind.__name__ for kind in TABLE if issubclass(kind, keras.Layer)}
    elsewhere = set(
        "MultiHeadAttention Attention AdditiveAttention Bidirectional TimeDistributed LSTM GRU "
        "RandomCrop".split()
    )
    assert {name for name in layers if hasattr(l2, name)} - elsewhere <= set(_STOCK) - _APART


def test_what_the_two_kerases_compute_otherwise_is_refused():
    """The crop of what is smaller than the crop."""
    inputs = l2.Input((6, 6, 2))
    old = tf_keras.Model(inputs, l2.RandomCrop(3, 4, name="crop")(inputs))
    with pytest.raises(AmcError, match="the first layer that differs is 'crop'"):
        amc_tf.from_keras2(old)


# --- what is kept --------------------------------------------------------------------------


def test_regularizers_constraints_and_trainable_flags_are_kept():
    inputs = l2.Input((4,))
    x = l2.Dense(
        3,
        kernel_regularizer=tf_keras.regularizers.L1L2(0.1, 0.2),
        bias_regularizer="l2",
        kernel_constraint=tf_keras.constraints.MaxNorm(2.0),
        name="a",
    )(inputs)
    x = l2.BatchNormalization(momentum=0.7, epsilon=0.01, name="b")(x)
    old = tf_keras.Model(inputs, x)
    old.get_layer("b").trainable = False
    back = amc_tf.to_keras2(amc_tf.from_keras2(old))
    for model in (amc_tf.from_keras2(old), back):
        a, b = model.get_layer("a"), model.get_layer("b")
        assert type(a.kernel_regularizer).__name__ == "L1L2"
        np.testing.assert_allclose([a.kernel_regularizer.l1, a.kernel_regularizer.l2], [0.1, 0.2])
        np.testing.assert_allclose(a.bias_regularizer.l2, 0.01)
        assert a.kernel_constraint.max_value == 2.0
        assert (b.momentum, b.epsilon, b.trainable, a.trainable) == (0.7, 0.01, False, True)
        np.testing.assert_allclose(sum(map(float, model.losses)), sum(map(float, old.losses)))


def test_mixed_precision_goes_over():
    inputs = l2.Input((8, 8, 3))
    x = l2.Conv2D(4, 3, dtype="mixed_float16")(inputs) * 2
    x = l2.BatchNormalization(dtype="mixed_float16")(x)
    x = l2.Dense(2, dtype="float32")(l2.Flatten()(x))
    new = amc_tf.from_keras2(tf_keras.Model(inputs, x))
    assert [layer.compute_dtype for layer in new.layers if layer.weights] == [
        "float16",
        "float16",
        "float32",
    ]
    back = amc_tf.to_keras2(new)
    assert [layer.compute_dtype for layer in back.layers if layer.weights] == [
        "float16",
        "float16",
        "float32",
    ]


def test_keras_2_hard_sigmoid_keeps_its_slope():
    inputs = l2.Input((1,))
    new = amc_tf.from_keras2(tf_keras.Model(inputs, l2.Activation("hard_sigmoid")(inputs)))
    # 0.2 x + 0.5, not Keras 3's x / 6 + 0.5.
    np.testing.assert_allclose(new(np.array([[-3.0], [1.0], [2.0]])), [[0.0], [0.7], [0.9]])


def test_the_pruned_model_is_of_stock_layers():
    """Tools for Keras 2 models know no TensorFlow functions, nor activations Keras 2 lacks."""
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu6")(x)
    y = keras.ops.relu(x * 2) + x
    y = keras.ops.concatenate([keras.ops.hard_silu(y), keras.ops.pad(y, [[0, 0]] * 4)], axis=-1)
    y = keras.layers.Dense(2)(keras.ops.mean(y, axis=(1, 2)))
    back = amc_tf.to_keras2(keras.Model(inputs, y))
    names = [type(layer).__name__ for layer in back.layers]
    assert names.count("ReLU") == 3  # relu6 of the convolution, relu, and within hard_silu
    assert "GlobalAveragePooling2D" in names and "Concatenate" in names
    assert all(type(layer) is getattr(l2, type(layer).__name__, None) for layer in back.layers)
    again = tf_keras.Model.from_config(back.get_config())
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in back.layers]


# --- custom classes ------------------------------------------------------------------------


class Scale(l2.Layer):
    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=shape[-1:], initializer="ones")

    def call(self, x):
        return x * self.factor * self.start

    def get_config(self):
        return {**super().get_config(), "start": self.start}


class Scale3(keras.Layer):
    offset = 0.0

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=shape[-1:], initializer="ones")

    def call(self, x):
        return x * self.factor * self.start + self.offset

    def get_config(self):
        return {**super().get_config(), "start": self.start}


class Wrong(Scale3):
    offset = 0.5


def _with_scale():
    inputs = l2.Input((8, 8, 3))
    x = Scale(0.5, name="scale")(_conv_bn(inputs, 4))
    return _randomised(tf_keras.Model(inputs, _head(x)))


def test_a_custom_layer_needs_a_counterpart_that_is_named():
    old = _with_scale()
    with pytest.raises(AmcError, match=r'keras 3\S*: Scale; .*custom_objects=\{"Scale": MyVersion'):
        amc_tf.from_keras2(old)
    new = amc_tf.from_keras2(old, {"Scale": Scale3})
    x = _inputs(old)
    _assert_same(old(x), new(x))
    assert type(new.get_layer("scale")) is Scale3
    _assert_same(old(x), amc_tf.to_keras2(new, {"Scale3": Scale})(x))
    with pytest.raises(AmcError, match=r"tf_keras 2\S*: Scale3;"):
        amc_tf.to_keras2(new)


def test_a_copy_that_differs_is_refused_and_the_layer_named():
    with pytest.raises(AmcError, match="the first layer that differs is 'scale'"):
        amc_tf.from_keras2(_with_scale(), {"Scale": Wrong})


def test_subclassed_and_foreign_models_are_refused():
    class Subclassed(tf_keras.Model):
        def call(self, x):
            return x

    with pytest.raises(AmcError, match="Subclassed"):
        amc_tf.from_keras2(Subclassed())
    with pytest.raises(AmcError, match="expected a Keras 2 model"):
        amc_tf.from_keras2(zoo.plain())
    with pytest.raises(AmcError, match="no model file or folder"):
        amc_tf.from_keras2("/absent/model.h5")


def test_a_setting_that_keras_3_does_not_have_is_refused():
    inputs = l2.Input((5, 3))
    old = tf_keras.Model(inputs, l2.LSTM(3, time_major=True, return_sequences=True)(inputs))
    with pytest.raises(
        AmcError, match=r"'lstm\w*' \(LSTM\) cannot be made anew in keras.*time_major"
    ):
        amc_tf.from_keras2(old)


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.h5", "model.keras", "folder"])
def test_files_of_keras_2_load(tmp_path, file):
    old = _randomised({"model.h5": operators, "folder": smallest}.get(file, depthwise_and_gates)())
    old.compile("adam", "mse")
    old.save(tmp_path / file)
    assert model_files.is_keras2_file(tmp_path / file)
    x = _inputs(old)
    for load in (amc_tf.load_model, amc_tf.from_keras2):
        if file == "folder":
            with pytest.raises(AmcError, match="a TensorFlow program"):
                load(str(tmp_path / file))
        new = load(str(tmp_path / file), safe_mode=file != "folder")
        _assert_same(old(x, training=False), new(x, training=False))


@pytest.mark.parametrize("file", ["model.h5", "model.keras"])
def test_files_of_keras_3_are_told_apart(tmp_path, file):
    zoo.plain().save(tmp_path / file)
    assert not model_files.is_keras2_file(tmp_path / file)
    assert isinstance(amc_tf.load_model(tmp_path / file), keras.Model)


def test_other_files_are_not_taken_for_keras_2(tmp_path):
    (tmp_path / "text").write_text("no model")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"version": 2}))
    for name in ("text", "zip", "absent", "."):
        assert not model_files.is_keras2_file(tmp_path / name)


def test_carried_functions_survive_a_keras_3_file(tmp_path):
    old = _randomised(shapes_at_run_time())
    new = amc_tf.from_keras2(old)
    assert any(isinstance(o, tensorflow_op.TensorFlowOp) for o in new.operations)
    new.save(tmp_path / "new.keras")
    x = _inputs(old)
    _assert_same(old(x), amc_tf.load_model(tmp_path / "new.keras")(x))
    gates = amc_tf.from_keras2(depthwise_and_gates())
    gates.save(tmp_path / "gates.keras")
    loaded = amc_tf.load_model(tmp_path / "gates.keras")
    activations = [getattr(layer, "activation", None) for layer in loaded.layers]
    assert keras2_hard_sigmoid in activations


def test_analysing_a_keras_2_model_tells_how_to_carry_it_over():
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    with pytest.raises(amc_tf.AmcError, match="from_keras2"):
        amc_tf.analyze(model)


def test_weights_that_belong_to_no_layer_are_carried():
    """A block that was looked into leaves its own weights as layers (`Parameter`)."""

    class Positions(keras.layers.Layer):
        def build(self, shape):
            self.learnt = self.add_weight(shape=shape[1:], initializer="normal")
            self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal")

        def call(self, x):
            token = keras.ops.tile(self.token, (keras.ops.shape(x)[0], 1, 1))
            return keras.ops.concatenate([token, x + self.learnt], axis=1)

    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, keras.layers.Dense(3)(Positions()(inputs)))
    flat = amc_tf.rebuild(model, amc_tf.analyze(model), None)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(amc_tf.to_keras2(flat)(x), model(x), atol=1e-6)
