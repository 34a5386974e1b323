"""Recovery without labels: the first half of fine-tuning."""

from __future__ import annotations

import dataclasses
import logging
import time

import keras

from amc_tf import files
from amc_tf.graph.plan import PruningPlan
from amc_tf.pipeline.run import Run
from amc_tf.recovery.recovery import recover
from amc_tf.recovery.settings import RecoverySettings
from amc_tf.runs import layout
from amc_tf.runs.layout import ModelFile
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.products import Product
from amc_tf.runs.result_parts import Recovery
from amc_tf.training.fingerprint import of_weights
from amc_tf.training.task import Task

STAGE = "recover"

# Number of validation inputs on which epochs are compared.
_MOST_HELD_OUT = 1000

_LOG = logging.getLogger(__name__)


def recovers(settings: RecoverySettings, task: Task) -> bool:
    """Returns whether pruned networks are trained on the calibration inputs."""
    return settings.when == "always" or (settings.when == "unlabelled" and not task.trains)


def recovered(run: Run, network: keras.Model, policy: str, file: ModelFile) -> keras.Model:
    """Returns a pruned network after its recovery, made again only if it is another.

    Args:
        run: the run.
        network: the pruned network.
        policy: the policy whose plan it is of.
        file: where the recovered network is kept.
    """
    workdir, settings = run.workdir, run.settings.recovery
    images = run.task.calibration_inputs(run.dense)
    of = files.checksum(
        {
            "pruned": fingerprint(network),
            "settings": dataclasses.asdict(settings),
            "images": of_weights(images),
        }
    )
    path = workdir / file.name
    if workdir.holds(file.name, of):
        _LOG.warning("%s is kept, as it was recovered from the same network", path)
        return workdir.load_model(file)
    plan = PruningPlan.load(workdir / layout.plan_file(policy))
    backup = workdir / layout.recovery_backup(policy)
    start = time.monotonic()
    # Nobody's labels are used. The refit and the recovery have not seen these inputs.
    held_out = run.task.sample_inputs(run.task.validation, run.dense, _MOST_HELD_OUT)
    compiled = run.task.twin(run.dense)
    found = recover(network, run.graph, plan, images, held_out, compiled, settings, backup, of)
    told = Recovery(**vars(found), seconds=round(time.monotonic() - start, 1))
    workdir.save_model(file, network)
    made = {**workdir.result.products.get(STAGE, {}), file.name: Product.at(path, of)}
    workdir.update_result(recoveries={policy: told}, products={STAGE: made})
    backup.unlink(missing_ok=True)
    return network
