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

DELETE = "delete it and run again"
SEAL = "crc32"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; on success, the file written there replaces `path`.

    The temporary path has the same suffix, because Keras chooses a format by it.
    It is a new, empty file: what had its name before, a link for instance, is removed.
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
            partial.unlink(missing_ok=True)
            os.close(no_links(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            yield partial
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def no_links(path: str | os.PathLike, flags: int) -> int:
    """Opens a file, unless its name is a symbolic link; an `opener` for `open`.

    A run's folder may come from elsewhere. What is written there must not go to a file outside.

    Raises:
        OSError: the path is a link, or cannot be opened.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


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


@contextlib.contextmanager
def reading(path: str | os.PathLike, remedy: str = DELETE) -> Iterator[None]:
    """Turns the errors of a file that cannot be read, or is damaged, into a message for the user.

    Args:
        path: the file.
        remedy: what to do if it is damaged.

    Raises:
        AmcError: the context raised one of these errors; that the file is absent stays a
            FileNotFoundError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise AmcError(f"{path} cannot be read: {reason}; mend that or delete it") from error
    except RecursionError:
        raise AmcError(f"{path} is damaged (too deep); {remedy}") from None
    except ValueError as error:
        raise AmcError(f"{path} is damaged ({error}); {remedy}") from None


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


def read_json(path: str | os.PathLike, default: Any, remedy: str = DELETE) -> Any:
    """Reads a JSON file; returns `default` if the file does not exist.

    Args:
        path: the file.
        default: what is returned without it.
        remedy: what to do if it is damaged, for the message.

    Raises:
        AmcError: the file cannot be read, is not JSON, or does not match its checksum.
    """
    try:
        with reading(path, remedy):
            content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
            return unsealed(content) if isinstance(content, dict) else content
    except FileNotFoundError:
        return default
