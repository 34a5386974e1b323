"""Giving accuracy back as a stage: of the chosen network, and of those compared with it.

A recovery without labels comes first, where the settings say so, then fine-tuning with the user's
data or code, if there is either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.graph.plan import PruningPlan
from amc_tf.pipeline.following import followed_features
from amc_tf.pipeline.recovery_stage import recovered, recovers
from amc_tf.pipeline.run import Run, timed
from amc_tf.pipeline.stepwise import last_step, stepwise
from amc_tf.pruning.surgery import rebuild
from amc_tf.runs import layout
from amc_tf.runs.layout import ModelFile
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.products import Product
from amc_tf.runs.result_parts import FinetunedNetwork
from amc_tf.runs.workdir import Workdir
from amc_tf.training.finetune import DENSE_LONGER, FineTuned, distillation_of, fine_tune

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
        model, tuned = _tuned(run, _Files.of_chosen(chosen), again, made)
        measures = run.measures(model)
        scores = {chosen: measures.score}
        with _same_history(workdir):
            for name in others:
                network, _ = _tuned(run, _Files.of_policy(name), again, made)
                scores[name] = run.measures(network).score
            longer = _longer(run, again, made)
        known, dense = workdir.result.policies, workdir.result.dense
        policies = {
            name: dataclasses.replace(known[name], finetuned_score=score)
            for name, score in scores.items()
        }
        finetuned = FinetunedNetwork(
            **vars(measures),
            validation_before=tuned.before,
            validation_after=tuned.after,
            undone=tuned.undone,
            trained=run.task.trains,
        )
        told = workdir.result.recoveries if recovers(run.settings.recovery, run.task) else {}
        workdir.forget("recoveries")  # those of other settings, or of networks left out now
        workdir.update_result(
            policies=policies,
            recoveries={name: told[name] for name in scores if name in told},
            finetuned=finetuned,
            dense=None if dense is None else dataclasses.replace(dense, longer_score=longer),
            products={STAGE: made},
        )
    return model


def _longer(run: Run, again: bool, made: dict[str, Product]) -> float | None:
    """Trains the dense network like the pruned one, if asked for; returns its score then."""
    if DENSE_LONGER not in run.settings.finetune.compare or not run.task.trains:
        return None
    workdir, file = run.workdir, layout.finetuned_file(DENSE_LONGER)
    graph = run.analyzed(run.dense)
    network = rebuild(run.dense, graph, None)  # not the user's own model
    of = _of(run, network)
    if again or not _is_made(run, file, of):
        settings = run.settings.finetune
        followed = followed_features(graph, PruningPlan({}), run.task, settings)
        for _ in range(settings.steps):  # as many trainings as the pruned network has
            fine_tune(network, run.dense, run.task, settings, run.metric, followed)
        workdir.save_model(file, network)
    else:
        network = workdir.load_model(file)
    made |= _products(run, file, of)
    return run.measures(network).score


@contextlib.contextmanager
def _same_history(workdir: Workdir) -> Iterator[None]:
    """Returns a context that leaves the history of the chosen network's training as it is."""
    path = workdir / layout.HISTORY
    content = path.read_bytes() if path.exists() else None
    try:
        yield
    finally:
        if content is not None and path.read_bytes() != content:
            files.write_atomically(path, content)


class _Files(NamedTuple):
    """The files of a policy's network before and after each training."""

    policy: str
    pruned: ModelFile
    recovered: ModelFile
    finetuned: ModelFile

    @classmethod
    def of_chosen(cls, policy: str) -> _Files:
        return cls(policy, layout.PRUNED, layout.RECOVERED, layout.FINETUNED)

    @classmethod
    def of_policy(cls, policy: str) -> _Files:
        return cls(
            policy,
            layout.pruned_file(policy),
            layout.recovered_file(policy),
            layout.finetuned_file(policy),
        )


def _tuned(
    run: Run, of_network: _Files, again: bool, made: dict[str, Product]
) -> tuple[keras.Model, FineTuned]:
    """Returns a fine-tuned network and its scores, and adds its files to `made`."""
    workdir, file = run.workdir, of_network.finetuned
    network = workdir.load_model(of_network.pruned)
    of = _of(run, network)
    in_steps = run.settings.finetune.steps > 1 and run.task.trains
    if again or not _is_made(run, file, of):
        if in_steps:
            network = stepwise(run, of_network.policy)
        if recovers(run.settings.recovery, run.task):
            network = recovered(run, network, of_network.policy, of_network.recovered)
        tuned = FineTuned(undone=False)
        if run.task.trains:
            plan = PruningPlan.load(workdir / layout.plan_file(of_network.policy))
            settings = run.settings.finetune
            followed = followed_features(run.graph, plan, run.task, settings)
            # Folding leaves the outputs as they are, but not the channels on the way.
            dense = run.searched if followed else run.dense
            tuned = fine_tune(network, dense, run.task, settings, run.metric, followed)
        workdir.save_model(file, network)
    else:
        # A fine-tuning that was undone left the network from before it.
        if in_steps:
            network = last_step(run, of_network.policy) or network
        if recovers(run.settings.recovery, run.task):
            start = workdir.recorded(of_network.recovered.name)
            if start is not None and start.is_at(workdir / of_network.recovered.name):
                network = workdir.load_model(of_network.recovered)
        before = fingerprint(network)
        network = workdir.load_model(file)
        tuned = FineTuned(undone=run.task.trains and fingerprint(network) == before)
    made |= _products(run, file, of)
    # With the records of networks whose turn is still to come.
    workdir.update_result(products={STAGE: {**workdir.result.products.get(STAGE, {}), **made}})
    return network, tuned


def _of(run: Run, pruned: keras.Model) -> str:
    """Returns a fingerprint of a pruned network and of how it is trained."""
    settings, recovery = run.settings.finetune, run.settings.recovery
    told: dict[str, Any] = {
        "pruned": fingerprint(pruned),
        "seed": settings.seed,
        "keep": settings.keep,
        "training": run.inputs.of(STAGE),
    }
    if settings.steps > 1:
        told["steps"] = settings.steps
    if distillation := distillation_of(run.task, settings):
        told["distillation"] = dataclasses.asdict(distillation)
    if recovers(recovery, run.task):
        told["recovery"] = dataclasses.asdict(recovery)
    return files.checksum(told)


def _is_made(run: Run, file: ModelFile, of: str) -> bool:
    """Returns whether a network was fine-tuned from the same before, and its file is whole."""
    workdir = run.workdir
    if not workdir.holds(file.name, of):
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
