"""The exception for a user's mistakes, and the message for an unknown name."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar, overload

from tflite_tools.errors import printable

Entry = TypeVar("Entry")


class AmcError(Exception):
    """A mistake that the user can correct; the message says all that is needed for that.

    Names in the message come from models and files: what is not printable in them is escaped.
    """

    def __init__(self, *message: object) -> None:
        super().__init__(*(printable(str(part), keep="\n") for part in message))


@overload
def choice(name: str, value: str, known: Mapping[str, Entry]) -> Entry: ...
@overload
def choice(name: str, value: str, known: Collection[str]) -> str: ...
def choice(name: str, value: str, known: Collection[str]) -> object:
    """Looks up a name that the user gave.

    Args:
        name: what is chosen, for the message.
        value: the name that the user gave.
        known: mapping from the known names to what they stand for, or just the known names.

    Returns:
        The entry of a mapping; the name itself if `known` is no mapping.

    Raises:
        AmcError: the name is not known; the message lists the known ones.
    """
    if value not in known:
        raise AmcError(f"unknown {name} {value!r}; choose one of {_names(known)}")
    return known[value] if isinstance(known, Mapping) else value


def choices(name: str, values: Iterable[str], known: Collection[str]) -> None:
    """Checks several names that the user gave.

    Args:
        name: what one of them is, for the message.
        values: the names that the user gave.
        known: the known names.

    Raises:
        AmcError: a name is not known; the message gives the first unknown name and all known
            ones.
    """
    for value in values:
        if value not in known:
            raise AmcError(f"unknown {name} {value!r}; choose from {_names(known)}")


def whole(name: str, value: object, least: int = 0) -> int:
    """Checks a whole number that the user gave.

    Args:
        name: what it is, for the message.
        value: what the user gave; NumPy's integers are whole numbers, too.
        least: the least number that has a meaning.

    Returns:
        The number, as JSON can hold it.

    Raises:
        AmcError: it is no whole number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise AmcError(f"expected {name} as a whole number, at least {least}, received {value!r}")
    return int(value)


def number(name: str, value: object) -> float:
    """Checks a number that the user gave.

    Args:
        name: what it is, for the message.
        value: what the user gave; NumPy's numbers are numbers, too.

    Returns:
        The number, as JSON can hold it.

    Raises:
        AmcError: it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise AmcError(f"expected {name} as a number, received {value!r}")
    return float(value)


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says; the name of its class if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _names(known: Iterable[str]) -> str:
    return ", ".join(map(repr, known))
