"""Fine-grained pruning as a stage, in a folder within the run's."""

from __future__ import annotations

from typing import Any

from amc_tf.pipeline.run import Run, timed
from amc_tf.runs import layout
from amc_tf.runs.result import SparseResult
from amc_tf.sparsity.rounds import sparsify as in_rounds


def sparsify(run: Run) -> dict[str, Any]:
    """Prunes single weights of `finetuned.keras` if it exists, else of the dense model.

    Returns:
        The result of `amc_tf.sparsity.rounds.sparsify`.
    """
    workdir, model = run.workdir, run.dense
    if (workdir / layout.FINETUNED.name).exists():
        model = run.task.compiled(workdir.load_model(layout.FINETUNED), run.dense)
    with timed(workdir, "sparsify"):
        found = in_rounds(
            model,
            run.task,
            workdir / layout.SPARSE,
            run.settings.sparsity,
            run.settings.search,
            workdir.safe_mode,
        )
    workdir.update_result(sparse=SparseResult.from_json(found))
    return found
