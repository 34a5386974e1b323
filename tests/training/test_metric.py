"""Which way is better: for every metric and loss of Keras, and for what users compile with."""

import inspect

import blobs
import keras
import numpy as np
import pytest

import amc_tf
from amc_tf.training import directions
from amc_tf.training.metric import Metric
from amc_tf.training.uncertainty import Uncertainty

Y = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1]], "float32")
CLASSES = Y.argmax(1)[:, None]
# Classes without a direction: what they compute is the user's.
WITHOUT = {"Metric", "Mean", "Sum", "MeanMetricWrapper"}
ARGUMENTS = {
    "PrecisionAtRecall": (0.5,),
    "RecallAtPrecision": (0.9,),
    "SensitivityAtSpecificity": (0.5,),
    "SpecificityAtSensitivity": (0.5,),
    "TopKCategoricalAccuracy": (1,),
    "SparseTopKCategoricalAccuracy": (1,),
    "F1Score": ("macro",),
    "FBetaScore": ("macro",),
    "IoU": (2, [1]),
    "MeanIoU": (2,),
    "OneHotIoU": (2, [1]),
    "OneHotMeanIoU": (2,),
}


def _classes(module, base):
    found = [c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, base)]
    assert len(found) > 20
    return found


METRICS = [c for c in _classes(keras.metrics, keras.metrics.Metric) if c.__name__ not in WITHOUT]
LOSSES = [c for c in _classes(keras.losses, keras.losses.Loss) if c is not keras.losses.Loss]


@pytest.mark.parametrize("cls", METRICS, ids=lambda c: c.__name__)
def test_a_metric_of_keras_is_better_where_the_predictions_are(cls):
    """The direction comes from Keras itself: right predictions against wrong ones."""
    metric = cls(*ARGUMENTS.get(cls.__name__, ()))
    labels = CLASSES if cls.__name__.startswith("Sparse") else Y
    counted = cls.__name__ in ("IoU", "MeanIoU")  # of classes, not of probabilities

    def value(share):
        metric.reset_state()
        right = share * Y + (1 - share) * (1 - Y)
        metric.update_state(labels, np.rint(right) if counted or share == 1 else right)
        return float(metric.result())

    kind = directions.of_object(metric)
    good, bad = value(1.0), value(0.25)
    assert kind.mode == ("max" if good > bad else "min") and good != bad
    assert directions.named(metric.name) == kind  # the name that Keras gives it
    if kind.fraction:
        assert 0 <= bad < good <= 1


@pytest.mark.parametrize("cls", LOSSES, ids=lambda c: c.__name__)
def test_of_every_loss_less_is_better(cls):
    loss = cls()
    assert directions.of_object(loss).mode == "min"
    assert directions.of_object(loss) is not directions.LOSS  # the table knows its words
    assert directions.of_object(keras.metrics.MeanMetricWrapper(loss)).mode == "min"


def test_functions_of_keras():
    found = [
        function
        for module in (keras.metrics, keras.losses)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name not in ("get", "serialize", "deserialize")
    ]
    assert len(found) > 30
    assert all(directions.of_object(function) is not None for function in found)
    # As a loss it is turned round; as a metric it is not.
    assert directions.of_object(keras.losses.cosine_similarity).mode == "min"
    assert directions.of_object(keras.metrics.CosineSimilarity()).mode == "max"


@pytest.mark.parametrize("name", sorted(WITHOUT - {"Metric", "MeanMetricWrapper"}))
def test_what_computes_something_of_the_users_has_no_direction(name):
    assert directions.of_object(getattr(keras.metrics, name)()) is None


@pytest.mark.parametrize(
    "name, title, mode",
    [
        *(("mae", "MAE", "min"), ("MAE", "MAE", "min"), ("mean_absolute_error", "MAE", "min")),
        *(("mae_1", "MAE", "min"), ("acc", "accuracy", "max"), ("auc_2", "AUC", "max")),
        *(("binary_accuracy", "accuracy", "max"), ("mean_io_u", "mean IoU", "max")),
        *(("head_a_mae", "head_a MAE", "min"), ("head_a_auc_3", "head_a AUC", "max")),
        *(("weighted_mse", "weighted MSE", "min"), ("loss", "loss", "min")),
        *(("head_a_loss", "head_a loss", "min"), ("r2_score", "R2", "max")),
        ("head_a_weighted_accuracy", "head_a weighted accuracy", "max"),
    ],
)
def test_names_that_keras_gives(name, title, mode):
    kind = directions.named(name, ["head_a", "head_b"])
    assert (kind.title, kind.mode) == (title, mode)


