"""Files that are either whole or absent, and that tell when they were damaged."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from amc_tf.errors import AmcError

SEAL = "crc32"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path` that takes its place on success.

    The suffix is kept, because Keras chooses a format by it. On failure (a
    full disk, an interrupt) the old file stays and the partial one is removed.
    Once it has its name, the file is on the disk: it outlives a power cut.

    Raises:
        AmcError: the system refuses to write it.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        with writing(path):
            yield partial
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Tells a failure of the system while `path` is written in one sentence.

    Raises:
        AmcError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise AmcError(
            f"{path} cannot be written: {reason}; mend that (free space, permissions), and the "
            "same call resumes with what was written before"
        ) from error


def _sync(path: pathlib.Path) -> None:
    # A folder too is opened for reading: its entries are what is brought to the disk.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Writes `data` so that a reader sees the old content or all of the new.

    Raises:
        AmcError: the system refuses.
    """
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Writes `data` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def sealed(data: Mapping[str, Any], apart: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object with a checksum of its content, which `unsealed` looks at.

    Args:
        data: JSON values.
        apart: keys that the checksum does not cover.
    """
    return {**data, SEAL: checksum(data, apart)}


def unsealed(data: Mapping[str, Any], apart: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a sealed object, or of one written by hand, which has no seal.

    Raises:
        ValueError: the content is not what was sealed.
    """
    content = {key: value for key, value in data.items() if key != SEAL}
    found = checksum(content, apart)
    if data.get(SEAL, found) != found:
        raise ValueError(f"its content has the checksum {found}, not {data[SEAL]!r} as written")
    return content


def checksum(data: Mapping[str, Any], apart: tuple[str, ...] = ()) -> str:
    """CRC-32 of a JSON object's content but for some keys, in hexadecimal."""
    covered = {key: value for key, value in data.items() if key not in apart}
    return f"{zlib.crc32(json.dumps(covered, sort_keys=True).encode()):08x}"


def read_json(path: str | os.PathLike, default: Any) -> Any:
    """The content of a JSON file, `default` if there is none.

    Raises:
        AmcError: the file is not JSON, or not what was sealed in it.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text())
        return unsealed(content) if isinstance(content, dict) else content
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise AmcError(f"{path} is damaged ({error}); delete it and run again") from None
