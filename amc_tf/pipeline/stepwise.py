"""Pruning in steps: a part of the way to a policy's plan, a training, the next part.

A network that loses many channels at once loses what a training cannot give back in the time. In
steps, each loss is small, and the channels that go last still teach those that stay.
"""

from __future__ import annotations

import dataclasses
import logging

import keras

from amc_tf import files, story
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.plan_steps import towards, within
from amc_tf.pipeline.following import followed_features
from amc_tf.pipeline.run import Run
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.pruning.surgery import rebuild
from amc_tf.runs import layout
from amc_tf.runs.layout import ModelFile
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.products import Product
from amc_tf.training.finetune import distillation_of, fine_tune

STAGE = "steps"

_LOG = logging.getLogger(__name__)


def stepwise(run: Run, policy: str) -> keras.Model:
    """Returns a network pruned to a policy's plan in the steps that the settings ask for.

    Each network on the way is kept, so that an interrupted call goes on after it.

    Args:
        run: the run.
        policy: the policy.
    """
    plan = PruningPlan.load(run.workdir / layout.plan_file(policy))
    steps = run.settings.finetune.steps
    graph, done = run.graph, _whole(run.graph)
    of = _of(run, plan)
    for number, target in _targets(run, plan).items():
        file = layout.step_file(policy, number)
        model = _kept(run, file, of)
        if model is None:
            model = _pruned(run, graph, within(target, done))
            story.remark(_LOG, "%s: step %s of %s, then a training", policy, number, steps)
            settings = run.settings.finetune
            followed = followed_features(run.graph, target, run.task, settings)
            dense = run.searched if followed else run.dense
            fine_tune(model, dense, run.task, settings, run.metric, followed)
            _keep(run, file, model, of)
        graph, done = run.analyzed(model), target
    file = layout.step_file(policy, steps)
    model = _kept(run, file, of)
    if model is None:
        model = _pruned(run, graph, within(plan, done))
        _keep(run, file, model, of)
    return model


def last_step(run: Run, policy: str) -> keras.Model | None:
    """Returns what `stepwise` returned in an earlier run; None if it is not kept."""
    plan = PruningPlan.load(run.workdir / layout.plan_file(policy))
    return _kept(run, layout.step_file(policy, run.settings.finetune.steps), _of(run, plan))


def _targets(run: Run, plan: PruningPlan) -> dict[int, PruningPlan]:
    """Returns the plans on the way, by the number of the step.

    A grouped convolution that has lost groups may have other groups of channels than before, in
    which the rest of the plan cannot be told: such steps are left out.
    """
    steps, found = run.settings.finetune.steps, {}
    importance = run.workdir.read_json(layout.IMPORTANCE, {})["scores"]
    for number in range(1, steps):
        target = towards(run.graph, plan, importance, number / steps)
        small = rebuild(run.searched, run.graph, target)
        there = run.analyzed(small).groups
        widths = {name: group.channels for name, group in there.items()}
        kept = {**_whole(run.graph).keep, **target.keep}
        if widths == {name: len(channels) for name, channels in kept.items()}:
            found[number] = target
        else:
            _LOG.warning(
                "step %s of %s is left out: the network would have other groups of channels there "
                "than the whole one",
                number,
                steps,
            )
    return found


def _whole(graph: ChannelGraph) -> PruningPlan:
    return PruningPlan({name: range(group.channels) for name, group in graph.groups.items()})


def _pruned(run: Run, graph: ChannelGraph, plan: PruningPlan) -> keras.Model:
    """Prunes a network and refits it on its own activations from before."""
    search, model = run.settings.search, graph.network.model
    refit = REFITS[search.final_refit](graph, run.task.calibration_inputs(model), search.seed)
    return rebuild(model, graph, plan, refit.refit(plan))


def _of(run: Run, plan: PruningPlan) -> str:
    settings = run.settings.finetune
    return files.checksum(
        {
            "model": fingerprint(run.searched),
            "plan": plan.keep,
            "steps": settings.steps,
            "seed": settings.seed,
            "keep": settings.keep,
            "distillation": dataclasses.asdict(distillation_of(run.task, settings)),
            "training": run.inputs.of("finetune"),
        }
    )


def _kept(run: Run, file: ModelFile, of: str) -> keras.Model | None:
    return run.workdir.load_model(file) if run.workdir.holds(file.name, of) else None


def _keep(run: Run, file: ModelFile, model: keras.Model, of: str) -> None:
    workdir = run.workdir
    workdir.save_model(file, model)
    product = Product.at(workdir / file.name, of)
    made = {**workdir.result.products.get(STAGE, {}), file.name: product}
    workdir.update_result(products={STAGE: made})
