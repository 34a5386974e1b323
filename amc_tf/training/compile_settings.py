"""The settings a model was compiled with, to compile models made from it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.own_classes import fresh_metric
from amc_tf.training.optimizer_settings import OptimizerSettings

_STATEFUL = ("metrics", "weighted_metrics")


@dataclasses.dataclass(frozen=True, eq=False)
class CompileSettings:
    """A record of the arguments of `compile`, with which another model can be compiled.

    Losses are the user's objects themselves. Optimizer and metrics are made anew, so that models
    share no state. An optimizer starts at the learning rate it had at the time of the record.

    Attributes:
        arguments: the arguments of `keras.Model.compile` but the optimizer.
        optimizer: the optimizer's settings; None if there is no optimizer.
        own: the model's `get_compile_config`, if its class has one of its own; else None.
    """

    arguments: Mapping[str, Any]
    optimizer: OptimizerSettings | None
    own: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, model: keras.Model) -> CompileSettings:
        """Returns the settings of a compiled model.

        Raises:
            AmcError: they cannot be carried over to another model.
        """
        with _refused():
            if type(model).get_compile_config is not keras.Model.get_compile_config:
                return cls({}, None, model.get_compile_config())
            # Not the result of `get_compile_config`, which tells functions apart by name alone.
            arguments = dict(model._compile_config.config)
            del arguments["optimizer"]
            # Taken from the model: in mixed precision, Keras has wrapped the one that was given.
            optimizer = model.optimizer
            settings = None if optimizer is None else OptimizerSettings.of(optimizer, model)
            return cls(arguments, settings)

    def apply(self, model: keras.Model) -> None:
        """Compiles a model.

        Raises:
            AmcError: something cannot be made again for another model.
        """
        with _refused():
            if self.own is not None:
                model.compile_from_config(dict(self.own))
                return
            given = {**self.arguments}
            for name in _STATEFUL:
                given[name] = keras.tree.map_structure(_fresh, given.get(name))
            optimizer = None if self.optimizer is None else self.optimizer.make(model)
            # A `compile` of the user's own handed on just these; what it kept, the model has.
            keras.Model.compile(model, optimizer, auto_scale_loss=False, **given)


def _fresh(metric: Any) -> Any:
    return fresh_metric(metric) if isinstance(metric, keras.metrics.Metric) else metric


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except AmcError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise AmcError(
            f"the model's compile settings cannot be carried over ({reason}); give "
            "compile=..., a function that calls model.compile(...)"
        ) from error
