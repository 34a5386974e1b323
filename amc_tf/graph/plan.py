"""Plans: the result of a search, and the pruning plan, which says which channels are kept."""

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
    """A record of how much of a model is kept, decision by decision."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of units that each decision keeps."""
        ...

    def save(self, path: str | os.PathLike) -> None:
        """Writes the plan as JSON; the file appears whole or not at all."""
        ...


PlanT = TypeVar("PlanT", bound=Plan)
PlanT_contra = TypeVar("PlanT_contra", bound=Plan, contravariant=True)


@dataclasses.dataclass(frozen=True)
class PruningPlan:
    """A record of the channels that each group keeps; a group that is not named keeps all.

    Attributes:
        keep: mapping from a group's name to ascending channel indices, at least one each.

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
        """Number of channels that each named group keeps."""
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
    """Reads a plan's file.

    Args:
        path: path of the file.
        format_name: required value of its "format".
        kind: name of this kind of plan in error messages.

    Returns:
        The content of the file, without its checksum.

    Raises:
        AmcError: the file is missing, is not JSON, has another format, or does not
            match its checksum.
    """
    try:
        data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AmcError(f"no {kind} at {path}; a search writes one") from None
    except OSError as error:
        raise AmcError(f"{path} cannot be read as a {kind}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
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
    try:
        array = np.asarray(kept)
    except (ValueError, OverflowError):  # lists of different lengths
        array = np.empty(0)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise AmcError(
            f"group {name!r}: expected a list of at least one channel index, received {kept!r}"
        )
    unique = np.unique(array)
    if len(unique) != len(array) or unique[0] < 0:
        raise AmcError(f"group {name!r}: channel indices must be distinct and not negative")
    return tuple(int(i) for i in unique)
