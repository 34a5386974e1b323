"""Tasks of every kind on small real data, and the forms in which people have data.

The data are scikit-learn's own: digits (8x8 images), diabetes and breast cancer. Each task says by
a formula of its own, in NumPy, what its metric is, so that no number is checked against itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl
from scipy.stats import rankdata
from sklearn import datasets

BATCH = 32


@dataclasses.dataclass(frozen=True)
class SmallTask:
    """A task.

    Attributes:
        data: function that returns (inputs, labels, sample weights or None) of all samples.
        model: function that makes the untrained model.
        compile: arguments of `compile`, made anew at each call.
        metric: name of the metric.
        up: whether higher is better.
        formula: the metric of (labels, outputs, sample weights), in NumPy.
        title: the metric's name in reports.
        epochs: epochs of the dense model's training.
        mode: `mode` of the task.
        fit: additional arguments of `fit`.
    """

    data: Callable[[], tuple[Any, Any, Any]]
    model: Callable[[], keras.Model]
    compile: Callable[[], dict[str, Any]]
    metric: str
    up: bool
    formula: Callable[[Any, Any, Any], float]
    title: str
    epochs: int = 15
    mode: str = "auto"
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def split(self, part: str) -> tuple[Any, Any, Any]:
        """Returns the samples of `train`, `validation` or `test`: every third is held out."""
        data = self.data()
        count = len(keras.tree.flatten(data[0])[0])
        order = np.random.default_rng(0).permutation(count)
        held_out = order[: count // 3]
        chosen = {
            "train": order[count // 3 :],
            "validation": held_out[::2],
            "test": held_out[1::2],
        }[part]
        return tuple(
            None if a is None else keras.tree.map_structure(lambda v: v[chosen], a) for a in data
        )


# --- data and networks ------------------------------------------------------------------------


def digits() -> tuple[np.ndarray, np.ndarray]:
    loaded = datasets.load_digits()
    return (loaded.images[..., None] / 16).astype("float32"), loaded.target.astype("int32")


def _table(load: Callable[[], Any]) -> tuple[np.ndarray, np.ndarray]:
    loaded = load()
    x = loaded.data
    return ((x - x.mean(0)) / x.std(0)).astype("float32"), loaded.target.astype("float32")


def _dense(inputs: int, units: int, activation: str | None) -> keras.Model:
    x = start = keras.Input((inputs,), name="features")
    for width in (24, 16):
        x = kl.Dense(width, activation="relu")(x)
    return keras.Model(start, kl.Dense(units, activation)(x))


def _trunk(inputs: Any) -> Any:
    x = kl.Conv2D(12, 3, padding="same", use_bias=False)(inputs)
    x = kl.ReLU()(kl.BatchNormalization()(x))
    x = kl.MaxPooling2D()(x)
    return kl.Flatten()(kl.Conv2D(12, 3, padding="same", activation="relu")(x))


def _regression() -> tuple[Any, Any, Any]:
    x, y = _table(datasets.load_diabetes)
    return x, y, np.where(y > 200, 3.0, 1.0).astype("float32")


def _binary() -> tuple[Any, Any, Any]:
    x, y = _table(datasets.load_breast_cancer)
    return x, y, None


def _noisy() -> tuple[Any, Any, Any]:
    x, _ = digits()
    noise = np.random.default_rng(1).normal(0, 0.3, x.shape)
    return (x + noise).astype("float32"), (x[..., 0] > 0.4).astype("int32"), None


def _segmenter() -> keras.Model:
    x = start = keras.Input((8, 8, 1))
    for _ in range(2):
        x = kl.Conv2D(12, 3, padding="same", activation="relu")(x)
    return keras.Model(start, kl.Conv2D(2, 1, activation="softmax")(x))


def _digit_and_ink() -> tuple[Any, Any, Any]:
    x, y = digits()
    return {"image": x}, {"digit": y, "ink": x.mean((1, 2))}, None


def _two_heads() -> keras.Model:
    start = keras.Input((8, 8, 1), name="image")
    x = kl.Dense(24, activation="relu")(_trunk(start))
    outputs = {
        "digit": kl.Dense(10, "softmax", name="digit")(x),
        "ink": kl.Dense(1, name="ink")(x),
    }
    return keras.Model({"image": start}, outputs)


def _bits() -> tuple[Any, Any, Any]:
    x, y = digits()
    return x, ((y[:, None] >> np.arange(4)) & 1).astype("float32"), None


def _bits_net() -> keras.Model:
    """The one Sequential model of the table; such a model names no outputs."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kl.Conv2D(12, 3, padding="same", use_bias=False),
            kl.BatchNormalization(),
            kl.ReLU(),
            kl.MaxPooling2D(),
            kl.Conv2D(12, 3, padding="same", activation="relu"),
            kl.Flatten(),
            kl.Dense(4, "sigmoid"),
        ]
    )


