"""What a user's own subclass of `keras.Model` adds to a model, for models made from it.

A training step of the user's own lives in the class; what it reads lives in attributes. A smaller
model of the same class needs both, but no layer and no state of the model that it was made from.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from amc_tf.errors import AmcError

# What compiling, fitting and evaluating leave in a model, which begin anew in another one.
_OF_TRAINING = {
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
    "history",
    "optimizer",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
}
# Methods by which a class trains, evaluates or predicts in its own way.
_STEPS = (
    "compile",
    "compute_loss",
    "compute_metrics",
    "evaluate",
    "fit",
    "get_metrics_result",
    "make_test_function",
    "make_train_function",
    "metrics",
    "predict",
    "predict_step",
    "reset_metrics",
    "test_on_batch",
    "test_step",
    "train_on_batch",
    "train_step",
)
# Kinds of objects that the configuration of a layer may hold by name.
_IN_CONFIGS = (
    types.FunctionType,
    keras.Layer,
    keras.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.DTypePolicy,
)


def own_steps(model: Any) -> tuple[str, ...]:
    """Returns which methods of training, evaluation or prediction a model's class overrides."""
    return tuple(
        name for name in _STEPS if getattr(type(model), name) is not getattr(keras.Model, name)
    )


def adopt(made: keras.Model, model: keras.Model) -> None:
    """Gives a model of the same class the attributes that the user's code set on another one.

    A layer of the model becomes the layer of the same name in `made`; metrics and variables are
    copied; all else (numbers, functions, a teacher) is shared. What no longer exists, such as a
    nested model that became flat, is left out.

    Raises:
        AmcError: an attribute holds an optimizer, or a model that shares layers with this one.
    """
    names = vars(model).keys() - vars(made).keys() - _OF_TRAINING
    old = {id(layer) for layer in _layers(model)}
    new = {layer.name: layer for layer in made.layers}

    def carried(value: Any) -> Any:
        if isinstance(value, keras.metrics.Metric):
            return fresh_metric(value)
        if isinstance(value, keras.Variable):
            return keras.Variable(
                keras.ops.convert_to_numpy(value),
                dtype=value.dtype,
                trainable=value.trainable,
                name=value.name,
            )
        if isinstance(value, keras.optimizers.Optimizer):
            raise _Held("an optimizer")
        if isinstance(value, keras.KerasTensor) or id(value) in old and value.name not in new:
            raise _Gone
        if id(value) in old:
            return new[value.name]
        if isinstance(value, keras.Layer) and any(id(part) in old for part in _layers(value)):
            raise _Held("a model that shares layers with it")
        if isinstance(value, Mapping):
            return {key: carried(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)([carried(part) for part in value])
        return value

    for name in sorted(names):
        try:
            setattr(made, name, carried(vars(model)[name]))
        except _Gone:
            continue
        except _Held as held:
            raise AmcError(
                f"the model's class {type(model).__name__} holds {held} ({name!r}), which cannot "
                "be carried over to the small model; give your training and scoring as "
                "Task(fit=..., evaluate=...) for a plain keras.Model"
            ) from None


def own_objects(model: keras.Model) -> dict[str, Any]:
    """Returns the user's classes and functions that a file of a model names, by that name.

    Keras looks for them among the registered ones when the file is read; who holds the model
    holds them too.

    Raises:
        AmcError: two of them have one name, so that the file would not tell them apart.
    """
    found: dict[str, Any] = {}
    for named in _named_by(model):
        name = named.__name__
        if not _registered(named) and found.setdefault(name, named) is not named:
            raise AmcError(
                f"two classes or functions of the model are called {name!r}, so that the run's "
                "files could not tell them apart; give them different names, or register them by "
                "@keras.saving.register_keras_serializable(package=...)"
            )
    return found


def own_parts(model: keras.Model) -> dict[str, Any]:
    """Returns all classes and functions of the user's that a model is made of, by their names."""
    return {f"{named.__module__}.{named.__qualname__}": named for named in _named_by(model)}


def _named_by(model: keras.Model) -> Iterator[Any]:
    seen: set[int] = set()
    left: list[Any] = list(getattr(model, "layers", ()))
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        named = part if isinstance(part, types.FunctionType) else type(part)
        if named.__module__.split(".")[0] != "keras":
            yield named
        if named is part:
            continue
        # Keras puts a wrapped `build` of a layer beside that of its class.
        held = [value for name, value in vars(part).items() if not _is_method(part, name)]
        left += [value for value in keras.tree.flatten(held) if isinstance(value, _IN_CONFIGS)]


def _is_method(part: Any, name: str) -> bool:
    return isinstance(getattr(type(part), name, None), types.FunctionType)


def _registered(named: Any) -> bool:
    return keras.saving.get_registered_object(keras.saving.get_registered_name(named)) is named


def fresh_metric(metric: keras.metrics.Metric) -> keras.metrics.Metric:
    """Makes a metric that computes the same from the beginning, with state of its own.

    It is a copy, as a metric need not tell all its arguments in `get_config`, and a function in
    it need not be known by name.
    """
    made = _copied(metric, {})
    made.reset_state()
    return made


def _copied(metric: Any, memo: dict[int, Any]) -> Any:
    # Not `copy.deepcopy(metric)`, for which Keras saves and loads the metric.
    made = memo[id(metric)] = object.__new__(type(metric))
    for value in keras.tree.flatten(list(vars(metric).values())):
        if isinstance(value, keras.metrics.Metric) and id(value) not in memo:
            _copied(value, memo)
        elif isinstance(value, (keras.Layer, keras.losses.Loss)):
            memo[id(value)] = value
    vars(made).update(copy.deepcopy(vars(metric), memo))
    return made


def _layers(layer: Any) -> Iterator[Any]:
    for part in getattr(layer, "layers", ()):
        yield part
        yield from _layers(part)


class _Gone(Exception):
    """A value has no counterpart in the other model."""


class _Held(Exception):
    """A value cannot belong to two models; says what it is."""
