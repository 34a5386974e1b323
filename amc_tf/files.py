"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from amc_tf.errors import AmcError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path` that takes its place on success.

    The suffix is kept, because Keras chooses a format by it. On failure (a
    full disk, an interrupt) the old file stays and the partial one is removed.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Writes `data` so that a reader sees the old content or all of the new."""
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Writes `data` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def read_json(path: str | os.PathLike, default: Any) -> Any:
    """The content of a JSON file, `default` if there is none.

    Raises:
        AmcError: the file is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise AmcError(f"{path} is damaged ({error}); delete it and run again") from None
