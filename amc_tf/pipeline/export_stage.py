"""The export as a stage: TFLite files of the fine-tuned, the dense and the compared networks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection

from amc_tf.errors import AmcError
from amc_tf.export.exporter import Exporter, export_tflite
from amc_tf.export.timing import keras_latency
from amc_tf.export.timing import timed as latencies
from amc_tf.graph.input_shapes import at_size
from amc_tf.pipeline.run import Run, timed
from amc_tf.runs import layout
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.provenance import versions
from amc_tf.runs.workdir import Workdir

STAGE = "export"

_LOG = logging.getLogger(__name__)


def export(run: Run) -> None:
    """Writes, checks and times `model_*.tflite`, beside the dense and compared models.

    Raises:
        AmcError: there is no fine-tuned network, or it is not the run's; raised before any work.
    """
    workdir, settings = run.workdir, run.settings.export
    finetuned = workdir.result.finetuned
    if finetuned is None:
        raise AmcError(
            f"{workdir / layout.RESULT} holds no fine-tuned network of this run as it is now; run "
            f"{layout.FINETUNED.made_by} first, or export a model of your own by amc-export --model"
        )
    with timed(workdir, STAGE):
        # A TFLite file has one input size: the one that was counted.
        sizes = run.graph.input_shapes
        model = at_size(workdir.load_model(layout.FINETUNED), sizes)
        exported = {}
        exporter = Exporter(model, run.dense, run.task, settings)
        for format_name in settings.formats:
            name = layout.tflite_file(format_name)
            exported[name] = exporter.write(format_name, workdir / name)
        others = {"dense": run.dense}
        for name in run.compared:
            if name != run.chosen:
                others[name] = workdir.load_model(layout.finetuned_file(name))
        for name, other in others.items():
            file = layout.compared_file(name)
            exported[file] = export_tflite(
                at_size(other, sizes), run.dense, run.task, "float32", workdir / file, settings
            )
        latency = None
        if settings.latency_rounds:
            exported = latencies(exported, workdir.path, settings)
            latency = keras_latency(model, settings)
        workdir.update_result(
            tflite=exported,
            finetuned=dataclasses.replace(
                finetuned,
                bytes=(workdir / layout.FINETUNED.name).stat().st_size,
                latency=latency,
            ),
        )
    workdir.update_result(versions=versions())
    network = fingerprint(model)
    _remove_others(workdir, exported, network)
    workdir.record(STAGE, exported, dict.fromkeys(exported, network))


def _remove_others(workdir: Workdir, exported: Collection[str], network: str) -> None:
    """Removes files of earlier exports of other networks, which one might take for this one's."""
    for name, product in workdir.result.products.get(STAGE, {}).items():
        path = workdir / name
        if name not in exported and product.of != network and product.is_at(path):
            path.unlink()
            _LOG.warning("%s is removed: it is of the network before", path)
