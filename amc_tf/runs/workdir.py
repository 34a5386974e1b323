"""The work directory, through which the stages of a run exchange their results."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.graph.keras_structure import like, plain
from amc_tf.graph.own_classes import own_objects
from amc_tf.runs import forms, layout
from amc_tf.runs.layout import ModelFile
from amc_tf.runs.lock import FolderLock
from amc_tf.runs.model_files import fingerprint, load_model
from amc_tf.runs.result import RunResult

# Sections of the configuration that only later stages read, and the results to drop
# when one of them changes. Any other section affects the search.
STAGE_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "finetune": ("finetuned", "tflite"),
    "export": ("tflite",),
    "sparsity": ("sparse",),
}


class Workdir:
    """The work directory of a run: reads and writes its files and keeps their rules.

    Args:
        path: the folder; made if absent.
        safe_mode: whether model files that hold code are refused (see
            `amc_tf.runs.model_files.load_model`).
        origin: the model that the run began with. Models of the folder are loaded as models
            of its class, with the user's layers in it, which need not be registered.

    Raises:
        AmcError: the folder cannot be made or written, or two of the user's classes have one
            name.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        safe_mode: bool = True,
        origin: keras.Model | None = None,
    ):
        self.path = pathlib.Path(path).expanduser()
        self.safe_mode = safe_mode
        self.origin = origin
        self._own_objects = {} if origin is None else own_objects(origin)
        self._lock = FolderLock(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / layout.PROBE
            probe.unlink(missing_ok=True)
            os.close(files.no_links(probe, os.O_WRONLY | os.O_CREAT))
            probe.unlink(missing_ok=True)  # another process may have removed it in the meantime
        except OSError as error:
            raise AmcError(f"the workdir {self.path} cannot be written: {error.strerror}") from None

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context that keeps other processes out.

        Raises:
            AmcError: another process uses the folder; the message names it.
        """
        return self._lock.held()

    def __fspath__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.path / name

    def claim(self, config: Mapping[str, Any]) -> None:
        """Writes `config.json`, or checks that the folder belongs to the same run.

        If the section of a later stage has changed, the parts of `result.json`
        that depend on it are removed, so that they are made again.

        Args:
            config: all values on which the result depends; JSON values only.

        Raises:
            AmcError: the folder belongs to another run; the message names the values that
                differ.
        """
        new = json.loads(json.dumps(config))
        old = self.read_json(layout.CONFIG, {})
        if old:
            new = {"model": old.get("model"), **new}
        changed = [
            f"{key}: {before!r} there, {after!r} now"
            for key, before, after in _differences(old, new)
            if key.split(".")[0] not in STAGE_SECTIONS
        ]
        if old and changed:
            raise AmcError(
                f"{self.path} holds a run with another configuration ({'; '.join(changed[:3])}"
                f"{'; ...' if len(changed) > 3 else ''}); use another --workdir or the old values"
            )
        for section, results in STAGE_SECTIONS.items():
            if old and old.get(section) != new.get(section):
                self.forget(*results)
        if old != new:
            files.write_json(self / layout.CONFIG, new)

    def claim_model(self, model: keras.Model) -> None:
        """Records the dense model's fingerprint, or checks it.

        Raises:
            AmcError: the folder's search was done on another model.
        """
        config = self.read_json(layout.CONFIG, {})
        found = fingerprint(model)
        if config.get("model") not in (None, found):
            raise AmcError(
                f"{self.path} holds a run on a model with other weights; use another --workdir"
            )
        if config.get("model") is None:
            files.write_json(self / layout.CONFIG, {**config, "model": found})

    def read_json(self, name: str, default: Any) -> Any:
        """Returns the content of a JSON file (see `amc_tf.runs.forms.read`)."""
        return forms.read(self.path, name, default)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON object with a checksum, by which `read_json` detects damage."""
        files.write_json(self / name, files.sealed(content))

    @property
    def result(self) -> RunResult:
        """The content of `result.json`, of all completed stages."""
        return RunResult.read(self.path)

    def update_result(self, **sections: Any) -> RunResult:
        """Adds a stage's results (see `RunResult.updated`) and returns the whole result."""
        result = self.result.updated(**sections)
        result.write(self.path)
        return result

    def forget(self, *sections: str) -> None:
        """Removes sections of the result that are about to change."""
        result = self.result
        left = result.without(*sections)
        if left != result:
            left.write(self.path)

    def save_model(self, file: ModelFile, model: keras.Model) -> None:
        """Saves a plain `keras.Model`, uncompiled, so that the file is whole or absent.

        Raises:
            AmcError: the file cannot be written, or the system's clock is before 1980.
        """
        path = self / file.name
        if time.localtime(time.time()).tm_year < 1980:
            raise AmcError(
                f"{path} cannot be written: .keras files are zip archives, which hold no time "
                "before 1980; set the system's clock, and the same call resumes"
            )
        with files.writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        with files.replacing(path) as partial:
            plain(model).save(partial)

    def load_model(self, file: ModelFile) -> keras.Model:
        """Loads a model of an earlier stage.

        Raises:
            AmcError: the file is missing or damaged; the message names the command that makes
                it.
        """
        path = self / file.name
        if not path.exists():
            raise AmcError(f"{path} does not exist yet; run {file.made_by} first")
        try:
            model = load_model(path, self.safe_mode, self._own_objects)
        except AmcError as error:
            raise AmcError(
                f"{error}; if it is damaged, delete it and run {file.made_by} again"
            ) from error
        return model if self.origin is None else like(self.origin, model.inputs, model.outputs)


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            inner = f"{key}.{name}" if key else name
            yield from _differences(old.get(name), new.get(name), inner)
    elif old != new:
        yield key, old, new
