"""One step of the user's training code, to see that it runs."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from amc_tf.training.optimizer_settings import OptimizerSettings


def one_step(model: keras.Model, train: Callable[[keras.Model], Any]) -> bool:
    """Runs training code on a model until its first step is done.

    While it runs, `fit` of every Keras model takes one step of one epoch, without callbacks and
    validation, and then ends the code; so does `train_on_batch`. A training loop of the user's
    own ends where it first applies gradients. So this also works for code that trains the model
    as a part of a larger one.

    Args:
        model: a compiled model; it is changed.
        train: code that trains it in place.

    Returns:
        Whether a step was seen; False if the code ended without one.

    Raises:
        Exception: whatever the code raised.
    """
    step = _Step()
    with (
        _replaced(keras.Model, "fit", step.fit),
        _replaced(keras.Model, "train_on_batch", step.train_on_batch),
        _replaced(keras.optimizers.Optimizer, "apply", step.apply),
    ):
        try:
            train(model)
        except _StepDone:
            return True
    return False


@contextlib.contextmanager
def optimizers_as_before() -> Iterator[None]:
    """Returns a context at whose end the optimizers that were built in it are as before that.

    An optimizer that the user's code made once serves only the weights it was first built for.
    """
    kept: dict[int, tuple[Any, Any]] = {}  # each with a new one like it
    none = keras.Sequential()

    def build(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def build(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            if not optimizer.built and id(optimizer) not in kept:
                # One that cannot be made anew stays as it becomes. `fit` builds in a graph.
                with contextlib.suppress(Exception), tf.init_scope():
                    new = OptimizerSettings.of(optimizer, none).make(none)
                    kept[id(optimizer)] = (optimizer, new)
            return original(optimizer, *args, **kwargs)

        return build

    with (
        _replaced(keras.optimizers.Optimizer, "build", build),
        # Which adds variables before it calls the above.
        _replaced(keras.optimizers.LossScaleOptimizer, "build", build),
    ):
        try:
            yield
        finally:
            for optimizer, new in kept.values():
                vars(optimizer).clear()
                vars(optimizer).update(vars(new))


class _StepDone(BaseException):  # noqa: N818  (no error, so that no `except Exception` stops it)
    """Ends the user's code after its first step."""


class _Step:
    """Replacements of Keras' methods; each is made from the original method."""

    def __init__(self) -> None:
        self._by_keras = False

    def fit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Takes one step, without what belongs to whole epochs."""
        signature = inspect.signature(original)
        short = {
            "steps_per_epoch": 1,
            "callbacks": None,
            "validation_data": None,
            "validation_split": 0.0,
            "verbose": 0,
        }

        def fit(*args: Any, **kwargs: Any) -> None:
            given = signature.bind(*args, **kwargs).arguments
            given.update(short, epochs=given.get("initial_epoch", 0) + 1)
            self._by_keras = True
            original(**given)
            raise _StepDone

        return fit

    def train_on_batch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Trains on the first batch only."""

        def train_on_batch(*args: Any, **kwargs: Any) -> None:
            self._by_keras = True
            original(*args, **kwargs)
            raise _StepDone

        return train_on_batch

    def apply(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Ends a loop of the user's own, whose gradients exist by now."""

        def apply(*args: Any, **kwargs: Any) -> Any:
            if self._by_keras:
                return original(*args, **kwargs)
            raise _StepDone

        return apply


@contextlib.contextmanager
def _replaced(
    cls: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Replaces a method that a class has or inherits, and puts it back."""
    own = name in vars(cls)
    original = getattr(cls, name)
    setattr(cls, name, make(original))
    try:
        yield
    finally:
        if own:
            setattr(cls, name, original)
        else:
            delattr(cls, name)
