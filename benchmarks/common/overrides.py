"""Settings changed by texts such as `response_share=0.5` and `ddpg.sigma=0.25`."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import amc_tf
from amc_tf.errors import choice

S = TypeVar("S")


def overridden(settings: S, changes: Sequence[str]) -> S:
    """Returns settings (a dataclass) with changes made.

    Args:
        settings: the settings.
        changes: each `FIELD=VALUE`; a field of a section is `SECTION.FIELD`. Values are Python's
            literals; what is none is taken as text.

    Raises:
        AmcError: a change is not of this form, or there is no such field.
    """
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise amc_tf.AmcError(f"expected FIELD=VALUE, received {change!r}")
        settings = _replaced(settings, path.strip(), _parsed(value))
    return settings


def _parsed(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _replaced(settings: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    known = [field.name for field in dataclasses.fields(settings)]
    choice(f"field of {type(settings).__name__}", name, known)
    if rest:
        value = _replaced(getattr(settings, name), rest, value)
    return dataclasses.replace(settings, **{name: value})
