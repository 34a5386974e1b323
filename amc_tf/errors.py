"""The one exception a user is meant to read, and the one sentence for an unknown name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar, overload

Entry = TypeVar("Entry")


class AmcError(Exception):
    """A mistake the user can mend: its message is the whole story."""


@overload
def choice(name: str, value: str, known: Mapping[str, Entry]) -> Entry: ...
@overload
def choice(name: str, value: str, known: Collection[str]) -> str: ...
def choice(name: str, value: str, known: Collection[str]) -> object:
    """What a name stands for in a table; the name itself where there is but a list.

    Args:
        name: what is chosen, for the message.
        value: the name that the user gave.
        known: a mapping of names, or a list of them.

    Raises:
        AmcError: the name is not there; tells those that are.
    """
    if value not in known:
        raise AmcError(f"unknown {name} {value!r}; choose one of {_names(known)}")
    return known[value] if isinstance(known, Mapping) else value


def choices(name: str, values: Iterable[str], known: Collection[str]) -> None:
    """Checks names of which a user may give several.

    Args:
        name: what one of them is, for the message.
        values: the names given.
        known: those that there are.

    Raises:
        AmcError: a name is not among them; tells the first such, and all there are.
    """
    for value in values:
        if value not in known:
            raise AmcError(f"unknown {name} {value!r}; choose from {_names(known)}")


def _names(known: Iterable[str]) -> str:
    return ", ".join(map(repr, known))
