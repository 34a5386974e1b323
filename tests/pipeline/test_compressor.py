"""A `fit` that compresses: the same data, arguments and compile settings as Keras' own."""

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf

import amc_tf
from amc_tf.training.compile_settings import CompileSettings
from amc_tf.training.fit_arguments import FitArguments

X, Y = blobs.data(40, 0)
BUDGET = amc_tf.Budget(macs=0.5)


class Batches(keras.utils.PyDataset):
    """Ten samples a batch, with weights if asked for."""

    def __init__(self, weighted=False):
        super().__init__()
        self._weighted = weighted

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(10 * index, 10 * index + 10)
        return [X[part], Y[part], *([Y[part] / 3] if self._weighted else [])]


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(10)


@pytest.fixture(scope="module")
def net():
    return blobs.trained(1)


@pytest.mark.parametrize("count, share", [(11, 0.3), (1000, 0.29)])
def test_validation_split_holds_out_what_keras_does(count, share):
    """Keras tells what it trained on and validated on by the mean label as a metric."""
    y = np.arange(count, dtype="float32") ** 1.5
    x = np.zeros((count, 1), "float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mae", metrics=[lambda y_true, y_pred: keras.ops.mean(y_true)])
    arguments = FitArguments((x, y), {"validation_split": share, "batch_size": count, "verbose": 0})
    history = arguments.fit(model).history
    (metric,) = [name for name in history if "loss" not in name and not name.startswith("val_")]
    assert np.mean(arguments.train[1]) == pytest.approx(history[metric][0], rel=1e-5)
    assert np.mean(arguments.validation[1]) == pytest.approx(history[f"val_{metric}"][0], rel=1e-5)
    assert len(arguments.train[0]) + len(arguments.validation[0]) == count


def test_sample_weights_are_split_along():
    weights = np.linspace(0, 1, 40)
    arguments = FitArguments((X, Y), {"validation_split": 0.25, "sample_weight": weights})
    np.testing.assert_array_equal(arguments.train[2], weights[:30])
    np.testing.assert_array_equal(arguments.validation[2], weights[30:])


@pytest.mark.parametrize("weighted", [False, True])
def test_pydatasets_are_read_as_they_are(weighted):
    source = Batches(weighted)
    arguments = FitArguments((source,), {"validation_data": source})
    for data in (arguments.train, arguments.validation):
        for _ in range(2):
            for index, batch in enumerate(data):
                for expected, found in zip(source[index], batch, strict=True):
                    np.testing.assert_array_equal(expected, found)
            assert index == 3


