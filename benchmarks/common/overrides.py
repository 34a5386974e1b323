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
    fresh: dict[str, Any] = {}
    known = [field.name for field in dataclasses.fields(settings)]
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise amc_tf.AmcError(f"expected FIELD=VALUE, received {change!r}")
        name, _, rest = path.strip().partition(".")
        choice(f"field of {type(settings).__name__}", name, known)
        if rest:
            section = fresh.get(name, getattr(settings, name))
            fresh[name] = overridden(section, [f"{rest}={value}"])
        else:
            fresh[name] = _parsed(value)
    # All at once, as settings are checked together.
    return dataclasses.replace(settings, **fresh)


def _parsed(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
