"""The search for plans: all policies play, and the best plans are scored again and chosen."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

from amc_tf import files, story
from amc_tf.latency.settings import LatencySettings
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.refit.methods import REFITS, NoRefit
from amc_tf.pruning.verification import check_finite
from amc_tf.runs import layout
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.runs.identity import OF
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.constant_answer import best_constant, no_better
from amc_tf.scoring.resampling import uncertainty
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.agents.correction import NUM_KNOWN
from amc_tf.search.agents.ddpg.process import DdpgSearcher
from amc_tf.search.allocations import allocated
from amc_tf.search.breakdown import breakdown
from amc_tf.search.choice import Chooser
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.env.budget import Budget
from amc_tf.search.env.channels import by_importance
from amc_tf.search.env.problem import NUM_FEATURES
from amc_tf.search.env.rewards import DIVERGENCE, prices_cost
from amc_tf.search.finalists import Finalists
from amc_tf.search.inputs import Inputs
from amc_tf.search.kept_calibration import with_kept_calibration
from amc_tf.search.kept_importance import kept_importance, ranks_of
from amc_tf.search.kept_plan import check_plan, is_kept, keep_plan
from amc_tf.search.latency_budget import SearchLatency
from amc_tf.search.merit import Merit
from amc_tf.search.open_choices import as_begun
from amc_tf.search.policies import compete
from amc_tf.search.problem import analyzed, check, check_gradients, environment, problem_of
from amc_tf.search.result import SearchResult
from amc_tf.search.resumption import check_conditions, check_evaluate
from amc_tf.search.settings import SearchSettings
from amc_tf.search.tensorboard import TensorBoardLog
from amc_tf.search.used_reward import used_reward
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)


def search_plan(
    model: Any,
    task: Task,
    budget: Budget | None,
    workdir: str | os.PathLike[str],
    settings: SearchSettings | None = None,
    latency: LatencySettings | None = None,
) -> SearchResult:
    """Searches for the best pruning plan within a budget.

    If latency is bounded, the best plans are converted and measured whole
    before one is chosen. If none is within the budget, they are made smaller by
    the factor by which they exceeded it, and measured again.

    Writes `importance.json`, `search.json`, `episodes.jsonl`, `finals.jsonl`,
    `choice.json`, `plan.json`, `best_plans.json`, `agent.log`, the folders `plans` and
    `tensorboard` and, with latency, `latency.json` to `workdir`.
    After an interruption, the same call resumes and ends with the same plan.

    Args:
        model: the trained Keras model.
        task: the model's data and training code.
        budget: the bounds on the pruned model's costs; None for rewards that price the cost.
        workdir: folder for the log; made if absent, locked while the search lasts.
        settings: see `SearchSettings`.
        latency: settings of the device, for a budget or reward of latency.

    Returns:
        The `SearchResult`.

    Raises:
        AmcError: another process works in `workdir`, or it holds a search of another model, on
            other data or with other settings; see also `Constraints.analyze`,
            `DecisionEnv`, `Task.score`, `DdpgSearcher`, `SearchLatency` and, for
            the importance of channels, `amc_tf.pruning.importance.criteria.taylor`.
    """
    folder = workdir if isinstance(workdir, Workdir) else Workdir(workdir)
    settings = as_begun(settings or SearchSettings(), folder.path)
    latency = latency or LatencySettings()
    config = {
        "search": dataclasses.asdict(settings),
        "latency": dataclasses.asdict(latency),
        "budget": None if budget is None else budget.given,
    }
    with folder.locked():
        graph = analyzed(model, task, settings)
        task.check(model)
        check_gradients(model, task, settings)
        check_finite(graph.network, task)
        metric = task.metric_of(model)
        check(problem_of(graph, settings, budget), budget, settings, metric)
        folder.claim({**config, OF: Inputs(model, task, settings).of("search")}, model)
        task = with_kept_calibration(task, model, folder)
        return search_in(folder, model, task, budget, settings, latency, metric)


def search_in(
    folder: Workdir,
    model: Any,
    task: Task,
    budget: Budget | None,
    settings: SearchSettings,
    latency: LatencySettings,
    metric: Metric | None = None,
    whole: Mapping[str, float] | None = None,
) -> SearchResult:
    """Does what `search_plan` does, in a work directory that the caller has locked.

    The task's metric may be given, if the caller knows what it is; and the costs, by name, that
    are told as those of the dense network, if they are not the model's.
    """
    workdir = folder.path
    metric = metric or task.metric_of(model)
    check_plan(folder)
    graph = analyzed(model, task, settings)
    problem = problem_of(graph, settings, budget)
    check(problem, budget, settings, metric)
    device = None
    if settings.reward == "latency" or (budget is not None and budget.bounds_latency):
        device = SearchLatency(graph, budget, problem.priced, workdir, latency)
        problem = problem.with_latency(device.cost)
        environment(problem, budget, settings, metric)  # raises here, before importance is computed

    images = task.calibration_inputs(model)
    halves = Halves(graph, images, settings.seed)
    importance = kept_importance(halves, task, settings.importance, folder)
    problem = dataclasses.replace(problem, plan=by_importance(graph, importance))
    dense = {**problem.dense_costs, **(whole or {})}
    ranks = ranks_of(importance)
    log, agent_log = EpisodeLog(workdir / layout.EPISODES, ranks), workdir / layout.AGENT_LOG
    begun = bool(log.best(1))
    check_conditions(folder, begun)

    corrects = settings.sensitivity and budget is not None
    features = NUM_FEATURES + (NUM_KNOWN if corrects else 0)
    learner = settings.correcting_learner if corrects else settings.learner
    # The agent takes seconds to start; meanwhile the statistics are gathered.
    with (
        DdpgSearcher(learner, features, settings.seed, agent_log) as agent,
        TensorBoardLog(workdir / layout.TENSORBOARD, dense, metric) as watch,
    ):
        refit = REFITS[settings.refit](graph, images, settings.seed)
        priced, compare = prices_cost(settings.reward), settings.reward == DIVERGENCE
        score = fastest_scorer(graph, task, refit, None if priced else settings.early_stop, compare)
        scored = score(None)
        dense_score = float(scored)
        used = used_reward(settings.reward, score, folder, begun)
        settings = dataclasses.replace(settings, reward=used)
        most = settings.episode_samples if used == DIVERGENCE else None
        quick = score if most is None else score.on_part(most)
        env = environment(problem, budget, settings, metric)
        check_evaluate(folder, begun, task, dense_score)
        uncertain = uncertainty(score, task, model)
        uncertainty_told = uncertain.sentence(metric, dense_score)
        story.tell("dense", f"  {uncertainty_told}", score=dense_score)
        constant = best_constant(task, model, metric)
        for warning in (
            uncertain.warning(metric, dense_score),
            no_better(metric, uncertain, dense_score, constant),
        ):
            if warning:
                _LOG.warning(warning)
        about = {
            "reward": settings.reward,
            "bounds": env.bounds,
            "dense": {"score": dense_score, **dense},
            "metric": dataclasses.asdict(metric),
            "uncertainty": dataclasses.asdict(uncertain),
            "episode_samples": quick.images or uncertain.samples.get("validation"),
        }
        files.write_json(workdir / layout.SEARCH, {**about, **breakdown(graph, {})})
        driver = EpisodeDriver(log, env, quick, watch, scored)
        plans = allocated(env, halves, task, settings, importance, folder)
        compete(driver, agent, settings, plans)

    final, another = refit, settings.final_refit != settings.refit
    rescored = another or quick.images is not None
    if another:
        # What a refit holds of the dense network takes much memory: one at a time.
        driver.score = score = score.refitted_by(NoRefit())
        del refit, quick, halves
        final = REFITS[settings.final_refit](graph, images, settings.seed)
    finalists = Finalists(
        actions={
            name: [outcome.actions for outcome in driver.best(name, settings.rerank)]
            for name in driver.ranked
        },
        problem=problem,
        settings=settings,
        score=score.refitted_by(final),
        workdir=workdir,
        ranks=ranks,
        metric=metric,
    )
    if rescored:
        ranked = finalists.rescored(budget)
    else:
        ranked = {name: driver.finalists(name, settings.rerank) for name in driver.ranked}
    if device is None:
        best = {name: outcomes[0] for name, outcomes in ranked.items()}
        candidates = {name: outcomes[: settings.rerank] for name, outcomes in ranked.items()}
    else:
        best = device.choose(ranked, finalists.within)
        candidates = {name: [outcome] for name, outcome in best.items()}
    choose = Chooser(finalists.score, task, model, metric, uncertain, priced)
    chosen, best[chosen], choice = choose.kept(candidates, folder, [ranks, settings.final_refit])
    if sentence := choice.sentence(metric):
        story.tell("choice", f"  {sentence}", chosen=chosen)
    result = SearchResult(
        graph=graph,
        chosen=chosen,
        choice=choice,
        best=best,
        bounds=env.bounds,
        dense_score=dense_score,
        constant_score=constant,
        final=final,
        metric=metric,
        reward=settings.reward,
        uncertainty=uncertain,
        measured=None if device is None else device.measured(best[chosen].counts),
    )
    plans = {name: outcome.plan for name, outcome in best.items()}
    files.write_json(workdir / layout.SEARCH, {**about, **breakdown(graph, plans)})
    if not is_kept(folder, result.plan):
        _LOG.warning(
            "%s: this search ended with another plan than an earlier one in this folder", workdir
        )
    keep_plan(folder, result.plan)
    for name, plan in plans.items():
        path = workdir / layout.plan_file(name)
        with files.writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        plan.save(path)
    records = log.best(settings.keep_best, Merit(metric, priced).of_record)
    files.write_json(
        workdir / layout.BEST_PLANS,
        [{**record, "keep": problem.plan(record["counts"]).keep} for record in records],
    )
    return result
