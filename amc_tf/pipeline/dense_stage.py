"""The dense model as a stage: it is claimed for the work directory, and trained if asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph import flattening
from amc_tf.pipeline.run import timed
from amc_tf.pruning.verification import check_finite
from amc_tf.runs import identity, layout
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.workdir import Workdir
from amc_tf.search.agents.ddpg.process import check_installed
from amc_tf.search.inputs import Inputs
from amc_tf.training.task import Task

STAGE = "train_dense"
_LATER = ("search", "finetune", "export", "measures")


def claimed(
    model: keras.Model,
    task: Task,
    workdir: Workdir,
    inputs: Inputs,
    config: Mapping[str, Any],
    before_work: Callable[[], None],
) -> keras.Model:
    """Claims the work directory for a run, and returns the dense model, trained if asked for.

    Args:
        model: the model as it was given.
        task: its data and training code.
        workdir: the work directory, locked by the caller.
        inputs: fingerprints of what the stages depend on.
        config: settings of all stages.
        before_work: called when the folder is claimed, before anything is trained.

    Raises:
        AmcError: the folder belongs to another run, which is left as it is; or `dense.keras`,
            by which the run goes on, is missing or damaged.
    """
    record = {**config, identity.OF: inputs.of(*_LATER)}
    known = workdir.noted(identity.MODEL)
    # Training changes a model in place, so that a second call in one process gives the trained
    # one; and whoever has no seed goes on with a run by giving its own dense model.
    if known is not None and known == fingerprint(model):
        record.pop(STAGE)
        workdir.claim(record, model)
        before_work()
        return model
    if not record[STAGE]:
        workdir.claim(record, model)
        before_work()
        return model
    # Fingerprinted now, as training changes the model and its learning rate.
    began = {**record, identity.OF: {**inputs.of(STAGE), **record[identity.OF]}}
    if known is None and not _is_whole(workdir):
        # Until the training has ended, one with other inputs may take its place.
        workdir.claim(record)
        before_work()
        _train(model, task, workdir, config["search"]["seed"])
    workdir.check(began)
    if not _is_whole(workdir):
        raise AmcError(
            f"{workdir / layout.DENSE.name}, the dense model of this run, is missing or damaged; "
            "restore it, or use another workdir, as training again would give another network"
        )
    # Read back, so that a resumed run and this one continue with the same model.
    dense = workdir.load_model(layout.DENSE)
    workdir.claim(began, dense)
    return task.compiled(dense, model)


def _is_whole(workdir: Workdir) -> bool:
    return not workdir.damaged(STAGE, [layout.DENSE.name])


def _train(model: keras.Model, task: Task, workdir: Workdir, seed: int) -> None:
    check_installed()  # now, as the search would fail only after the training
    with timed(workdir, STAGE):
        keras.utils.set_random_seed(seed)
        task.compiled(model, model)
        task.train_dense(model)
        check_finite(flattening.flatten(model), task)
        workdir.save_model(layout.DENSE, model)
    workdir.record(STAGE, [layout.DENSE.name])
