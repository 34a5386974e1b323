"""Episodes of agent and environment, and the best plans they find."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from amc_tf import files
from amc_tf.agent import DdpgSearcher, DdpgSettings, RandomSearcher
from amc_tf.budget import UNKNOWN_LATENCY, Budget, CountCost
from amc_tf.channels import ChannelGraph
from amc_tf.constraints import Constraints
from amc_tf.env import NUM_FEATURES, CompressionEnv, Outcome
from amc_tf.episodes import EpisodeLog
from amc_tf.errors import AmcError
from amc_tf.evaluate import scorer
from amc_tf.evolution import EvolutionSearcher
from amc_tf.importance import IMPORTANCES, Importance
from amc_tf.latency.search import SearchLatency
from amc_tf.latency.settings import LatencySettings
from amc_tf.plan import PruningPlan
from amc_tf.policies import PROFILES, FixedSearcher, GuidedSearcher, profile
from amc_tf.refit import REFITS, Refit
from amc_tf.task import Task
from amc_tf.workdir import Workdir

# AMC's agent first: where two plans score alike, the earlier policy's is chosen.
POLICIES = ("amc", "cmaes", "random", *PROFILES)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How a search is done.

    Attributes:
        episodes: of the agent, and of each searcher it is compared with.
        seed: of agent, random searcher and sampled activations.
        reward: a name of `amc_tf.budget.REWARDS`.
        rounding: channel counts are multiples of this.
        min_preserve: least share of a group's channels that is kept.
        constraints: layers to freeze, and other values of `rounding` and
            `min_preserve` for single layers (see `amc_tf.constraints.Constraints`).
        importance: which channels of a group are kept, a name of
            `amc_tf.importance.IMPORTANCES`.
        fill_budget: whether plans use up the budget (see `CompressionEnv`).
        warm_start: whether the agent's first episodes follow the hand-crafted policies.
        elite: whether every other of the agent's episodes after its warm-up tries a
            variation of the best plan so far.
        refit: how weights are restored before a plan is scored, a name of
            `amc_tf.refit.REFITS`.
        final_refit: the same, for the networks that are built in the end.
        policies: which of `POLICIES` run; `amc` always does. `random` and
            `cmaes` (an evolution strategy) get as many episodes as the agent.
        keep_best: how many of the best plans are written to `best_plans.json`.
        ddpg: the agent's settings.
    """

    episodes: int = 400
    seed: int = 0
    reward: str = "err"
    rounding: int = 8
    min_preserve: float = 0.2
    constraints: Constraints = Constraints()
    importance: str = "consumer_magnitude"
    fill_budget: bool = True
    warm_start: bool = True
    elite: bool = True
    refit: str = "dense"
    final_refit: str = "in_order"
    policies: tuple[str, ...] = ("amc", "random", *PROFILES)
    keep_best: int = 5
    ddpg: DdpgSettings = DdpgSettings()

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise AmcError(f"expected at least one episode, received {self.episodes}")
        unknown = [p for p in self.policies if p not in POLICIES]
        if unknown:
            raise AmcError(
                f"unknown policy {unknown[0]!r}; choose from {', '.join(map(repr, POLICIES))}"
            )
        for field, known in (
            ("importance", IMPORTANCES),
            ("refit", REFITS),
            ("final_refit", REFITS),
        ):
            if getattr(self, field) not in known:
                raise AmcError(
                    f"unknown {field} {getattr(self, field)!r}; choose one of "
                    f"{', '.join(map(repr, known))}"
                )


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found.

    Attributes:
        graph: the analysed model.
        chosen: name of the policy whose plan scored best.
        best: policy name to its best outcome.
        bounds: the budget in absolute terms, by name of the cost.
        dense_accuracy: of the unpruned model on the validation data.
        final: restores the weights of the networks that are built.
    """

    graph: ChannelGraph
    chosen: str
    best: dict[str, Outcome]
    bounds: dict[str, float]
    dense_accuracy: float
    final: Refit

    @property
    def plan(self) -> PruningPlan:
        """The best plan."""
        return self.best[self.chosen].plan

    def refitted(self, plan: PruningPlan) -> dict[str, Any]:
        """Weights for `amc_tf.rebuild(model, graph, plan, weights)`."""
        return self.final.refit(plan)


def search_plan(
    model: Any,
    task: Task,
    budget: Budget | None,
    workdir: str | pathlib.Path,
    settings: SearchSettings | None = None,
    latency: LatencySettings | None = None,
) -> SearchResult:
    """Searches the best pruning plan within a budget.

    Where latency is bounded, the best plans are converted and measured whole
    before one is chosen.

    Leaves `importance.json`, `episodes.jsonl`, `plan.json`, `best_plans.json`,
    `agent.log` and, with latency, `latency.json` in `workdir`. Interrupted at any
    moment, the same call resumes and ends with the same plan.

    Args:
        model: the trained Keras model.
        task: its data and training code.
        budget: the bound on the pruned model's cost; None for rewards that price it.
        workdir: existing folder for the log.
        settings: see `SearchSettings`.
        latency: the device that a budget or reward of latency is for.

    Returns:
        The `SearchResult`.

    Raises:
        AmcError: see `Constraints.analyze`, `CompressionEnv`, `Task.score`,
            `DdpgSearcher`, `SearchLatency` and, for its importance,
            `amc_tf.importance.taylor`.
    """
    settings = settings or SearchSettings()
    workdir = pathlib.Path(workdir)
    graph = settings.constraints.analyze(model)
    choices = environment(graph, no_score, budget, settings).choices  # or refuses, at once
    device = None
    if settings.reward == "latency" or (budget is not None and budget.bounds_latency):
        device = SearchLatency(graph, budget, choices, workdir, latency or LatencySettings())
        environment(graph, no_score, budget, settings, latency=device.cost)
    log = EpisodeLog(workdir / "episodes.jsonl")
    scores = _Scores(log, graph)
    importance = _importance(graph, task, settings.importance, workdir)
    foreseen = None if device is None else device.cost
    env = environment(graph, scores, budget, settings, importance, foreseen)
    with contextlib.ExitStack() as stack:
        # The agent takes seconds to come up; meanwhile the statistics are gathered.
        agent = stack.enter_context(
            DdpgSearcher(settings.ddpg, NUM_FEATURES, settings.seed, workdir / "agent.log")
        )
        images = task.calibration_inputs(model)
        refit = REFITS[settings.refit](graph, images, settings.seed)
        scores.measure = scorer(graph, task, refit)
        dense_accuracy = scores.measure(None)
        ranked: dict[str, list[Outcome]] = {}
        # Hand-crafted ratios are scaled to a budget, so they need one.
        handcrafted = {
            name: env.fitted(profile(name, len(env)).tolist())
            for name in (PROFILES if budget is not None else ())
        }
        for name, actions in handcrafted.items():
            if name in settings.policies:
                ranked[name] = _run(env, FixedSearcher(actions), name, 1, log, ranked)
        guided = GuidedSearcher(
            agent,
            [*handcrafted.values()] if settings.warm_start else [],
            settings.ddpg.warmup_episodes if settings.elite else None,
            settings.seed,
        )
        ranked["amc"] = _run(env, guided, "amc", settings.episodes, log, ranked)
        if "cmaes" in settings.policies:
            start = handcrafted.get("uniform", [0.5] * len(env))
            evolution = EvolutionSearcher(start, seed=settings.seed)
            ranked["cmaes"] = _run(env, evolution, "cmaes", settings.episodes, log, ranked)
        if "random" in settings.policies:
            random = RandomSearcher(settings.seed)
            ranked["random"] = _run(env, random, "random", settings.episodes, log, ranked)
    best = {name: outcomes[0] for name, outcomes in ranked.items()}
    if device is not None:
        best = device.choose(ranked)
    chosen = max(
        (name for name in POLICIES if name in best),
        key=lambda name: (best[name].reward, -POLICIES.index(name)),
    )
    final = refit
    if settings.final_refit != settings.refit:
        final = REFITS[settings.final_refit](graph, images, settings.seed)
    result = SearchResult(graph, chosen, best, env.bounds, dense_accuracy, final)
    result.plan.save(workdir / "plan.json")
    for name, outcome in best.items():
        outcome.plan.save(policy_plan(workdir, name))
    files.write_json(
        workdir / "best_plans.json",
        [
            {**record, "keep": env.plan(record["counts"]).keep}
            for record in log.best(settings.keep_best)
        ],
    )
    return result


def environment(
    graph: ChannelGraph,
    score: Callable[[PruningPlan], float],
    budget: Budget | None,
    settings: SearchSettings,
    importance: Importance | None = None,
    latency: CountCost | None = UNKNOWN_LATENCY,
) -> CompressionEnv:
    """The environment that settings describe; wishes that cannot be met are refused here.

    Latency that is not known yet breaks no bound: its table takes minutes.
    """
    constraints = settings.constraints
    return CompressionEnv(
        graph,
        score,
        budget,
        latency=latency,
        reward=settings.reward,
        rounding=constraints.roundings(graph, settings.rounding),
        min_preserve=constraints.min_preserves(graph, settings.min_preserve),
        fill_budget=settings.fill_budget,
        importance=importance,
    )


def no_score(plan: PruningPlan) -> float:
    """The score of an environment that is made only to be checked."""
    raise AssertionError("this environment only checks the budget")


def _importance(
    graph: ChannelGraph, task: Task, criterion: str, workdir: pathlib.Path
) -> dict[str, np.ndarray]:
    """The channels' importance, kept in a file.

    Shuffled training data would rank the channels of a resumed search anew,
    and the scores in its log are those of the old ranks.
    """
    shapes = {name: (group.channels,) for name, group in graph.groups.items()}
    known = Workdir(workdir).read_json("importance.json", {})
    if known.get("criterion") == criterion:
        scores = {name: np.array(values) for name, values in known["scores"].items()}
        if {name: values.shape for name, values in scores.items()} == shapes:
            return scores
    scores = IMPORTANCES[criterion](graph, task)
    lists = {name: values.tolist() for name, values in scores.items()}
    files.write_json(workdir / "importance.json", {"criterion": criterion, "scores": lists})
    return scores


def policy_plan(workdir: pathlib.Path, policy: str) -> pathlib.Path:
    """Where the best plan of a policy lies."""
    folder = workdir / "plans"
    folder.mkdir(exist_ok=True)
    return folder / f"{policy}.json"


class _Scores:
    """Accuracy of a plan: looked up where the log knows it, measured where not."""

    measure: Callable[[PruningPlan | None], float]

    def __init__(self, log: EpisodeLog, graph: ChannelGraph):
        self._log = log
        self._groups = tuple(graph.groups)

    def __call__(self, plan: PruningPlan) -> float:
        known = self._log.accuracy([len(plan.keep[name]) for name in self._groups])
        return self.measure(plan) if known is None else known


def _run(
    env: CompressionEnv,
    searcher: Any,
    policy: str,
    episodes: int,
    log: EpisodeLog,
    others: dict[str, list[Outcome]],
) -> list[Outcome]:
    """Runs the episodes of one policy; returns their outcomes, the best first (or earliest)."""
    outcomes: list[Outcome] = []
    best: Outcome | None = None
    with tqdm(total=episodes, desc=policy, unit="ep", dynamic_ncols=True) as bar:
        for episode in range(episodes):
            start = time.monotonic()
            state = env.reset()
            while state is not None:
                state, _ = env.step(searcher.act(state))
            outcome = env.finish()
            diagnostics = searcher.finish(outcome.actions, outcome.reward)
            log.add(
                {
                    "policy": policy,
                    "episode": episode,
                    "reward": outcome.reward,
                    "accuracy": outcome.accuracy,
                    "macs": outcome.macs,
                    "params": outcome.params,
                    **({} if outcome.latency_ms is None else {"latency_ms": outcome.latency_ms}),
                    "actions": outcome.actions,
                    "counts": outcome.counts,
                    "seconds": round(time.monotonic() - start, 4),
                    **{k: v for k, v in diagnostics.items() if v == v},  # NaN: nothing learnt yet
                }
            )
            outcomes.append(outcome)
            if best is None or outcome.reward > best.reward:
                best = outcome
            bar.update()
            bar.set_postfix(
                best=f"{best.accuracy:.4f}",
                **{name: f"{o[0].accuracy:.4f}" for name, o in others.items() if name == "uniform"},
            )
    return sorted(outcomes, key=lambda outcome: -outcome.reward)
