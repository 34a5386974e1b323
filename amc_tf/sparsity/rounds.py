"""Rounds of fine-grained pruning and fine-tuning (AMC, section 4.2: ResNet-50 in four rounds)."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph import flattening
from amc_tf.graph.analysis import analyze
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import params
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import numpy_of
from amc_tf.runs import layout
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.runs.identity import OF
from amc_tf.runs.model_files import fingerprint, refuse_code
from amc_tf.runs.result import SparseResult
from amc_tf.runs.result_parts import Scored, SparseRound
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.base import Scorer
from amc_tf.scoring.masked_scorer import MaskedScorer
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.agents.ddpg.process import DdpgSearcher
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.budget import Budget
from amc_tf.search.env.problem import NUM_FEATURES
from amc_tf.search.inputs import Inputs
from amc_tf.search.kept_calibration import with_kept_calibration
from amc_tf.search.policies import compete
from amc_tf.search.problem import counted_shape
from amc_tf.search.settings import SearchSettings
from amc_tf.search.tensorboard import TensorBoardLog
from amc_tf.sparsity import masks
from amc_tf.sparsity.kernels import kernels
from amc_tf.sparsity.plan import DensityPlan
from amc_tf.sparsity.problem import density_problem
from amc_tf.sparsity.refit import SparseReconstruction
from amc_tf.sparsity.settings import SparsitySettings
from amc_tf.training.finetune import FineTuneSettings, fine_tune
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task


def sparsify(
    model: keras.Model,
    task: Task,
    workdir: str | pathlib.Path,
    settings: SparsitySettings | None = None,
    search: SearchSettings | None = None,
    safe_mode: bool = True,
) -> dict[str, Any]:
    """Makes a model's kernels sparse, in rounds of search and fine-tuning.

    In each round the agent chooses the density of every kernel. The smallest
    weights of the kernel become zero, the others are refitted, and the zeros
    stay zero through the user's fine-tuning.

    Writes `round1.keras`, `round2.keras`, ... and `result.json` to `workdir`.
    If it is interrupted at any moment, the same call resumes.

    Args:
        model: a trained Keras model, whose channels may be pruned; it is not changed.
        task: its data and training code; `fine_tune` is called once in each round.
        workdir: work directory of the run.
        settings: see `SparsitySettings`.
        search: episodes, seed, policies and agent of each round's search; its other
            settings are about channels. The reward is `err`: no final refit follows, after which
            scores would choose among the plans that a divergence finds best.
        safe_mode: see `amc_tf.load_model`.

    Returns:
        The content of `result.json`: the score of the dense model on the test data
        and, for each round, that score, the density, and the MACs and parameters
        that are not zero.

    Raises:
        AmcError: the model or the data cannot be used, or the work directory
            belongs to another run.
    """
    settings, search = settings or SparsitySettings(), search or SearchSettings()
    if safe_mode:
        refuse_code(flattening.flatten(model))
    task.check(model)
    folder = Workdir(workdir, safe_mode)
    with folder.locked():
        return _all_rounds(model, task, folder, settings, search)


def _all_rounds(
    model: keras.Model,
    task: Task,
    folder: Workdir,
    settings: SparsitySettings,
    search: SearchSettings,
) -> dict[str, Any]:
    # All inputs are of the rounds' search: each round trains, and measures on the test data.
    inputs = {
        name: found
        for stage in Inputs(model, task, search).of("search", "finetune", "measures").values()
        for name, found in stage.items()
    }
    folder.claim(
        {
            "fine_grained": dataclasses.asdict(settings),
            "search": dataclasses.asdict(search),
            OF: {"search": inputs},
        },
        model,
    )
    task = with_kept_calibration(task, model, folder)
    current = rebuild(model, analyze(model), None)  # the user's model is not changed
    score = task.score(task.compiled(current, model), task.test_data)
    metric = task.metric_of(current)
    rounds: list[SparseRound] = []
    for number, share in enumerate(settings.densities, start=1):
        file = layout.round_model(number)
        before = SparseResult.read(folder.path)
        if len(before.rounds) >= number and (folder / file.name).exists():
            rounds.append(before.rounds[number - 1])
        else:
            if len(before.rounds) >= number:
                # Made again, it may be another network; the scores of later rounds are of this one.
                for later in range(number + 1, len(settings.densities) + 1):
                    (folder / layout.round_episodes(later)).unlink(missing_ok=True)
            rounds.append(
                _round(current, model, task, folder, number, share, settings, search, metric)
            )
            done = dataclasses.replace(
                before, dense=Scored(score), rounds=tuple(rounds), metric=metric
            )
            done.write(folder.path)
        current = folder.load_model(file)
        if rounds[-1].weights not in (None, fingerprint(current)):
            raise AmcError(
                f"{folder / file.name} was changed after it was written; delete it and run "
                f"{file.made_by} again"
            )
    return SparseResult.read(folder.path).to_json()


def _round(
    model: keras.Model,
    original: keras.Model,
    task: Task,
    folder: Workdir,
    number: int,
    share: float,
    settings: SparsitySettings,
    search: SearchSettings,
    metric: Metric,
) -> SparseRound:
    """Runs one search and fine-tuning; saves the model and returns its measures."""
    graph = analyze(model, input_shape=counted_shape(original, task, search))
    size = sum(kernel.size for kernel in kernels(graph))
    budget = Budget(params=params(graph) - size + int(share * size))
    problem = density_problem(graph, min_density=settings.min_density)
    env = DecisionEnv(problem, budget, metric=metric)
    log = EpisodeLog(folder / layout.round_episodes(number))
    agent_log, scalars = folder / layout.AGENT_LOG, folder / layout.round_tensorboard(number)
    task.compiled(model, original)
    with (
        DdpgSearcher(search.learner, NUM_FEATURES, search.seed, agent_log) as agent,
        TensorBoardLog(scalars, problem.dense_costs, metric) as watch,
    ):
        driver = EpisodeDriver(log, env, _scorer(graph, task), watch)
        compete(driver, agent, search)
    best = max(
        (outcomes[0] for outcomes in driver.ranked.values()), key=lambda outcome: outcome.reward
    )
    plan = best.plan
    plan.save(folder / layout.round_plan(number))
    kept = masks.MagnitudeMasks(graph).masks(plan)
    weights = {}
    if settings.refit:
        images = task.calibration_inputs(model)
        weights = SparseReconstruction(graph, images, search.seed).refit(plan)
    sparse = rebuild(model, graph, None, weights)
    masks.constrain(sparse, kept)
    before = task.score(task.compiled(sparse, original), task.test_data)
    fine_tune(sparse, original, task, FineTuneSettings(seed=search.seed), metric)
    after = task.score(sparse, task.test_data)
    masks.release(sparse, kept)
    folder.save_model(layout.round_model(number), sparse)
    return SparseRound(
        density=masks.density(sparse, kept),
        macs=best.macs,
        params=best.params,
        search_score=best.score,
        before=before,
        score=after,
        weights=fingerprint(sparse),
    )


def _scorer(graph: ChannelGraph, task: Task) -> Scorer[DensityPlan]:
    """Makes the fastest scorer that can change every kernel."""
    refit = masks.MagnitudeMasks(graph)
    score = fastest_scorer(graph, task, refit)
    weights = {name: numpy_of(kernel.weight) for name, kernel in refit.kernels.items()}
    return score if score.can_change(weights) else MaskedScorer(graph, task, refit)