def test_steps_bound_what_is_read():
    endless = dataset().repeat()
    arguments = FitArguments(
        (endless,), {"steps_per_epoch": 7, "validation_data": endless, "validation_steps": 3}
    )
    assert len(list(arguments.train)) == 7
    assert len(list(arguments.validation)) == 3


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"x": X, "y": Y}, "neither validation_data nor validation_split"),
        ({"x": dataset()}, "neither validation_data nor validation_split"),
        ({"x": dataset(), "validation_split": 0.2}, "works on arrays, received x as .*Dataset"),
        ({"x": X, "y": Y, "validation_split": 1.0}, "of 40 samples"),
        ({"x": X, "validation_split": 0.2}, "x: .* received no labels"),
        ({"x": X, "y": Y, "validation_data": X}, "received ndarray"),
        ({"x": X, "y": Y, "validation_data": (X, None)}, "validation_data: .* no labels"),
        (
            {"x": iter([(X, Y)]), "validation_data": (X, Y)},
            "a list_iterator.*PyDataset",
        ),
        ({"x": X, "y": Y, "validation_data": iter(dataset())}, "can be read once"),
        (
            {"x": dataset().repeat(), "validation_data": (X, Y)},
            "without end.*steps_per_epoch in fit",
        ),
        (
            {"x": X, "y": Y, "validation_data": dataset().repeat()},
            "repeats without end.*or validation_steps in fit",
        ),
        (
            {
                "x": X,
                "y": Y,
                "validation_split": 0.2,
                "callbacks": keras.callbacks.CallbackList([]),
            },
            "callbacks as a list",
        ),
    ],
)
def test_arguments_that_cannot_serve(net, tmp_path, kwargs, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        amc_tf.Compressor(net, BUDGET, tmp_path / "new").fit(**kwargs)
    assert not (tmp_path / "new").exists()


def test_unknown_arguments_are_pythons_own_error(net, tmp_path):
    with pytest.raises(TypeError, match="epoch"):
        amc_tf.Compressor(net, BUDGET, tmp_path / "new").fit(X, Y, epoch=3)
    with pytest.raises(amc_tf.AmcError, match="unknown argument 'tests'.*, test"):
        amc_tf.Compressor(net, BUDGET, tmp_path / "new", tests=(X, Y))
    assert not (tmp_path / "new").exists()


def test_models_that_cannot_serve(net, tmp_path):
    bare = keras.Model(net.inputs, net.outputs)
    carried = amc_tf.to_keras2(bare)
    for model, message in (
        (bare, "not compiled; call model.compile"),
        (carried, "from_keras2"),
    ):
        with pytest.raises(amc_tf.AmcError, match=message):
            amc_tf.Compressor(model, BUDGET, tmp_path / "new").fit(X, Y, validation_split=0.5)
    settings = amc_tf.Settings(
        rehearse=False, finetune=amc_tf.FineTuneSettings(compare=("uniform",))
    )
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras")
    with pytest.raises(amc_tf.AmcError, match="overwrite the file of ModelCheckpoint"):
        amc_tf.Compressor(net, BUDGET, tmp_path / "new", settings).fit(
            X, Y, validation_split=0.5, callbacks=checkpoint
        )
    assert not (tmp_path / "new").exists()


def linear():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "linear")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_a_checkpoint_begins_anew_with_every_model(tmp_path):
    """The second model is worse than the first, and yet what the file holds in the end."""
    x = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", save_best_only=True, save_weights_only=True
    )
    kwargs = {"validation_data": (x, x[:, 0]), "callbacks": checkpoint, "verbose": 0}
    arguments = FitArguments((x, x[:, 0]), kwargs)
    good, bad = linear(), linear()
    good.set_weights([np.array([[1.0], [0], [0]]), np.zeros(1)])
    bad.set_weights([np.array([[9.0], [9], [9]]), np.zeros(1)])
    losses = [min(arguments.fit(model).history["val_loss"]) for model in (good, bad)]
    assert losses[0] < losses[1]
    saved = linear()
    saved.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(saved.get_weights()[0], bad.get_weights()[0])


