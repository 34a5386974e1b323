"""The settings a model was compiled with, to compile models made from it."""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from amc_tf.errors import AmcError


@dataclasses.dataclass(frozen=True, eq=False)
class CompileSettings:
    """A record of the arguments of `compile`, with which another model can be compiled.

    Optimizer and metrics are created anew, so that models share no state. An optimizer
    starts at the learning rate it had when the settings were recorded.

    Attributes:
        config: the result of `Model.get_compile_config`.
        objects: the user's functions and classes in `config`, by name. Keras would look for
            them among the registered ones, and few training scripts register theirs.
    """

    config: Mapping[str, Any]
    objects: Mapping[str, Any]

    @classmethod
    def of(cls, model: keras.Model) -> CompileSettings:
        """Returns the settings of a compiled model."""
        with _refused():
            return cls(model.get_compile_config(), dict(_own_objects(model)))

    def apply(self, model: keras.Model) -> None:
        """Compiles a model.

        Raises:
            AmcError: something cannot be created again from its configuration, such as a
                lambda.
        """
        with _refused(), keras.saving.custom_object_scope(dict(self.objects)):
            model.compile_from_config(self.config)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise AmcError(
            f"the model's compile settings cannot be carried over ({reason}); give "
            "compile=..., a function that calls model.compile(...)"
        ) from error


def _own_objects(model: keras.Model) -> Iterator[tuple[str, Any]]:
    given = getattr(model, "_compile_config", None)
    for value in keras.tree.flatten(given.config if given is not None else {}):
        # Keras wraps functions as `fn` of losses, `_fn` of metrics.
        inner = (getattr(value, name, None) for name in ("fn", "_fn", "_learning_rate"))
        for found in (value, *inner):
            named = found if isinstance(found, types.FunctionType) else type(found)
            if named.__module__.split(".")[0] not in ("builtins", "keras"):
                yield named.__name__, named
