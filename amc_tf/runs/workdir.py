"""The work directory, through which the stages of a run exchange their results."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.graph.keras_structure import like, plain
from amc_tf.graph.own_classes import own_objects
from amc_tf.runs import forms, identity, layout
from amc_tf.runs.layout import ModelFile
from amc_tf.runs.lock import FolderLock
from amc_tf.runs.model_files import fingerprint, load_model
from amc_tf.runs.products import Product, damaged
from amc_tf.runs.result import RunResult

_LOG = logging.getLogger(__name__)


class OtherRunError(AmcError):
    """An error that says that a folder belongs to another run."""


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

    def check(self, config: Mapping[str, Any], model: keras.Model | None = None) -> None:
        """Checks what `claim` checks, and writes nothing."""
        self._compared(config, model)

    def claim(self, config: Mapping[str, Any], model: keras.Model | None = None) -> None:
        """Writes `config.json`, or checks that the folder belongs to the same run.

        If what only a later stage depends on has changed, the parts of `result.json`
        that depend on it are removed, so that they are made again. Where the folder
        belongs to another run, nothing is changed.

        Args:
            config: all values on which the result depends; JSON values only. Under `of`,
                fingerprints of the inputs of each stage (see `amc_tf.runs.identity`).
            model: the dense model, if it is trained already.

        Raises:
            OtherRunError: the folder belongs to another run; the message names what differs.
            AmcError: it holds a run, but not the file that says which.
        """
        old, new, later = self._compared(config, model)
        dropped = dict.fromkeys(name for found in later for name in found.drops or ())
        result = self.result
        sections = [name for name in dropped if result.without(name) != result]
        if sections:
            _LOG.warning(
                "%s has results with %s: what depends on it is made again (%s)",
                self.path,
                identity.told(later),
                ", ".join(sections),
            )
            self.forget(*sections)
        if old != new:
            files.write_json(self / layout.CONFIG, new)

    def _compared(
        self, config: Mapping[str, Any], model: keras.Model | None
    ) -> tuple[dict[str, Any], dict[str, Any], list[identity.Difference]]:
        """Returns the old and the new configuration, and what only later stages depend on."""
        old = self.read_json(layout.CONFIG, {})
        if old.get(identity.MODEL, "") is None:  # earlier versions wrote it so
            del old[identity.MODEL]
        new = json.loads(json.dumps(config))
        if model is not None:
            new[identity.MODEL] = fingerprint(model)
        if identity.OF in new:
            self._check_is_told(old)
        different = identity.differences(old, new) if old else []
        refused = [found for found in different if found.drops is None]
        if refused:
            raise self._other(refused)
        # A run that is the same keeps its settings as they are; it has no others to add to them.
        merged = {**old, **new} if different or not old else {**new, **old}
        if not different and self._is_of_before(old) and (self / layout.PLAN).exists():
            merged = dict(old)  # a finished run of an earlier version is left as it is
        if identity.OF in new:
            if self._is_of_before(old):
                _LOG.warning(
                    "%s was begun by an earlier version of amc_tf, which kept no fingerprints: "
                    "whether its data and its training are those of this call cannot be checked",
                    self.path,
                )
                merged.pop(identity.OF, None)
            else:
                merged[identity.OF] = {**old.get(identity.OF, {}), **new[identity.OF]}
        return old, merged, [found for found in different if found.drops is not None]

    def _check_is_told(self, config: Mapping[str, Any]) -> None:
        """Checks that a folder that holds a run says which: all versions write `config.json`."""
        untold = not config or (identity.OF not in config and self.result.products)
        if untold and self._is_begun:
            raise AmcError(
                f"{self.path} holds a run, but {layout.CONFIG}, which says of what model and data, "
                "is missing or damaged; restore that file, or use another workdir"
            )

    def _is_of_before(self, old: Mapping[str, Any]) -> bool:
        return self._is_begun and identity.OF not in old

    @property
    def _is_begun(self) -> bool:
        return (self / layout.EPISODES).exists() or (self / layout.RESULT).exists()

    def claim_model(self, model: keras.Model) -> None:
        """Records the dense model's fingerprint, or checks it.

        Raises:
            OtherRunError: the folder's search was done on another model.
        """
        config, found = self.read_json(layout.CONFIG, {}), fingerprint(model)
        different = identity.differences(
            {identity.MODEL: config.get(identity.MODEL) or found}, {identity.MODEL: found}
        )
        if different:
            raise self._other(different)
        self.note(identity.MODEL, found)

    def _other(self, different: list[identity.Difference]) -> OtherRunError:
        return OtherRunError(
            f"{self.path} holds a run with {identity.told(different)}; use another workdir "
            "(--workdir), go back to what it began with, or delete it to begin anew"
        )

    def note(self, key: str, value: Any) -> None:
        """Adds one of `amc_tf.runs.identity.NOTES` to `config.json`.

        It is not added to a finished run of an earlier version, which is left as it is.
        """
        config = self.read_json(layout.CONFIG, {})
        finished = identity.OF not in config and (self / layout.PLAN).exists()
        if config.get(key) != value and not finished:
            files.write_json(self / layout.CONFIG, {**config, key: value})

    def noted(self, key: str) -> Any:
        """Returns a note in `config.json`; None if there is none."""
        return self.read_json(layout.CONFIG, {}).get(key)

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

    def record(self, stage: str, names: Iterable[str], of: Mapping[str, str] | None = None) -> None:
        """Records the files that a stage has made, so that damage to them is found.

        Args:
            stage: name of the stage; its earlier records are replaced.
            names: names of the files; none while the stage makes them again.
            of: fingerprints of what they were made from, by the name of the file.
        """
        made = {name: Product.at(self / name, (of or {}).get(name)) for name in names}
        self.update_result(products={stage: made})

    def damaged(self, stage: str, names: Iterable[str] = ()) -> list[str]:
        """Returns the files of a stage that are missing or are not as the stage wrote them.

        Args:
            stage: name of the stage.
            names: files that it must have made, whether they are recorded or not.
        """
        return damaged(self.path, names, self.result.products.get(stage, {}))

    def recorded(self, name: str) -> Product | None:
        """Returns the record of a file; None if no stage has recorded it."""
        for made in self.result.products.values():
            if name in made:
                return made[name]
        return None

    def holds(self, name: str, of: str) -> bool:
        """Returns whether a file is there as it was written, and was made of what `of` tells."""
        known = self.recorded(name)
        return known is not None and known.of == of and known.is_at(self / name)

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
        known = self.recorded(file.name)
        if known is not None and not known.is_at(path):
            raise AmcError(
                f"{path} is damaged or was changed after it was written; delete it and run "
                f"{file.made_by} again"
            )
        try:
            model = load_model(path, self.safe_mode, self._own_objects)
        except AmcError as error:
            raise AmcError(
                f"{error}; if it is damaged, delete it and run {file.made_by} again"
            ) from error
        return model if self.origin is None else like(self.origin, model.inputs, model.outputs)
