"""How far a recovery has come, kept so that it goes on after an interruption."""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from amc_tf import files

_PARTS = ("trained", "average", "best", "optimizer")


@dataclasses.dataclass(frozen=True, eq=False)
class Progress:
    """The state after an epoch.

    Attributes:
        epoch: number of epochs that are done.
        errors: error on the images held out before the first epoch and after each.
        kept: number of the epoch whose weights are best; 0 for those of before.
        trained: weights as the optimizer left them.
        average: their moving average.
        best: the weights with the least error.
        optimizer: values of the optimizer's variables.
    """

    epoch: int
    errors: tuple[float, ...]
    kept: int
    trained: Sequence[np.ndarray]
    average: Sequence[np.ndarray]
    best: Sequence[np.ndarray]
    optimizer: Sequence[np.ndarray]

    def save(self, path: pathlib.Path, of: str) -> None:
        """Writes the file, completely or not at all.

        Args:
            path: the file.
            of: what the training depends on, by which `load` knows it again.
        """
        arrays = {f"{name}{i}": a for name in _PARTS for i, a in enumerate(getattr(self, name))}
        with files.writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        with files.replacing(path) as partial:
            np.savez(
                partial,
                of=np.array(of),
                epoch=np.array(self.epoch),
                errors=np.array(self.errors),
                kept=np.array(self.kept),
                **arrays,
            )

    @classmethod
    def load(cls, path: pathlib.Path, of: str) -> Progress | None:
        """Reads a file; None if there is none, it is damaged or of another training."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                if str(archive["of"]) != of:
                    return None
                parts = {}
                for name in _PARTS:
                    count = sum(file.rstrip("0123456789") == name for file in archive.files)
                    parts[name] = [archive[f"{name}{i}"] for i in range(count)]
                errors = tuple(archive["errors"].tolist())
                return cls(int(archive["epoch"]), errors, int(archive["kept"]), **parts)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
            return None
