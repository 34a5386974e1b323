"""Fine-tuning as a stage: of the chosen network, and of those compared with it."""

from __future__ import annotations

import dataclasses
import logging

import keras

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.pipeline.run import Run, timed
from amc_tf.runs import layout
from amc_tf.runs.layout import ModelFile
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.products import Product
from amc_tf.runs.result_parts import FinetunedNetwork
from amc_tf.training.finetune import FineTuned, fine_tune

STAGE = "finetune"

_LOG = logging.getLogger(__name__)


def finetune(run: Run, again: bool = True) -> keras.Model:
    """Fine-tunes `pruned.keras` to `finetuned.keras`, and the compared networks likewise.

    Args:
        run: the run.
        again: whether networks are trained again that were trained from the same weights in
            the same way; otherwise these are only measured.

    Raises:
        AmcError: no search has ended in the work directory; raised before any work.
    """
    workdir, chosen = run.workdir, run.chosen
    others = [name for name in run.compared if name != chosen]
    lacking = sorted({chosen, *others} - set(workdir.result.policies))
    if lacking:
        raise AmcError(
            f"{workdir / layout.RESULT} holds no result of {' and '.join(lacking)}; run "
            f"{layout.PRUNED.made_by} first"
        )
    workdir.forget("finetuned", "tflite", "sparse")
    made: dict[str, Product] = {}
    with timed(workdir, STAGE):
        model, tuned = _tuned(run, layout.PRUNED, layout.FINETUNED, again, made)
        measures = run.measures(model)
        scores = {chosen: measures.score}
        for name in others:
            files_of = layout.pruned_file(name), layout.finetuned_file(name)
            network, _ = _tuned(run, *files_of, again, made)
            scores[name] = run.measures(network).score
        known = workdir.result.policies
        policies = {
            name: dataclasses.replace(known[name], finetuned_score=score)
            for name, score in scores.items()
        }
        finetuned = FinetunedNetwork(
            **vars(measures),
            validation_before=tuned.before,
            validation_after=tuned.after,
            undone=tuned.undone,
        )
        workdir.update_result(policies=policies, finetuned=finetuned, products={STAGE: made})
    return model


def _tuned(
    run: Run, pruned: ModelFile, file: ModelFile, again: bool, made: dict[str, Product]
) -> tuple[keras.Model, FineTuned]:
    """Returns a fine-tuned network and its scores, and adds its files to `made`."""
    workdir = run.workdir
    network = workdir.load_model(pruned)
    of = _of(run, network)
    if again or not _is_made(run, file, of):
        tuned = fine_tune(network, run.dense, run.task, run.settings.finetune, run.metric)
        workdir.save_model(file, network)
    else:
        before = fingerprint(network)
        network = workdir.load_model(file)
        tuned = FineTuned(undone=fingerprint(network) == before)
    made |= _products(run, file, of)
    # With the records of networks whose turn is still to come.
    workdir.update_result(products={STAGE: {**workdir.result.products.get(STAGE, {}), **made}})
    return network, tuned


def _of(run: Run, pruned: keras.Model) -> str:
    """Returns a fingerprint of a pruned network and of how it is trained."""
    settings = run.settings.finetune
    return files.checksum(
        {
            "pruned": fingerprint(pruned),
            "seed": settings.seed,
            "keep": settings.keep,
            "training": run.inputs.of(STAGE),
        }
    )


def _is_made(run: Run, file: ModelFile, of: str) -> bool:
    """Returns whether a network was fine-tuned from the same before, and its file is whole."""
    workdir = run.workdir
    known = workdir.recorded(file.name)
    if known is None or known.of != of or not known.is_at(workdir / file.name):
        return False
    if file == layout.FINETUNED and layout.HISTORY in workdir.damaged(STAGE):
        return False  # only another training makes it again
    _LOG.warning("%s is kept, as it was fine-tuned from the same network", workdir / file.name)
    return True


def _products(run: Run, file: ModelFile, of: str) -> dict[str, Product]:
    names = [file.name]
    if file == layout.FINETUNED and (run.workdir / layout.HISTORY).exists():
        names.append(layout.HISTORY)
    return {name: Product.at(run.workdir / name, of) for name in names}