def _rows() -> tuple[Any, Any, Any]:
    """Which half of each row holds more ink; rows without ink have no label, by weight 0."""
    x, _ = digits()
    left, right = x[..., :4, 0].sum(-1), x[..., 4:, 0].sum(-1)
    noise = np.random.default_rng(1).normal(0, 0.3, x.shape[:3])
    weight = (left + right > 0).astype("float32")
    return (x[..., 0] + noise).astype("float32"), (right > left).astype("int32"), weight


def _labeller() -> keras.Model:
    x = start = keras.Input((8, 8))
    for _ in range(2):
        x = kl.Conv1D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(start, kl.Dense(2, "softmax")(x))


@keras.saving.register_keras_serializable("small_tasks")
def concordance(y_true: Any, y_pred: Any) -> Any:
    """Returns for each sample the share of the batch's others that it is ordered rightly with."""
    y_true, y_pred = keras.ops.reshape(y_true, (-1,)), keras.ops.reshape(y_pred, (-1,))
    right = (y_true[:, None] - y_true) * (y_pred[:, None] - y_pred) > 0
    return keras.ops.mean(keras.ops.cast(right, "float32"), axis=-1)


# --- metrics by formula -------------------------------------------------------------------------


def _weighted_mae(y: Any, out: Any, weight: Any) -> float:
    return float(np.average(np.abs(out[:, 0] - y), weights=weight))


def _mean_iou(y: Any, out: Any, weight: Any) -> float:
    found = out.argmax(-1)
    return float(
        np.mean([((found == c) & (y == c)).sum() / ((found == c) | (y == c)).sum() for c in (0, 1)])
    )


def _rank_sum(y: Any, out: Any, weight: Any) -> float:
    """The area under the curve is the chance that a positive is ranked above a negative."""
    ranks, positive = rankdata(out[:, 0]), y > 0.5
    n, m = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def _macro_f1(y: Any, out: Any, weight: Any) -> float:
    found = out > 0.5
    both = (found & (y > 0.5)).sum(0)
    return float(np.mean(2 * both / (found.sum(0) + (y > 0.5).sum(0))))


def _concordance(y: Any, out: Any, weight: Any) -> float:
    shares = []
    for start in range(0, len(y), BATCH):
        a, b = y[start : start + BATCH], out[start : start + BATCH, 0]
        shares += [np.mean((a[i] - a) * (b[i] - b) > 0) for i in range(len(a))]
    return float(np.mean(shares))


def _weighted_accuracy(y: Any, out: Any, weight: Any) -> float:
    return float(np.average(out.argmax(-1) == y, weights=weight))


