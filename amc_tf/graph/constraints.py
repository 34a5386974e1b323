"""The user's constraints on single layers: frozen, a least preserve ratio, a multiple."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.analysis import analyze
from amc_tf.graph.channel_graph import ChannelGraph, Group
from amc_tf.graph.input_shapes import InputShape

# Patterns with a value for each; their order matters.
Wishes = Mapping[str, Any] | Sequence[tuple[str, Any]]


@dataclasses.dataclass(frozen=True)
class Constraints:
    """Constraints on layers, which are named by shell patterns: `*`, `?`, `[seq]`.

    A pattern of `min_preserve` or `rounding` applies to each group if it matches
    the name of the group or of a layer that produces it (`amc-inspect` lists
    them). If several patterns match a group, the last one applies; so a general
    pattern comes first and its exceptions follow. A group that no pattern matches
    follows the setting of the search.

    Attributes:
        freeze: patterns of layers that keep all their output channels.
        min_preserve: least preserve ratio of each pattern, in (0, 1]: `{"block_1*": 0.5}`, or
            as pairs `(("block_1*", 0.5),)`, the form of configuration files and of the command
            line.
        rounding: number of each pattern, at least 1, of which channel counts are multiples; in
            the same forms.

    Raises:
        AmcError: a value is out of range or not of these forms.
    """

    freeze: tuple[str, ...] = ()
    min_preserve: Wishes = ()
    rounding: Wishes = ()

    def __post_init__(self) -> None:
        is_list = isinstance(self.freeze, (tuple, list))
        if not is_list or not all(isinstance(p, str) for p in self.freeze):
            raise AmcError(
                "constraints.freeze: expected a tuple of layer names or patterns such as "
                f"('stem', 'block_1*'), received {self.freeze!r}"
            )
        object.__setattr__(self, "freeze", tuple(self.freeze))
        for field, example, is_allowed, expected in _VALUES:
            pairs = _pairs(field, getattr(self, field), example)
            for pattern, value in pairs:
                if isinstance(value, bool) or not is_allowed(value):
                    raise AmcError(
                        f"constraints.{field}: expected {expected}, received {value!r} for "
                        f"{pattern!r}"
                    )
            object.__setattr__(self, field, pairs)

    def analyze(
        self, model: keras.Model, input_shape: InputShape = (), allow_approximate: bool = False
    ) -> ChannelGraph:
        """Analyses a model for pruning within these constraints.

        Args:
            model: a model as for `amc_tf.analyze`.
            input_shape: see there.
            allow_approximate: see there.

        Returns:
            The channel graph, in which the layers of `freeze` are frozen.

        Raises:
            AmcError: see `amc_tf.analyze`; or a pattern matches no layer (the message
                suggests similar names), or no layer whose channels can be pruned.
        """
        free = analyze(model, (), input_shape, allow_approximate)
        layers = [free.network.name(operation) for operation in free.network.operations()]
        for field in ("freeze", "min_preserve", "rounding"):
            for pattern in self._patterns(field):
                _check_known(field, pattern, dict.fromkeys([*layers, *free.groups]))
        for pattern in self.freeze:
            # Only the analysis knows what a pattern freezes, as it follows the channels through
            # the layers.
            frozen = analyze(model, (pattern,), allow_approximate=allow_approximate)
            if _prunable(frozen) == _prunable(free):
                raise AmcError(
                    f"constraints.freeze: {_matched(pattern, layers)}, whose channels are not "
                    "pruned anyway (amc-inspect says why); leave it out"
                )
        graph = free
        if self.freeze:
            graph = analyze(model, self.freeze, input_shape, allow_approximate)
        for field, *_ in _VALUES:
            for pattern in self._patterns(field):
                if not any(_means(pattern, group) for group in graph.groups.values()):
                    frozen = any(_means(pattern, group) for group in free.groups.values())
                    reason = (
                        "whose channels constraints.freeze keeps already; leave one of the two out"
                        if frozen
                        else "which makes no channels that can be pruned; name a layer that "
                        "amc-inspect lists as a producer"
                    )
                    raise AmcError(f"constraints.{field}: {_matched(pattern, layers)}, {reason}")
        return graph

    def min_preserves(self, graph: ChannelGraph, default: float) -> list[float]:
        """Returns the least preserve ratio of each group, in the order of `graph.groups`."""
        return self._resolved("min_preserve", graph, default)

    def roundings(self, graph: ChannelGraph, default: int) -> list[int]:
        """Returns the number of which each group's channel count is a multiple.

        The order is that of `graph.groups`.
        """
        return self._resolved("rounding", graph, default)

    def _patterns(self, field: str) -> list[str]:
        return [w if isinstance(w, str) else w[0] for w in getattr(self, field)]

    def _resolved(self, field: str, graph: ChannelGraph, default: Any) -> list[Any]:
        return [
            next(
                (v for pattern, v in reversed(getattr(self, field)) if _means(pattern, group)),
                default,
            )
            for group in graph.groups.values()
        ]


# Fields that hold values: name, example, test of a value, and the test in words.
_VALUES = (
    (
        "min_preserve",
        (("block_1*", 0.5),),
        lambda v: isinstance(v, (int, float)) and 0 < v <= 1,
        "a ratio in (0, 1]",
    ),
    (
        "rounding",
        (("block_1*", 16),),
        lambda v: isinstance(v, int) and v >= 1,
        "a whole number of at least 1",
    ),
)


def _pairs(field: str, wishes: Any, example: Any) -> tuple[tuple[str, Any], ...]:
    items = list(wishes.items()) if isinstance(wishes, Mapping) else wishes
    is_list = isinstance(items, (tuple, list))
    if not is_list or not all(
        isinstance(i, (tuple, list)) and len(i) == 2 and isinstance(i[0], str) for i in items
    ):
        raise AmcError(
            f"constraints.{field}: expected (pattern, value) pairs such as {example!r}, received "
            f"{wishes!r}"
        )
    return tuple((pattern, value) for pattern, value in items)


def _means(pattern: str, group: Group) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (group.name, *group.producers))


def _prunable(graph: ChannelGraph) -> int:
    return sum(group.channels for group in graph.groups.values())


def _check_known(field: str, pattern: str, names: Iterable[str]) -> None:
    names = list(names)
    if any(fnmatch.fnmatchcase(name, pattern) for name in names):
        return
    near = difflib.get_close_matches(pattern.strip("*"), names, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "amc-inspect lists them"
    raise AmcError(f"constraints.{field}: no layer's name matches {pattern!r}; {hint}")


def _matched(pattern: str, layers: Iterable[str], most: int = 3) -> str:
    found = [name for name in layers if fnmatch.fnmatchcase(name, pattern)]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{pattern!r} matches only {', '.join(found[:most])}{more}"