def test_compile_settings_are_carried_over_with_fresh_state():
    """Nothing of the user's is registered with Keras, and the loss is a closure."""
    base = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def own_loss(y_true, y_pred):
        return 2 * base(y_true, y_pred)

    def confidence(y_true, y_pred):
        return keras.ops.max(keras.ops.softmax(y_pred), -1)

    class Share(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(keras.ops.argmax(y_pred, -1) == 0)

    class Halving(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.01 * 0.5 ** keras.ops.cast(step, "float32")

        def get_config(self):
            return {}

    model = blobs.model()
    model.compile(
        keras.optimizers.SGD(Halving(), momentum=0.9),
        own_loss,
        metrics=["accuracy", confidence, Share(name="share")],
        weighted_metrics=["accuracy"],
        steps_per_execution=2,
    )
    model.fit(X, Y, epochs=2, verbose=0)
    twin = keras.models.clone_model(keras.Model(model.inputs, model.outputs))
    twin.set_weights(model.get_weights())
    CompileSettings.of(model).apply(twin)
    assert twin.optimizer is not model.optimizer and int(model.optimizer.iterations) > 0
    assert int(twin.optimizer.iterations) == 0 and twin.optimizer.momentum == 0.9
    assert float(twin.optimizer.learning_rate) == pytest.approx(0.01)
    assert twin.steps_per_execution == 2
    states = {id(v) for m in model.metrics for v in m.variables}
    assert not states & {id(v) for m in twin.metrics for v in m.variables}
    expected = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert {"accuracy", "confidence", "share"} <= set(expected)
    assert twin.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(expected)


class NotToBeMadeAnew(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.01, unknown=1, **kwargs):
        super().__init__(learning_rate, **kwargs)


def test_what_cannot_be_carried_over_names_the_remedy(net, tmp_path):
    model = keras.Model(net.inputs, net.outputs)
    model.compile(NotToBeMadeAnew(), "mse", metrics=["accuracy"])
    with pytest.raises(amc_tf.AmcError, match="give compile=..., a function"):
        amc_tf.Compressor(model, BUDGET, tmp_path / "new", SETTINGS).fit(X, Y, validation_split=0.2)
    assert not (tmp_path / "new").exists()


def test_it_stands_in_for_the_model(net, tmp_path):
    stand_in = amc_tf.Compressor(net, BUDGET, tmp_path / "new")
    np.testing.assert_array_equal(stand_in.predict(X, verbose=0), net.predict(X, verbose=0))
    np.testing.assert_array_equal(stand_in(X), net(X))
    assert stand_in.count_params() == net.count_params()
    assert stand_in.result is None
    for name in ("trainable", "stop_training"):
        with pytest.raises(AttributeError):  # it would be lost on the model
            setattr(stand_in, name, False)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = stand_in.no_such_thing
    assert not (tmp_path / "new").exists()


FIT = {
    "batch_size": 20,
    "epochs": 2,
    "validation_data": blobs.data(100, 1),
    "class_weight": {0: 1.0, 1: 0.1, 2: 5.0, 3: 1.0},
    "verbose": 0,
}
SETTINGS = amc_tf.Settings(
    rehearse=False,
    # A plan from which fine-tuning gains, so that its result is what is returned.
    search=blobs.search_settings(
        episodes=1,
        policies=("amc",),
        importance="consumer_magnitude",
        sensitivity=False,
        min_preserve=0.2,
    ),
    finetune=amc_tf.FineTuneSettings(seed=3),
    export=amc_tf.ExportSettings(latency_rounds=1, latency_runs=5, latency_min_secs=0.02),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A compression of a trained model."""
    path = tmp_path_factory.mktemp("run")
    net, train = blobs.trained(), blobs.data(400, 0)
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    compressor = amc_tf.Compressor(
        net, BUDGET, path, SETTINGS, trained=True, test=blobs.data(100, 2)
    )
    history = compressor.fit(*train, callbacks=[callback], **FIT)
    return net, train, path, compressor, history, seen


def test_the_small_model_is_trained_by_the_very_same_fit(run):
    """By hand: pruned.keras, compiled as the user did, seeded, fitted with the arguments."""
    _, train, path, compressor, history, seen = run
    by_hand = keras.models.load_model(path / "pruned.keras")
    keras.utils.set_random_seed(3)
    blobs.compile_model(by_hand)
    expected = by_hand.fit(*train, **FIT)
    for a, b in zip(by_hand.weights, compressor.model.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert seen == history.epoch == [0, 1]
    assert set(history.history) == set(expected.history)
    for name, values in expected.history.items():
        assert history.history[name] == pytest.approx(values, rel=1e-4)
    assert float(compressor.optimizer.learning_rate) == pytest.approx(5e-3)
    measured = compressor.evaluate(*blobs.data(100, 2), verbose=0, return_dict=True)["accuracy"]
    assert measured == pytest.approx(compressor.result["finetuned"]["score"])
    assert amc_tf.macs(amc_tf.analyze(compressor.model)) <= compressor.result["dense"]["macs"] / 2


def test_the_same_script_again_trains_nothing(run):
    net, train, path, compressor, history, seen = run
    with pytest.raises(amc_tf.AmcError, match=r"earlier fit.*\.model\.fit"):
        compressor.fit(*train, **FIT)
    again = amc_tf.Compressor(net, BUDGET, path, SETTINGS, trained=True, test=blobs.data(100, 2))
    kept = again.fit(*train, callbacks=[keras.callbacks.TerminateOnNaN()], **FIT)
    assert kept.history == history.history and kept.epoch == history.epoch
    assert seen == [0, 1]
    for a, b in zip(again.model.weights, compressor.model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    other = amc_tf.Compressor(net, BUDGET, path, SETTINGS, trained=True)
    with pytest.raises(amc_tf.AmcError, match="fit.epochs: 2 there, 3 now"):
        other.fit(*train, **{**FIT, "epochs": 3})
