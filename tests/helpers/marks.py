"""Which cases of a table are run by default."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

# Of the models of `zoo`, those that are unlike one another.
VARIED = (
    "residual",
    "depthwise_multiplier",
    "squeeze_excite",
    "nested_backbone",
    "two_outputs",
    "grouped",
    "transformer_block",
    "recurrent",
)


def slow_but(cases: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """Returns the cases of a table, all but some of them marked slow."""
    cases = list(cases)
    assert set(fast) <= set(cases), set(fast) - set(cases)
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        if case not in fast
        else case
        for case in cases
    ]
