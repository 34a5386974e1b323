"""Plans: what a search decides, and which channels of which group a pruning plan keeps."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from amc_tf import files
from amc_tf.errors import AmcError

_FORMAT = "amc_tf.PruningPlan/1"


class Plan(Protocol):
    """How much of a model is kept, decision by decision."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many units each decision keeps."""
        ...

    def save(self, path: str | os.PathLike) -> None:
        """Writes the plan as JSON; the file appears whole or not at all."""
        ...


PlanT = TypeVar("PlanT", bound=Plan)
PlanT_contra = TypeVar("PlanT_contra", bound=Plan, contravariant=True)


@dataclasses.dataclass(frozen=True)
class PruningPlan:
    """The channels each group keeps; a group that is not named keeps all.

    Attributes:
        keep: group name to ascending channel indices, at least one each.

    Raises:
        AmcError: an entry is empty, repeated, negative or not an integer.
    """

    keep: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "keep", {str(name): _indices(name, kept) for name, kept in self.keep.items()}
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """How many channels each group that is named keeps."""
        return tuple(len(kept) for kept in self.keep.values())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the plan as JSON; the file appears whole or not at all."""
        files.write_json(path, files.sealed({"format": _FORMAT, "keep": self.keep}))

    @classmethod
    def load(cls, path: str | os.PathLike) -> PruningPlan:
        """Reads a plan written by `save`.

        Raises:
            AmcError: the file is missing, is not JSON, or is not a plan.
        """
        data = read_plan(path, _FORMAT, "pruning plan")
        if not isinstance(data.get("keep"), dict):
            raise AmcError(f'{path} is not a pruning plan: expected "keep" to map group to indices')
        return cls(data["keep"])


def read_plan(path: str | os.PathLike, format_name: str, kind: str) -> dict[str, Any]:
    """The content of a plan's file.

    Args:
        path: the file.
        format_name: what its "format" must be.
        kind: what it is called in errors.

    Raises:
        AmcError: the file is missing, is not JSON, is of another format, or is not
            what was written.
    """
    try:
        data = json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        raise AmcError(f"no {kind} at {path}; a search writes one") from None
    except ValueError as error:
        raise AmcError(f"{path} is not a {kind}: {error}") from None
    if not isinstance(data, dict) or data.get("format") != format_name:
        raise AmcError(f'{path} is not a {kind}: expected "format": "{format_name}"')
    try:
        return files.unsealed(data)
    except ValueError as error:
        raise AmcError(
            f"{path} is damaged ({error}); run the search again, or, if you changed it yourself, "
            f'remove its "{files.SEAL}"'
        ) from None


def _indices(name: str, kept: Sequence[int]) -> tuple[int, ...]:
    array = np.asarray(kept)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise AmcError(
            f"group {name!r}: expected a list of at least one channel index, received {kept!r}"
        )
    unique = np.unique(array)
    if len(unique) != len(array) or unique[0] < 0:
        raise AmcError(f"group {name!r}: channel indices must be distinct and not negative")
    return tuple(int(i) for i in unique)
