"""The files that a stage made, by whose size and checksum damage is found."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from amc_tf.runs.result_parts import Part


@dataclasses.dataclass(frozen=True)
class Product(Part):
    """A file as a stage wrote it.

    Attributes:
        bytes: size of the file.
        sha256: checksum of its content.
        of: fingerprint of what it was made from; None where a stage makes all of its files again.
    """

    bytes: int
    sha256: str
    of: str | None = None

    @classmethod
    def at(cls, path: pathlib.Path, of: str | None = None) -> Product:
        """Returns the record of a file that was just written."""
        return cls(path.stat().st_size, _sha256(path), of)

    def is_at(self, path: pathlib.Path) -> bool:
        """Returns whether a file is there as it was written."""
        try:
            return path.stat().st_size == self.bytes and _sha256(path) == self.sha256
        except OSError:
            return False

    def to_json(self) -> dict[str, Any]:
        """Returns the content, without an absent fingerprint."""
        return {name: value for name, value in super().to_json().items() if value is not None}


def damaged(
    folder: pathlib.Path, names: Iterable[str], recorded: Mapping[str, Product]
) -> list[str]:
    """Returns the names of files that are missing, empty or other than they were written.

    Args:
        folder: the work directory.
        names: names of files that must be there.
        recorded: records of files; earlier versions kept none.
    """
    return [
        name
        for name in dict.fromkeys([*names, *recorded])
        if not (
            recorded[name].is_at(folder / name)
            if name in recorded
            else (folder / name).is_file() and (folder / name).stat().st_size
        )
    ]


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
