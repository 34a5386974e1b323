"""Writing files so that they are either complete or absent, and detecting damaged ones."""

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
    """Yields a temporary path beside `path`; on success, the file written there replaces `path`.

    The temporary path has the same suffix, because Keras chooses a format by it.
    On failure (a full disk, an interrupt) the old file stays and the partial one
    is removed. The new file is flushed to the disk before it gets its name, so
    that it survives a power cut.

    Raises:
        AmcError: the system cannot write the file.
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
    """Turns an OSError while `path` is written into a message for the user.

    Raises:
        AmcError: the system cannot write the file.
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
    # A folder is opened for reading too: fsync then flushes its entries.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Writes `data` so that a reader sees either the old content or the complete new one.

    Raises:
        AmcError: the system cannot write the file.
    """
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Writes `data` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def sealed(data: Mapping[str, Any], apart: tuple[str, ...] = ()) -> dict[str, Any]:
    """Adds a checksum of its content to a JSON object; `unsealed` verifies it.

    Args:
        data: JSON values.
        apart: keys that the checksum does not cover.
    """
    return {**data, SEAL: checksum(data, apart)}


def unsealed(data: Mapping[str, Any], apart: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the content of a sealed object, without its checksum.

    An object written by hand has no checksum and is not verified.

    Raises:
        ValueError: the content does not match the checksum.
    """
    content = {key: value for key, value in data.items() if key != SEAL}
    found = checksum(content, apart)
    if data.get(SEAL, found) != found:
        raise ValueError(f"its content has the checksum {found}, not {data[SEAL]!r} as written")
    return content


def checksum(data: Mapping[str, Any], apart: tuple[str, ...] = ()) -> str:
    """Returns the CRC-32 of a JSON object without the keys `apart`, in hexadecimal."""
    covered = {key: value for key, value in data.items() if key not in apart}
    return f"{zlib.crc32(json.dumps(covered, sort_keys=True).encode()):08x}"


def read_json(path: str | os.PathLike, default: Any) -> Any:
    """Reads a JSON file; returns `default` if the file does not exist.

    Raises:
        AmcError: the file is not JSON, or does not match its checksum.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text())
        return unsealed(content) if isinstance(content, dict) else content
    except FileNotFoundError:
        return default
    except ValueError as error:
        raise AmcError(f"{path} is damaged ({error}); delete it and run again") from None
