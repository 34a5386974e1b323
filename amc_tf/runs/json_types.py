"""Values from JSON compared with Python types, so that damage is told where a file is read."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Finite = typing.NewType("Finite", float)

# More than 64 bits is no count of anything, and overflows wherever it is used.
_LARGEST = 2**63
_KINDS: Mapping[Any, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Finite: "a number",
    str: "a text",
    list: "a list",
    tuple: "a list",
    dict: "an object",
}


def mismatch(value: Any, expected: Any, where: str = "the content") -> str:
    """Returns how a value differs from a type, in words; empty if it does not.

    Args:
        value: what `json.loads` returns, or what was made of it.
        expected: `Any`, `float` (also for whole numbers), `Finite` (the same without infinity and
            NaN), `int`, `str`, `bool`, None, a
            class; or made of these a union, list or sequence, tuple, mapping with texts
            as keys, or TypedDict, which may hold other keys besides its own.
        where: name of the value.
    """
    if expected is Any:
        return ""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        differing = [mismatch(value, one, where) for one in arguments]
        return differing[0] if all(differing) else ""
    if not _is(value, expected, origin):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and expected in (Finite, float, int):
            return f"{where} is {str(value)[:20]}, which it cannot be"
        return f"{where} is {_kind(type(value))} instead of {_kind(origin or expected)}"
    if typing.is_typeddict(expected):
        for key in sorted(expected.__required_keys__ - value.keys()):
            return f"{where} lacks {key!r}"
    for name, inner, kind in _parts(value, expected, origin, arguments):
        found = mismatch(inner, kind, f"{where}, {name}")
        if found:
            return found
    if origin is tuple and Ellipsis not in arguments and len(value) != len(arguments):
        return f"{where} has {len(value)} entries instead of {len(arguments)}"
    return ""


def _is(value: Any, expected: Any, origin: Any) -> bool:
    if expected in (Finite, float, int):
        if isinstance(value, float):
            return expected is float or (expected is Finite and math.isfinite(value))
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST
    if typing.is_typeddict(expected) or origin is Mapping or origin is dict:
        return isinstance(value, Mapping)
    if origin in (list, tuple, Sequence):
        return isinstance(value, (list, tuple))
    return isinstance(value, type(None) if expected is None else expected)


def _parts(
    value: Any, expected: Any, origin: Any, arguments: tuple[Any, ...]
) -> Iterator[tuple[str, Any, Any]]:
    """Yields the name, the value and the expected type of every part of a value."""
    if typing.is_typeddict(expected):
        for key, kind in typing.get_type_hints(expected).items():
            if key in value:
                yield repr(key), value[key], kind
    elif origin is Mapping or origin is dict:
        for key, inner in value.items():
            yield repr(key), inner, arguments[1]
    elif origin is tuple and Ellipsis not in arguments:
        for number, (inner, kind) in enumerate(zip(value, arguments, strict=False)):
            yield f"entry {number}", inner, kind
    elif origin in (list, tuple, Sequence):
        for number, inner in enumerate(value):
            yield f"entry {number}", inner, arguments[0]


def _kind(of: Any) -> str:
    if typing.is_typeddict(of) or of is Mapping:
        return _KINDS[dict]
    if of is Sequence:
        return _KINDS[list]
    return _KINDS.get(of, getattr(of, "__name__", str(of)))
