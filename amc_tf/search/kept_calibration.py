"""The calibration inputs, drawn once for all stages and resumptions of a run."""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
import zlib

import keras
import numpy as np

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.runs import identity, layout
from amc_tf.runs.workdir import Workdir
from amc_tf.training.fingerprint import of_weights
from amc_tf.training.task import Task


def with_kept_calibration(task: Task, model: keras.Model, workdir: Workdir) -> Task:
    """Returns the task with the calibration inputs of the run.

    Drawn again from shuffled data, they would be others, and the logged scores would be
    of networks that were refitted in another way. What is drawn from arrays is the same
    each time, and only its hash is kept.

    Args:
        task: the task; one that names its calibration inputs is returned as it is.
        model: the dense model.
        workdir: work directory, where `calibration.npz` is read, or written if it is absent.

    Raises:
        AmcError: the file is damaged, or the run began with other inputs.
    """
    if task.calibration is not None:
        return task
    path, known = workdir / layout.CALIBRATION, workdir.noted(identity.CALIBRATION)
    if path.exists():
        inputs = _read(path)
        whole = inputs is not None and known in (None, of_weights(inputs))
    else:
        inputs = task.calibration_inputs(model)
        whole = known in (None, of_weights(inputs))
        if whole and not isinstance(task.train, tuple):
            with files.replacing(path) as partial:
                np.savez(partial, *inputs)
    if inputs is None or not whole:
        raise AmcError(
            f"{path} does not hold the calibration inputs that this run began with, on which its "
            "scores depend; restore the file, or use another workdir"
        )
    workdir.note(identity.CALIBRATION, of_weights(inputs))
    return dataclasses.replace(task, calibration=inputs)


def _read(path: pathlib.Path) -> list[np.ndarray] | None:
    """Returns the arrays of a file; None if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in archive.files]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None
