"""Which way is better, for every metric and loss of Keras.

A metric is known by its object, where the compiled model has one, as users name metrics as they
like; else by the name that Keras gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from amc_tf.graph.keras_structure import nesting


class Kind(NamedTuple):
    """What is known of a metric (see `amc_tf.training.metric.Metric`)."""

    title: str
    mode: str
    fraction: bool = False
    per_sample: bool = False
    signed: bool = False


LOSS = Kind("loss", "min")
# Classes, functions and other names that Keras gives them; case and underscores do not count.
_KINDS: Sequence[tuple[Kind, str]] = (
    (
        Kind("accuracy", "max", fraction=True, per_sample=True),
        "Accuracy acc BinaryAccuracy CategoricalAccuracy SparseCategoricalAccuracy",
    ),
    (
        Kind("top-k accuracy", "max", fraction=True, per_sample=True),
        "TopKCategoricalAccuracy SparseTopKCategoricalAccuracy",
    ),
    (Kind("AUC", "max", fraction=True), "AUC"),
    (Kind("precision", "max", fraction=True), "Precision PrecisionAtRecall"),
    (Kind("recall", "max", fraction=True), "Recall RecallAtPrecision"),
    (Kind("sensitivity", "max", fraction=True), "SensitivityAtSpecificity"),
    (Kind("specificity", "max", fraction=True), "SpecificityAtSensitivity"),
    (Kind("F1", "max", fraction=True), "F1Score"),
    (Kind("F-beta", "max", fraction=True), "FBetaScore"),
    (Kind("IoU", "max", fraction=True), "IoU BinaryIoU OneHotIoU"),
    (Kind("mean IoU", "max", fraction=True), "MeanIoU OneHotMeanIoU"),
    # Not Keras' own: how far a file agrees with its model (`amc_tf.export.measures`).
    (Kind("agreement", "max", fraction=True), "agreement"),
    (Kind("true positives", "max"), "TruePositives"),
    (Kind("true negatives", "max"), "TrueNegatives"),
    (Kind("false positives", "min"), "FalsePositives"),
    (Kind("false negatives", "min"), "FalseNegatives"),
    (Kind("R2", "max"), "R2Score"),
    (Kind("cosine similarity", "max"), "CosineSimilarity"),
    (Kind("concordance correlation", "max"), "ConcordanceCorrelation"),
    (Kind("Pearson correlation", "max"), "PearsonCorrelation"),
    (Kind("MAE", "min"), "MeanAbsoluteError mae"),
    (Kind("MSE", "min"), "MeanSquaredError mse"),
    (Kind("RMSE", "min"), "RootMeanSquaredError rmse"),
    (Kind("MAPE", "min"), "MeanAbsolutePercentageError mape"),
    (Kind("MSLE", "min"), "MeanSquaredLogarithmicError msle"),
    (Kind("log-cosh", "min"), "LogCoshError LogCosh"),
    (Kind("Huber loss", "min"), "Huber"),
    (Kind("hinge", "min"), "Hinge CategoricalHinge SquaredHinge"),
    (
        Kind("crossentropy", "min"),
        "BinaryCrossentropy bce CategoricalCrossentropy SparseCategoricalCrossentropy ce "
        "crossentropy",
    ),
    (
        Kind("focal crossentropy", "min"),
        "BinaryFocalCrossentropy CategoricalFocalCrossentropy",
    ),
    (Kind("generalized crossentropy", "min"), "CategoricalGeneralizedCrossEntropy"),
    (Kind("KL divergence", "min"), "KLDivergence kld"),
    (Kind("Poisson", "min", signed=True), "Poisson"),
    (Kind("Dice loss", "min"), "Dice"),
    (Kind("Tversky loss", "min"), "Tversky"),
    (Kind("circle loss", "min"), "Circle"),
    (Kind("CTC loss", "min"), "CTC"),
    (LOSS, "loss"),
)


def _key(name: str) -> str:
    return name.replace("_", "").lower()


_BY_NAME: Mapping[str, Kind] = {
    _key(name): kind for kind, names in _KINDS for name in names.split()
}
# As losses they are turned round, so that less is better.
_TURNED = {"cosinesimilarity": Kind("cosine similarity loss", "min", signed=True)}


def named(name: str, outputs: Iterable[str] = ()) -> Kind | None:
    """Returns the kind of a metric by the name that Keras reports.

    Args:
        name: the name; it may end in the number that Keras gives to the second of a name, and
            begin with an output's name.
        outputs: names of the model's outputs.

    Returns:
        The kind, with the output's name in its title; None for a name that Keras does not give.
    """
    for title, inner in _readings(name, outputs):
        if (kind := _BY_NAME.get(_key(inner))) is not None:
            return kind._replace(title=f"{title}{kind.title}")
    return None


def of_object(metric: Any) -> Kind | None:
    """Returns the kind of a metric or loss by its class or function; None if that is the user's.

    A subclass has the direction of the Keras class that it extends, if that has one.
    """
    if isinstance(metric, keras.losses.Loss):
        return _of_loss(metric)
    if type(metric) is keras.metrics.MeanMetricWrapper:
        # A function or a loss, as the user compiled the model with.
        return of_object(getattr(metric, "_fn", None))
    if isinstance(metric, keras.metrics.Metric):
        classes = (c for c in type(metric).__mro__ if getattr(keras.metrics, c.__name__, 0) is c)
        return next((k for c in classes if (k := _BY_NAME.get(_key(c.__name__)))), None)
    name = getattr(metric, "__name__", "")
    if getattr(keras.losses, name, None) is metric:
        return _turned(name)
    return _BY_NAME.get(_key(name)) if getattr(keras.metrics, name, None) is metric else None


def _of_loss(loss: keras.losses.Loss) -> Kind:
    classes = (c for c in type(loss).__mro__ if getattr(keras.losses, c.__name__, 0) is c)
    return next((k for c in classes if (k := _turned(c.__name__)) is not LOSS), LOSS)


def _turned(name: str) -> Kind:
    return _TURNED.get(_key(name)) or _BY_NAME.get(_key(name), LOSS)


def is_made(model: keras.Model, name: str) -> bool:
    """Returns whether a compiled model already holds the metric that it reports under a name."""
    return _is_loss(model, name) or bool(_found(model, name))


def reported(model: keras.Model, name: str) -> Kind | None:
    """Returns the kind of the metric that a compiled model reports under a name.

    Args:
        model: a model that has been evaluated: Keras makes the metrics at the first batch.
        name: the name.

    Returns:
        The kind; None where the direction of the metric cannot be known.
    """
    known = named(name, _outputs(model))
    if _is_loss(model, name):
        return known
    found = _found(model, name)
    kinds = {of_object(metric) for metric in found}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        # The user's own; nobody calls anything else an accuracy.
        return known if known is not None and (known.per_sample or not found) else None
    return kind._replace(title=known.title if known is not None else name)


def _outputs(model: keras.Model) -> list[str]:
    """Returns the names by which losses and metrics tell the outputs apart."""
    structure = nesting(model, "outputs")
    keys = list(structure) if isinstance(structure, Mapping) else []
    return [*keys, *getattr(model, "output_names", ())]


def _is_loss(model: keras.Model, name: str) -> bool:
    return name in ("loss", *(f"{output}_loss" for output in _outputs(model)))


def _found(model: keras.Model, name: str) -> list[keras.metrics.Metric]:
    """Returns the metrics that may be the one with a name; more than one if names repeat."""
    metrics = list(_leaves(model.metrics))
    exact = [metric for metric in metrics if metric.name == name]
    names = {inner for _, inner in _readings(name, _outputs(model))}
    return exact or [metric for metric in metrics if metric.name in names]


def _leaves(metrics: Iterable[keras.metrics.Metric]) -> Iterator[keras.metrics.Metric]:
    for metric in metrics:
        inner = getattr(metric, "metrics", None)
        if inner is None:
            yield metric
        else:
            yield from _leaves(inner)


def _readings(name: str, outputs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields what a name may stand for: the output, as the beginning of a title, and the rest."""
    for output in ("", *outputs):
        beginning = f"{output}_" if output else ""
        if not name.startswith(beginning):
            continue
        rest = name.removeprefix(beginning)
        title = f"{output} " if output else ""
        for word, inner in (("", rest), ("weighted ", rest.removeprefix("weighted_"))):
            yield title + word * (inner != rest), inner
            yield title + word * (inner != rest), re.sub(r"_\d+$", "", inner)
