"""Rows of the dense network that are kept until a refit reads them, in memory or in a file.

They are by far the largest thing that a refit holds, but only one layer's are needed at a time. A
refit that few plans get can read them from a file.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

_LOG = logging.getLogger(__name__)

# Reads rows (rows, columns).
ReadRows = Callable[[], np.ndarray]


class Keeper(Protocol):
    """A place that keeps blocks of rows."""

    def keep(self, block: np.ndarray) -> Any:
        """Keeps a block (rows, columns); returns what `joined` takes."""
        ...

    def joined(self, kept: Sequence[Any]) -> ReadRows:
        """Returns a function that reads blocks, one below the other; at least one."""
        ...


class InMemory:
    """A `Keeper` in memory."""

    def keep(self, block: np.ndarray) -> np.ndarray:
        """See `Keeper`."""
        return block

    def joined(self, kept: Sequence[np.ndarray]) -> ReadRows:
        """See `Keeper`."""
        rows = np.concatenate(kept)
        return lambda: rows


class _Place(NamedTuple):
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class InFile:
    """A `Keeper` in a file of the system's folder of temporary files, gone with this object.

    What cannot be written there is kept in memory, and the log says so.
    """

    def __init__(self) -> None:
        self._file: io.FileIO | None = None
        self._end = 0
        self._fails = False

    def keep(self, block: np.ndarray) -> _Place | np.ndarray:
        """See `Keeper`."""
        if self._fails:
            return block
        try:
            return self._written(block)
        except OSError as error:
            self._fails = True
            _LOG.warning(
                "what the refit keeps of the dense network stays in memory, as it cannot be "
                "written to a temporary file: %s",
                error,
            )
            return block

    def _written(self, block: np.ndarray) -> _Place:
        if self._file is None:
            self._file = _opened()
        place = _Place(self._end, block.shape, block.dtype)
        self._file.seek(place.offset)
        left = memoryview(block.tobytes())
        while left:  # a write may be short
            left = left[self._file.write(left) :]
        self._end += block.nbytes
        return place

    def joined(self, kept: Sequence[_Place | np.ndarray]) -> ReadRows:
        """See `Keeper`."""
        return functools.partial(self._read, tuple(kept))

    def _read(self, kept: Sequence[_Place | np.ndarray]) -> np.ndarray:
        height = sum(block.shape[0] for block in kept)
        result = np.empty((height, *kept[0].shape[1:]), kept[0].dtype)
        done = 0
        for block in kept:
            rows = self._of(block) if isinstance(block, _Place) else block
            result[done : done + len(rows)] = rows
            done += len(rows)
        return result

    def _of(self, place: _Place) -> np.ndarray:
        assert self._file is not None
        self._file.seek(place.offset)
        read = np.fromfile(self._file, place.dtype, math.prod(place.shape))
        if len(read) != math.prod(place.shape):
            raise OSError("a temporary file of a refit was cut short")
        return read.reshape(place.shape)


def _opened() -> io.FileIO:
    # Unbuffered: what a full disk did not take would be in the buffer, and fail each later seek.
    return tempfile.TemporaryFile(buffering=0)
