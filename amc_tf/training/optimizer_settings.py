"""The settings of an optimizer, to make one like it for another model."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from amc_tf.errors import AmcError


@dataclasses.dataclass(frozen=True, eq=False)
class OptimizerSettings:
    """A record of an optimizer, without the state that belongs to the weights it trains.

    Attributes:
        kind: class of the optimizer.
        config: arguments of the class. The learning rate is the number at the time of the record,
            or the user's own schedule object.
        unweighted: paths of the variables without weight decay (`exclude_from_weight_decay`).
        pattern: regular expression of the names of variables without weight decay; None for none.
        inner: settings of the optimizer that a `LossScaleOptimizer` wraps; else None.
    """

    kind: type[keras.optimizers.Optimizer]
    config: Mapping[str, Any]
    unweighted: tuple[str, ...] = ()
    pattern: str | None = None
    inner: OptimizerSettings | None = None

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer, model: keras.Model) -> OptimizerSettings:
        """Returns the settings of an optimizer that trains `model`.

        Raises:
            AmcError: the optimizer's class does not tell all its arguments in `get_config`.
        """
        kind = type(optimizer)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            own = ("name", "initial_scale", "dynamic_growth_steps")
            inner = cls.of(optimizer.inner_optimizer, model)
            return cls(kind, {name: getattr(optimizer, name) for name in own}, inner=inner)
        # The rate is taken itself, as `get_config` would write down the user's schedule by name.
        bare = object.__new__(kind)
        vars(bare).update(vars(optimizer), _learning_rate=None)
        config = bare.get_config()
        config["learning_rate"] = _rate(vars(optimizer)["_learning_rate"])
        _check_arguments(kind, config)
        excluded = getattr(optimizer, "_exclude_from_weight_decay", ())
        pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        return cls(
            kind,
            config,
            tuple(v.path for v in model.variables if optimizer._var_key(v) in excluded),
            None if pattern is None else pattern.pattern,
        )

    def make(self, model: keras.Model) -> keras.optimizers.Optimizer:
        """Makes a new optimizer for a model.

        Raises:
            AmcError: the model lacks a variable that is to have no weight decay.
        """
        if self.inner is not None:
            return self.kind(self.inner.make(model), **self.config)
        made = self.kind.from_config(dict(self.config))
        if self.unweighted or self.pattern is not None:
            made.exclude_from_weight_decay(
                var_list=[_variable(model, path) for path in self.unweighted],
                var_names=None if self.pattern is None else [self.pattern],
            )
        return made


def _rate(value: Any) -> Any:
    if callable(value):  # a schedule holds no state
        return value
    return float(keras.ops.convert_to_numpy(value))


def _check_arguments(kind: type, config: Mapping[str, Any]) -> None:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    untold = [p.name for p in parameters if p.kind in named and p.name not in config]
    if untold:
        raise AmcError(
            f"the optimizer {kind.__name__} does not tell its argument {untold[0]!r} in "
            "get_config, so that it cannot be made anew for the small model; add it there, or give "
            "compile=..., a function that calls model.compile(...)"
        )


def _variable(model: keras.Model, path: str) -> Any:
    """Returns the variable of a path; nested models, which became flat, are left out of it."""
    for parts in range(path.count("/") + 1):
        tail = path.split("/", parts)[-1]
        found = [variable for variable in model.variables if variable.path == tail]
        if len(found) == 1 and "/" in tail:
            return found[0]
    raise AmcError(
        f"the optimizer excludes {path!r} from weight decay, which the small model has not; give "
        "exclude_from_weight_decay(var_names=...), or compile=..., a function that calls "
        "model.compile(...)"
    )
