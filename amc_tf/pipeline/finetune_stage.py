"""Fine-tuning as a stage: of the chosen network, and of those compared with it."""

from __future__ import annotations

import dataclasses

import keras

from amc_tf.pipeline.run import Run, timed
from amc_tf.runs import layout
from amc_tf.runs.result_parts import FinetunedNetwork
from amc_tf.training.finetune import fine_tune


def finetune(run: Run) -> keras.Model:
    """Fine-tunes `pruned.keras` to `finetuned.keras`, and the compared networks likewise."""
    workdir, seed, chosen = run.workdir, run.settings.finetune.seed, run.chosen
    workdir.forget("finetuned", "tflite")
    with timed(workdir, "finetune"):
        model = workdir.load_model(layout.PRUNED)
        fine_tune(model, run.dense, run.task, seed)
        workdir.save_model(layout.FINETUNED, model)
        measures = run.measures(model)
        compared = {chosen: measures.score}
        for name in run.compared:
            if name == chosen:
                continue
            other = workdir.load_model(layout.pruned_file(name))
            compared[name] = fine_tune(other, run.dense, run.task, seed)
            workdir.save_model(layout.finetuned_file(name), other)
        known = workdir.result.policies
        policies = {
            name: dataclasses.replace(known[name], finetuned_score=score)
            for name, score in compared.items()
        }
        workdir.update_result(policies=policies, finetuned=FinetunedNetwork(**vars(measures)))
    return model
