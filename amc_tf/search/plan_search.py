"""Episodes of agent and environment, and the best plans they find."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amc_tf import files
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.latency.settings import LatencySettings
from amc_tf.pruning.importance.criteria import IMPORTANCES
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.runs import layout
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.scorer import scorer
from amc_tf.search.agents.ddpg.process import DdpgSearcher
from amc_tf.search.agents.handcrafted import FixedSearcher
from amc_tf.search.breakdown import breakdown
from amc_tf.search.driver import Contest
from amc_tf.search.env.base import NUM_FEATURES, Outcome
from amc_tf.search.env.budget import Budget
from amc_tf.search.env.channel_env import CompressionEnv
from amc_tf.search.latency_budget import SearchLatency
from amc_tf.search.policies import compete
from amc_tf.search.problem import environment, no_score
from amc_tf.search.result import SearchResult
from amc_tf.search.settings import POLICIES, SearchSettings
from amc_tf.search.tensorboard import TensorBoardLog
from amc_tf.training.task import Task


def search_plan(
    model: Any,
    task: Task,
    budget: Budget | None,
    workdir: str | pathlib.Path | Workdir,
    settings: SearchSettings | None = None,
    latency: LatencySettings | None = None,
) -> SearchResult:
    """Searches the best pruning plan within a budget.

    Where latency is bounded, the best plans are converted and measured whole
    before one is chosen; where none is within the budget, they are made smaller
    by what they were above it, and measured again.

    Leaves `importance.json`, `search.json`, `episodes.jsonl`, `finals.jsonl`,
    `plan.json`, `best_plans.json`, `agent.log`, the folder `tensorboard` and, with
    latency, `latency.json` in `workdir`.
    Interrupted at any moment, the same call resumes and ends with the same plan.

    Args:
        model: the trained Keras model.
        task: its data and training code.
        budget: the bound on the pruned model's cost; None for rewards that price it.
        workdir: folder for the log; made if absent, locked while the search lasts.
        settings: see `SearchSettings`.
        latency: the device that a budget or reward of latency is for.

    Returns:
        The `SearchResult`.

    Raises:
        AmcError: another process works in `workdir`; see also `Constraints.analyze`,
            `CompressionEnv`, `Task.score`, `DdpgSearcher`, `SearchLatency` and,
            for its importance, `amc_tf.pruning.importance.criteria.taylor`.
    """
    folder = workdir if isinstance(workdir, Workdir) else Workdir(workdir)
    with folder.locked():
        return _search(model, task, budget, folder, settings or SearchSettings(), latency)


def _search(
    model: Any,
    task: Task,
    budget: Budget | None,
    folder: Workdir,
    settings: SearchSettings,
    latency: LatencySettings | None,
) -> SearchResult:
    workdir = folder.path
    graph = settings.constraints.analyze(model)
    choices = environment(graph, no_score, budget, settings).choices  # or refuses, at once
    device = None
    if settings.reward == "latency" or (budget is not None and budget.bounds_latency):
        device = SearchLatency(graph, budget, choices, workdir, latency or LatencySettings())
        environment(graph, no_score, budget, settings, latency=device.cost)
    importance = _importance(graph, task, settings.importance, folder)
    # What the scores of channel counts depend on beside the settings.
    ranks = files.checksum(
        {name: np.argsort(-scores, kind="stable").tolist() for name, scores in importance.items()}
    )

    def make_env(
        score: Callable[[PruningPlan], float], budget: Budget | None = budget
    ) -> CompressionEnv:
        foreseen = None if device is None else device.cost
        return environment(graph, score, budget, settings, importance, foreseen)

    contest = Contest(workdir / layout.EPISODES, make_env, ranks)
    dense, agent_log = contest.env.dense_costs, workdir / layout.AGENT_LOG
    # The agent takes seconds to come up; meanwhile the statistics are gathered.
    with (
        DdpgSearcher(settings.learner, NUM_FEATURES, settings.seed, agent_log) as agent,
        TensorBoardLog(workdir / layout.TENSORBOARD, dense) as contest.watch,
    ):
        images = task.calibration_inputs(model)
        refit = REFITS[settings.refit](graph, images, settings.seed)
        contest.measure = scorer(graph, task, refit, settings.early_stop)
        dense_accuracy = contest.measure(None)
        about = {"bounds": contest.env.bounds, "dense": {"accuracy": dense_accuracy, **dense}}
        files.write_json(workdir / layout.SEARCH, {**about, **breakdown(graph, {})})
        compete(contest, agent, settings)
    final, ranked, measure = refit, contest.ranked, contest.measure

    def replayed(
        log: str, budget: Budget | None, plans: Mapping[str, Sequence[Sequence[float]]]
    ) -> dict[str, list[Outcome]]:
        again = Contest(workdir / log, functools.partial(make_env, budget=budget), ranks)
        again.measure = measure
        for name, actions in plans.items():
            again.run(name, FixedSearcher(actions), len(actions))
        return again.ranked

    finalists = {
        name: [outcome.actions for outcome in contest.best(name, settings.rerank)]
        for name in contest.ranked
    }
    if settings.final_refit != settings.refit:
        final = REFITS[settings.final_refit](graph, images, settings.seed)
        measure = measure.refitted_by(final)
        ranked = replayed(layout.finals_file(), budget, finalists)
    best = {name: outcomes[0] for name, outcomes in ranked.items()}
    if device is not None:

        def within(number: int, budget: Budget, names: Sequence[str]) -> dict[str, list[Outcome]]:
            env = make_env(no_score, budget)
            # In proportion: decided one after another, the last would bear it all.
            plans = {name: [env.fitted(actions) for actions in finalists[name]] for name in names}
            return replayed(layout.finals_file(number), budget, plans)

        best = device.choose(ranked, within)
    chosen = max(
        (name for name in POLICIES if name in best),
        key=lambda name: (best[name].reward, -POLICIES.index(name)),
    )
    result = SearchResult(graph, chosen, best, contest.env.bounds, dense_accuracy, final)
    plans = {name: outcome.plan for name, outcome in best.items()}
    files.write_json(workdir / layout.SEARCH, {**about, **breakdown(graph, plans)})
    result.plan.save(workdir / layout.PLAN)
    for name, outcome in best.items():
        path = workdir / layout.plan_file(name)
        path.parent.mkdir(exist_ok=True)
        outcome.plan.save(path)
    files.write_json(
        workdir / layout.BEST_PLANS,
        [
            {**record, "keep": contest.env.plan(record["counts"]).keep}
            for record in contest.log.best(settings.keep_best)
        ],
    )
    return result


def _importance(
    graph: ChannelGraph, task: Task, criterion: str, workdir: Workdir
) -> dict[str, np.ndarray]:
    """The channels' importance, kept in a file.

    Shuffled training data would rank the channels of a resumed search anew,
    and the scores in its log are those of the old ranks.
    """
    shapes = {name: (group.channels,) for name, group in graph.groups.items()}
    known = workdir.read_json(layout.IMPORTANCE, {})
    if known.get("criterion") == criterion:
        scores = {name: np.array(values) for name, values in known["scores"].items()}
        if {name: values.shape for name, values in scores.items()} == shapes:
            return scores
    scores = IMPORTANCES[criterion](graph, task)
    lists = {name: values.tolist() for name, values in scores.items()}
    workdir.write_json(layout.IMPORTANCE, {"criterion": criterion, "scores": lists})
    return scores
