"""Fine-grained pruning as a stage, in a folder within the run's."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.pipeline.run import Run, timed
from amc_tf.runs import layout
from amc_tf.runs.result import SparseResult
from amc_tf.runs.workdir import OtherRunError
from amc_tf.sparsity.rounds import sparsify as in_rounds

_LOG = logging.getLogger(__name__)


def sparsify(run: Run) -> dict[str, Any]:
    """Prunes single weights of `finetuned.keras` if it exists, else of the dense model.

    Returns:
        The result of `amc_tf.sparsity.rounds.sparsify`.

    Raises:
        AmcError: `finetuned.keras` is of other settings or inputs than this run's.
    """
    workdir, model = run.workdir, run.dense
    if (workdir / layout.FINETUNED.name).exists():
        if workdir.result.finetuned is None:
            raise AmcError(
                f"{workdir / layout.FINETUNED.name} was not made from this run as it is now; run "
                f"{layout.FINETUNED.made_by} again, or remove the file to sparsify the dense model"
            )
        model = run.task.compiled(workdir.load_model(layout.FINETUNED), run.dense)
    with timed(workdir, "sparsify"):
        try:
            found = _in_rounds(run, model)
        except OtherRunError as error:
            _LOG.warning("%s; it is made again", error)
            shutil.rmtree(workdir / layout.SPARSE)
            found = _in_rounds(run, model)
    workdir.update_result(sparse=SparseResult.from_json(found))
    return found


def _in_rounds(run: Run, model: keras.Model) -> dict[str, Any]:
    return in_rounds(
        model,
        run.task,
        run.workdir / layout.SPARSE,
        run.settings.sparsity,
        run.settings.search,
        run.workdir.safe_mode,
    )
