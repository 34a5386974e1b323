"""A class of the user's own, and what its methods read, goes to every model made from the first."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.graph.keras_structure import like, plain, uncompiled
from amc_tf.graph.own_classes import own_objects, own_steps

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6, 6, 1)).astype("float32")
Y = RNG.integers(0, 3, 32)


class Distilled(keras.Model):
    """A student with a teacher, a metric, a variable and its own layers by name."""

    def __init__(self, width, teacher):
        inputs = keras.Input((6, 6, 1))
        x = kl.Conv2D(width, 3, activation="relu", name="stem")(inputs)
        head = kl.Dense(3, activation="softmax", name="head")
        super().__init__(inputs, head(kl.GlobalAveragePooling2D()(x)))
        self.teacher = teacher
        self.head = head
        self.views = {"stem": [self.get_layer("stem")]}
        self.weight = 0.25
        self.gap = keras.metrics.Mean(name="gap")
        self.seen = keras.Variable(0.0, trainable=False)

    @property
    def metrics(self):
        return [*super().metrics, self.gap]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        gap = keras.ops.mean(keras.ops.square(y_pred - self.teacher(x)))
        self.gap.update_state(gap)
        if training:
            self.seen.assign_add(1.0)
        return super().compute_loss(x, y, y_pred, sample_weight) + self.weight * gap


@pytest.fixture(scope="module")
def teacher():
    inputs = keras.Input((6, 6, 1))
    outputs = kl.Dense(3, activation="softmax")(kl.Flatten()(inputs))
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def student(teacher):
    model = Distilled(4, teacher)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    return model


def test_the_small_model_trains_by_the_users_step(student, teacher):
    graph = amc_tf.analyze(student)
    (name,) = graph.groups
    small = amc_tf.rebuild(student, graph, amc_tf.PruningPlan({name: [0, 2]}))
    assert type(small) is Distilled and small.get_layer("stem").filters == 2
    assert small.teacher is teacher and small.weight == 0.25
    assert small.head is small.get_layer("head") is not student.head
    assert small.views == {"stem": [small.get_layer("stem")]}
    assert small.gap is not student.gap and small.seen is not student.seen
    assert not {id(w) for w in small.weights} & {id(w) for w in student.weights} - {
        id(w) for w in teacher.weights
    }
    amc_tf.CompileSettings.of(student).apply(small)
    logs = small.evaluate(X, Y, verbose=0, return_dict=True)
    p, t = small.predict(X, verbose=0), teacher.predict(X, verbose=0)
    loss = -np.log(p[np.arange(32), Y]).mean() + 0.25 * np.square(p - t).mean()
    assert logs["gap"] == pytest.approx(np.square(p - t).mean(), rel=1e-4)
    assert logs["loss"] == pytest.approx(loss, rel=1e-4)
    before = float(small.seen)
    small.fit(X, Y, batch_size=8, verbose=0)
    assert float(small.seen) == before + 4 and float(student.seen) == before


def test_files_are_plain_and_the_run_gives_the_class_back(student, tmp_path):
    plain(student).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert not own_steps(loaded) and len(loaded.weights) == 4  # no teacher
    again = like(student, loaded.inputs, loaded.outputs)
    assert type(again) is Distilled and again.head is again.get_layer("head")
    assert type(uncompiled(again)) is Distilled
    np.testing.assert_allclose(again(X), student(X), rtol=1e-6)


class Stepped(keras.Sequential):
    """A chain with a training step that is seen."""

    def train_step(self, data):
        self.steps = getattr(self, "steps", 0) + 1
        return super().train_step(data)


def test_a_sequential_class():
    model = Stepped([keras.Input((6, 6, 1)), kl.Conv2D(4, 3), kl.Flatten(), kl.Dense(3)])
    graph = amc_tf.analyze(model)
    (name,) = graph.groups
    small = amc_tf.rebuild(model, graph, amc_tf.PruningPlan({name: [1]}))
    assert type(small) is Stepped and small.layers[0].filters == 1
    np.testing.assert_allclose(small(X).shape, (32, 3))
    small.compile("sgd", "mse", run_eagerly=True)
    small.fit(X, np.zeros((32, 3)), batch_size=16, verbose=0)
    assert small.steps == 2


class OtherCall(keras.Sequential):
    """A chain that computes something other than its layers."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training)


class Held(keras.Model):
    """A model whose attributes the tests set."""

    def train_step(self, data):
        return super().train_step(data)


def test_what_cannot_be_carried_over_is_said():
    inputs = keras.Input((4,))
    x = kl.Dense(5)(inputs)
    for value, message in (
        (keras.optimizers.Adam(), "holds an optimizer"),
        ([keras.Model(inputs, x)], "shares layers with it"),
    ):
        model = Held(inputs, kl.Dense(2)(x))
        model.part = value
        with pytest.raises(amc_tf.AmcError, match=rf"Held.*{message} \('part'\).*Task\(fit="):
            uncompiled(model)
    with pytest.raises(amc_tf.AmcError, match="its layers cannot be seen"):
        amc_tf.analyze(OtherCall([keras.Input((4,)), kl.Dense(2)]))


class Scale(kl.Layer):
    """A layer that is not registered with Keras."""

    def call(self, x):
        return 2 * x

    def compute_output_shape(self, shape):
        return shape


def test_objects_that_files_name():
    def factory(number):
        def act(x):
            return number * x

        return act

    inputs = keras.Input((4,))
    one = kl.TimeDistributed(Scale())(kl.Reshape((2, 2))(inputs))
    model = keras.Model(inputs, kl.Dense(2, activation=factory(1))(one))
    found = own_objects(model)
    assert found["Scale"] is Scale and set(found) == {"Scale", "act"}
    twice = keras.Model(inputs, kl.Dense(2, activation=factory(3))(model.outputs[0]))
    with pytest.raises(amc_tf.AmcError, match="called 'act'.*different names"):
        own_objects(twice)


class Gain(kl.Layer):
    """A layer with weights, as users write it."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.gain


class Bias(kl.Layer):
    """Another one, whose method has the same name."""

    def build(self, shape):
        self.bias = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return x + self.bias


def test_methods_are_no_objects_that_files_name():
    inputs = keras.Input((4,))
    assert own_objects(keras.Model(inputs, Bias()(Gain()(inputs)))) == {"Gain": Gain, "Bias": Bias}