@pytest.mark.parametrize("name", ["val_mae", "neg_mean_squared_error", "inverse_mae", "quality"])
def test_names_that_keras_does_not_give(name):
    assert directions.named(name, ["head_a"]) is None


def quality(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred[..., :1]), axis=-1)


class Doubled(keras.metrics.MeanAbsoluteError):
    """A metric of the user's that extends one with a direction."""

    def result(self):
        return 2 * super().result()


class Kept(keras.metrics.Mean):
    """A metric of the user's that extends one without a direction."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_pred)


def _net():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(1, name="out")(inputs))


def _metric(name, metrics=None, weighted=None, **changes):
    net = _net()
    net.compile("sgd", "mse", metrics=metrics, weighted_metrics=weighted)
    data = np.ones((6, 3), "float32"), np.ones((6, 1), "float32"), np.ones(6, "float32")
    return amc_tf.Task(data[:2], data, metric=name, **changes).metric_of(net)


@pytest.mark.parametrize(
    "metric, title, mode",
    [
        (keras.metrics.MeanAbsoluteError(name="error_of_mine"), "error_of_mine", "min"),
        (keras.metrics.MeanAbsoluteError(name="accuracy"), "accuracy", "min"),
        (keras.metrics.R2Score(name="fit_of_mine"), "fit_of_mine", "max"),
        (keras.losses.mean_absolute_error, "MAE", "min"),
        (Doubled(name="twice"), "twice", "min"),
        ("mae", "MAE", "min"),
    ],
)
def test_a_metric_is_known_by_its_object(metric, title, mode):
    name = getattr(metric, "name", None) or getattr(metric, "__name__", metric)
    found = _metric(name, ["accuracy" if name != "accuracy" else "mse", metric])
    assert (found.name, found.title, found.mode) == (name, title, mode)
    assert (found.fraction, found.data) == (False, "validation")
    assert _metric(name, None, [metric]).mode == mode


def test_the_second_of_a_name():
    found = _metric("mae_1", ["mae", keras.metrics.MeanAbsoluteError(name="mae")])
    assert (found.mode, found.title) == ("min", "MAE")
    up, down = keras.metrics.R2Score(name="own"), keras.metrics.MeanSquaredError(name="own")
    with pytest.raises(amc_tf.AmcError, match="not known whether more of the metric 'own_1'"):
        _metric("own_1", [up, down])


@pytest.mark.parametrize("metric", [quality, Kept(name="quality")])
def test_what_is_not_known_is_asked_for(metric):
    with pytest.raises(amc_tf.AmcError) as caught:
        _metric("quality", [metric])
    assert 'give Task(mode="max") if it is, or Task(mode="min") if less is' in str(caught.value)
    for mode in ("max", "min"):
        found = _metric("quality", [metric], mode=mode)
        assert (found.mode, found.title, found.fraction) == (mode, "quality", False)


def test_it_is_asked_for_before_work(tmp_path):
    net = _net()
    net.compile("sgd", "mse", metrics=[quality])
    data = np.ones((6, 3), "float32"), np.ones((6, 1), "float32")
    task = amc_tf.Task(data, data, metric="quality", fit=lambda model: pytest.fail("work began"))
    settings = amc_tf.Settings(rehearse=False, train_dense=True)
    with pytest.raises(amc_tf.AmcError, match="not known whether more"):
        amc_tf.Compression(net, task, amc_tf.Budget(macs=0.5), tmp_path, settings)
    with pytest.raises(amc_tf.AmcError, match="unknown mode 'higher'; choose one of 'auto'"):
        amc_tf.Task(data, data, mode="higher")


def test_a_loss_is_not_offered_as_a_metric():
    message = r"does not report the metric 'f1'; it reports 'mae', 'loss' \(mode min\): name one"
    with pytest.raises(amc_tf.AmcError, match=message):
        _metric("f1", ["mae"])
    with pytest.raises(amc_tf.AmcError, match=r"it reports 'loss' \(mode min\): name one"):
        _metric("accuracy")


def test_heads_of_a_network():
    inputs = keras.Input((3,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in ("head_a", "head_b")]
    net = keras.Model(inputs, outputs)
    own = {"head_a": [keras.metrics.R2Score(name="own")], "head_b": ["mae", "mse"]}
    net.compile("sgd", ["mse", "mae"], metrics=own)
    ones = np.ones((6, 1), "float32")
    data = np.ones((6, 3), "float32"), [ones, ones]

    def metric(name):
        task = amc_tf.Task(data, data, metric=name)
        probe = task.compiled(net, net)
        probe.evaluate(*data, verbose=0)
        return task.metric_of(probe)

    assert metric("head_a_own").mode == "max"
    assert (metric("head_b_mae").mode, metric("head_b_mae").title) == ("min", "head_b MAE")
    assert (metric("head_a_loss").mode, metric("loss").mode) == ("min", "min")


def test_what_evaluate_returns():
    def metric(**changes):
        return blobs.task(evaluate=lambda model, data: 0.0, **changes).metric_of(None)

    assert metric() == Metric(per_sample=False)  # as it always was: more is better
    assert metric(metric="mae").mode == "min"
    turned = metric(mode="min")
    assert (turned.mode, turned.title, turned.fraction) == ("min", "score", False)
    assert metric(metric="distance", mode="min").title == "distance"
    with pytest.raises(amc_tf.AmcError, match="not known whether more of the metric 'distance'"):
        metric(metric="distance")
    assert blobs.task(test=None).test_data is not None and metric(test=None).data == "validation"


@pytest.mark.parametrize("value", [93.4, -3e9, 0.0, 1e-12])
def test_a_metric_is_of_any_size_and_sign(value):
    assert blobs.task(evaluate=lambda model, data: value).score(None, None) == value


def test_how_scores_are_written():
    mae = Metric("mae", "min", "MAE", False, False)
    assert (mae.written(1.23456), Metric().written(0.5)) == ("MAE 1.235", "accuracy 50.00%")
    assert Metric().number(93.4) == "93.4"  # what was no fraction after all
    assert (mae.unit(-4.0), Metric().unit(0.25), Metric().unit(93.4)) == (4.0, 1.0, 93.4)
    r2 = Metric("r2", "max", "R2", False, False)
    assert (Metric().error(0.75), mae.error(0.75), r2.error(0.75)) == (0.25, 0.75, -0.75)
    assert (Metric().has_error, mae.has_error, r2.has_error) == (True, True, False)


def test_the_standard_error_of_a_share():
    known = Uncertainty({"validation": 96, "test": 10}, 0.3)
    # (0.5 * 96 + 2) / 100 = 0.5, and sqrt(0.5 * 0.5 / 100) = 0.05.
    assert known.standard_error(Metric(), 0.5, "validation") == pytest.approx(0.05)
    assert known.cell(Metric(), 0.5, "validation") == "50.00% ± 5.00%"
    # Ten of ten: (10 + 2) / 14 = 6/7, and sqrt(6/7 * 1/7 / 14) = 0.0935. It is no certainty.
    assert known.standard_error(Metric(), 1.0, "test") == pytest.approx(0.0935, abs=1e-4)
    mae = Metric("mae", "min", "MAE", False, False)
    assert known.standard_error(mae, 7.0, "test") == pytest.approx(0.3 / np.sqrt(10))
    assert known.cell(mae, 7.0, "test") == "7 ± 0.095"
    assert Uncertainty({"test": 10}).cell(mae, 7.0, "test") == "7"
    assert Uncertainty().standard_error(Metric(), 0.5, "test") is None


def test_plans_that_cannot_be_told_apart():
    few, many = Uncertainty({"validation": 10}, 0.3), Uncertainty({"validation": 1000}, 0.3)
    assert "cannot be told apart" in few.warning(Metric(), 0.9) and not many.warning(Metric(), 0.9)
    assert "10 validation samples" in few.sentence(Metric(), 0.9)
    assert "unknown" in Uncertainty().sentence(Metric(), 0.9)
    mae = Metric("mae", "min", "MAE", False, False)
    assert "more than 5% of 1.5" in few.warning(mae, 1.5) and not few.warning(mae, 15.0)
