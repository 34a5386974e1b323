"""The export as a stage: TFLite files of the fine-tuned, the dense and the compared networks."""

from __future__ import annotations

import dataclasses
from typing import Any

from amc_tf.export.exporter import Exporter, export_tflite
from amc_tf.export.timing import keras_latency
from amc_tf.export.timing import timed as latencies
from amc_tf.pipeline.run import Run, timed
from amc_tf.runs import layout
from amc_tf.runs.provenance import versions
from amc_tf.runs.result_parts import FinetunedNetwork


def export(run: Run) -> dict[str, Any]:
    """Writes, checks and times `model_*.tflite`, beside the dense and compared models.

    Returns:
        The content of `result.json`.
    """
    workdir, settings = run.workdir, run.settings.export
    with timed(workdir, "export"):
        model = workdir.load_model(layout.FINETUNED)
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
                other, run.dense, run.task, "float32", workdir / file, settings
            )
        finetuned = workdir.result.finetuned
        if finetuned is None:
            finetuned = FinetunedNetwork(**vars(run.measures(model)))
        workdir.update_result(
            tflite=latencies(exported, workdir.path, settings),
            finetuned=dataclasses.replace(
                finetuned,
                bytes=(workdir / layout.FINETUNED.name).stat().st_size,
                latency=keras_latency(model, settings),
            ),
        )
    return workdir.update_result(versions=versions()).to_json()
