"""Values from JSON compared with types, by hand."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import pytest

from amc_tf.runs.json_types import Finite, mismatch


class _Needed(TypedDict):
    name: str
    sizes: list[int]


class _Both(_Needed, total=False):
    score: Finite


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Any),
        (3, float),
        (float("nan"), float),
        (3.5, Finite),
        (-7, int),
        (None, str | None),
        ("x", str | None),
        ([], list[int]),
        ((1, 2), tuple[int, ...]),
        ([[1, 2], 0.5], tuple[list[int], float]),
        ({"a": 1, "b": 2.5}, Mapping[str, float]),
        ({"name": "n", "sizes": [1], "other": None}, _Both),
        ({"name": "n", "sizes": [], "score": 1}, _Both),
        ([_Needed(name="n", sizes=[])], Sequence[_Both]),
    ],
)
def test_values_of_a_type(value, expected):
    assert mismatch(value, expected) == ""


@pytest.mark.parametrize(
    ("value", "expected", "told"),
    [
        (True, int, "the content is true or false instead of a whole number"),
        (3.0, int, "the content is 3.0, which it cannot be"),
        (2**63, int, "the content is 9223372036854775808, which it cannot be"),
        (-(2**70), float, "the content is -1180591620717411303, which it cannot be"),
        (float("inf"), Finite, "the content is inf, which it cannot be"),
        ("3", float, "the content is a text instead of a number"),
        (3, str | None, "the content is a whole number instead of a text"),
        ([1, "2"], list[int], "the content, entry 1 is a text instead of a whole number"),
        ([[1], 2, 3], tuple[list[int], int], "the content has 3 entries instead of 2"),
        ({}, list[int], "the content is an object instead of a list"),
        ({"a": None}, Mapping[str, int], "the content, 'a' is null instead of a whole number"),
        ([], _Both, "the content is a list instead of an object"),
        ({"name": "n"}, _Both, "the content lacks 'sizes'"),
        (
            {"name": "n", "sizes": [1], "score": []},
            _Both,
            "the content, 'score' is a list instead of a number",
        ),
    ],
)
def test_values_of_another_type(value, expected, told):
    assert mismatch(value, expected) == told