TASKS: Mapping[str, SmallTask] = {
    "regression": SmallTask(
        _regression,
        lambda: _dense(10, 1, None),
        lambda: {
            "optimizer": keras.optimizers.Adam(0.01),
            "loss": "mse",
            "weighted_metrics": ["mae"],
        },
        metric="mae",
        up=False,
        formula=_weighted_mae,
        title="MAE",
        epochs=40,
    ),
    "segmentation": SmallTask(
        _noisy,
        _segmenter,
        lambda: {
            "optimizer": keras.optimizers.Adam(0.005),
            "loss": "sparse_categorical_crossentropy",
            "metrics": [keras.metrics.MeanIoU(2, sparse_y_pred=False, name="mean_iou")],
        },
        metric="mean_iou",
        up=True,
        formula=_mean_iou,
        title="mean IoU",
        epochs=3,
    ),
    "two heads": SmallTask(
        _digit_and_ink,
        _two_heads,
        lambda: {
            "optimizer": keras.optimizers.Adam(0.005),
            "loss": {"digit": "sparse_categorical_crossentropy", "ink": "mse"},
            "metrics": {"digit": ["accuracy"], "ink": ["mae"]},
        },
        metric="digit_accuracy",
        up=True,
        formula=lambda y, out, weight: float(np.mean(out["digit"].argmax(-1) == y["digit"])),
        title="digit accuracy",
        epochs=6,
    ),
    "binary": SmallTask(
        _binary,
        lambda: _dense(30, 1, "sigmoid"),
        lambda: {
            "optimizer": keras.optimizers.Adam(0.002),
            "loss": "binary_crossentropy",
            "metrics": ["accuracy", keras.metrics.AUC(2000, name="auc")],
        },
        metric="auc",
        up=True,
        formula=_rank_sum,
        title="AUC",
        fit={"class_weight": {0: 2.0, 1: 1.0}},
    ),
    "multi-label": SmallTask(
        _bits,
        _bits_net,
        lambda: {
            "optimizer": keras.optimizers.Adam(0.005),
            "loss": "binary_crossentropy",
            "metrics": [keras.metrics.F1Score("macro", 0.5, name="f1"), keras.metrics.F1Score()],
        },
        metric="f1",
        up=True,
        formula=_macro_f1,
        title="F1",
        epochs=6,
    ),
    "ranking": SmallTask(
        lambda: (*_regression()[:2], None),
        lambda: _dense(10, 1, None),
        lambda: {
            "optimizer": keras.optimizers.Adam(0.01),
            "loss": "mae",
            "metrics": [concordance],
        },
        metric="concordance",
        up=True,
        formula=_concordance,
        title="concordance",
        epochs=40,
        mode="max",
    ),
    "sequence labelling": SmallTask(
        _rows,
        _labeller,
        lambda: {
            "optimizer": keras.optimizers.Adam(0.005),
            "loss": "sparse_categorical_crossentropy",
            "weighted_metrics": ["accuracy"],
        },
        metric="accuracy",
        up=True,
        formula=_weighted_accuracy,
        title="accuracy",
        epochs=4,
    ),
}


# --- forms of data --------------------------------------------------------------------------------


def _parts(x: Any, y: Any, weight: Any) -> tuple[Any, ...]:
    return (x, y) if weight is None else (x, y, weight)


def _batches(parts: Any) -> list[Any]:
    count = len(keras.tree.flatten(parts)[0])
    return [
        keras.tree.map_structure(lambda a, i=start: a[i : i + BATCH], parts)
        for start in range(0, count, BATCH)
    ]


class _Sequence(keras.utils.PyDataset):
    def __init__(self, parts: Any):
        super().__init__()
        self._batches = _batches(parts)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]


def _known(parts: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(parts).batch(BATCH)


def _unknown(parts: Any) -> tf.data.Dataset:
    spec = keras.tree.map_structure(lambda a: tf.TensorSpec(a.shape[1:], a.dtype), parts)

    def samples() -> Any:
        for i in range(len(keras.tree.flatten(parts)[0])):
            yield keras.tree.map_structure(lambda a, i=i: a[i], parts)

    found = tf.data.Dataset.from_generator(samples, output_signature=spec).batch(BATCH)
    assert found.cardinality() == tf.data.UNKNOWN_CARDINALITY
    return found


FORMS: Mapping[str, Callable[[Any], Any]] = {
    "arrays": lambda parts: parts,
    "PyDataset": _Sequence,
    "tf.data": _known,
    "tf.data of unknown size": _unknown,
    "list of batches": _batches,
}


def in_form(form: str, x: Any, y: Any, weight: Any) -> Any:
    """Returns samples in a form that `Model.fit` takes."""
    return FORMS[form](_parts(x, y, weight))
