"""Episodes of agent and environment, and the best plans they find."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.constraints import Constraints
from amc_tf.graph.plan import PruningPlan
from amc_tf.latency.settings import LatencySettings
from amc_tf.pruning.importance.criteria import IMPORTANCES, Importance
from amc_tf.pruning.refit.methods import REFITS, Refit
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.scorer import scorer
from amc_tf.search.agents.base import RandomSearcher, Searcher
from amc_tf.search.agents.cma_es import EvolutionSearcher
from amc_tf.search.agents.ddpg.process import DdpgSearcher
from amc_tf.search.agents.ddpg.settings import DdpgSettings
from amc_tf.search.agents.guided import PROFILES, FixedSearcher, GuidedSearcher, profile
from amc_tf.search.agents.response_surface import ResponseSearcher
from amc_tf.search.breakdown import breakdown
from amc_tf.search.driver import Contest
from amc_tf.search.env.base import NUM_FEATURES, Outcome
from amc_tf.search.env.budget import UNKNOWN_LATENCY, Budget, CountCost
from amc_tf.search.env.channel_env import CompressionEnv
from amc_tf.search.latency_budget import SearchLatency
from amc_tf.search.tensorboard import TensorBoardLog
from amc_tf.training.task import Task

# AMC's agent first: where two plans score alike, the earlier policy's is chosen.
POLICIES = ("amc", "response", "cmaes", "random", *PROFILES)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How a search is done.

    Attributes:
        episodes: of the agent, and of each searcher it is compared with.
        seed: of agent, random searcher and sampled activations.
        reward: a name of `amc_tf.search.env.budget.REWARDS`.
        rounding: channel counts are multiples of this.
        min_preserve: least share of a group's channels that is kept.
        constraints: layers to freeze, and other values of `rounding` and
            `min_preserve` for single layers (see `amc_tf.graph.constraints.Constraints`).
        importance: which channels of a group are kept, a name of
            `amc_tf.pruning.importance.criteria.IMPORTANCES`.
        fill_budget: whether plans use up the budget (see `CompressionEnv`).
        warm_start: whether the agent's first episodes follow the hand-crafted policies.
        response_share: of the agent's episodes after its warm-up, the share proposed by
            a model of the reward, which also proposes those of the warm-up (see
            `amc_tf.search.agents.response_surface`), in [0, 1]; 0 is the paper's agent. It
            grows while the agent's own plans are not the best (see `GuidedSearcher`).
        refit: how weights are restored before a plan is scored, a name of
            `amc_tf.pruning.refit.methods.REFITS`.
        final_refit: the same, for the networks that are built in the end.
        early_stop: standard errors by which a plan must be below its policy's best
            one for its scoring to end before all images were run; None for never.
        rerank: of each policy the best so many plans are scored once more with
            the final refit, and that decides.
        policies: which of `POLICIES` run; `amc` always does. `random`, `cmaes` (an
            evolution strategy) and `response` (the model of the reward without
            the agent) get as many episodes as the agent.
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
    response_share: float = 0.75
    refit: str = "quick_in_order"
    final_refit: str = "in_order"
    early_stop: float | None = None
    rerank: int = 5
    policies: tuple[str, ...] = ("amc", "random", *PROFILES)
    keep_best: int = 5
    ddpg: DdpgSettings = DdpgSettings()

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise AmcError(f"expected at least one episode, received {self.episodes}")
        if not 0 <= self.response_share <= 1:
            raise AmcError(f"expected response_share in [0, 1], received {self.response_share}")
        if self.rerank < 1:
            raise AmcError(f"expected rerank of at least 1, received {self.rerank}")
        if self.early_stop is not None and (self.early_stop <= 0 or self.reward != "err"):
            raise AmcError(
                "expected early_stop as a positive number, with the reward 'err' (with others a "
                f"plan of low accuracy may be the best), received {self.early_stop} with the "
                f"reward {self.reward!r}"
            )
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

    @property
    def learner(self) -> DdpgSettings:
        """The agent's settings, its phases as long as `episodes` makes them."""
        return self.ddpg.over(self.episodes)


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

    contest = Contest(workdir / "episodes.jsonl", make_env, ranks)
    dense = contest.env.dense_costs
    # The agent takes seconds to come up; meanwhile the statistics are gathered.
    with (
        DdpgSearcher(settings.learner, NUM_FEATURES, settings.seed, workdir / "agent.log") as agent,
        TensorBoardLog(workdir / "tensorboard", dense) as contest.watch,
    ):
        images = task.calibration_inputs(model)
        refit = REFITS[settings.refit](graph, images, settings.seed)
        contest.measure = scorer(graph, task, refit, settings.early_stop)
        dense_accuracy = contest.measure(None)
        about = {"bounds": contest.env.bounds, "dense": {"accuracy": dense_accuracy, **dense}}
        files.write_json(workdir / "search.json", {**about, **breakdown(graph, {})})
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
        ranked = replayed("finals.jsonl", budget, finalists)
    best = {name: outcomes[0] for name, outcomes in ranked.items()}
    if device is not None:

        def within(number: int, budget: Budget, names: Sequence[str]) -> dict[str, list[Outcome]]:
            env = make_env(no_score, budget)
            # In proportion: decided one after another, the last would bear it all.
            plans = {name: [env.fitted(actions) for actions in finalists[name]] for name in names}
            return replayed(f"finals{number}.jsonl", budget, plans)

        best = device.choose(ranked, within)
    chosen = max(
        (name for name in POLICIES if name in best),
        key=lambda name: (best[name].reward, -POLICIES.index(name)),
    )
    result = SearchResult(graph, chosen, best, contest.env.bounds, dense_accuracy, final)
    plans = {name: outcome.plan for name, outcome in best.items()}
    files.write_json(workdir / "search.json", {**about, **breakdown(graph, plans)})
    result.plan.save(workdir / "plan.json")
    for name, outcome in best.items():
        outcome.plan.save(policy_plan(workdir, name))
    files.write_json(
        workdir / "best_plans.json",
        [
            {**record, "keep": contest.env.plan(record["counts"]).keep}
            for record in contest.log.best(settings.keep_best)
        ],
    )
    return result


def compete(contest: Contest, agent: Searcher, settings: SearchSettings) -> None:
    """Plays the episodes of every policy that the settings name, and of AMC's.

    Args:
        contest: its `measure` set.
        agent: the one that learns.
        settings: policies, episodes and guidance.
    """
    env = contest.env
    # Hand-crafted ratios are scaled to a budget, so they need one.
    handcrafted = {
        name: env.fitted(profile(name, len(env)).tolist())
        for name in (PROFILES if env.budget is not None else ())
    }
    start = handcrafted.get("uniform", [0.5] * len(env))

    def response() -> ResponseSearcher:
        return ResponseSearcher(env, start, seed=settings.seed)

    def guided() -> GuidedSearcher:
        return GuidedSearcher(
            agent,
            [*handcrafted.values()] if settings.warm_start else [],
            response() if settings.response_share else None,
            settings.response_share,
            settings.learner.phases()[0],
        )

    searchers: dict[str, Callable[[], Searcher]] = {
        **{name: functools.partial(FixedSearcher, [a]) for name, a in handcrafted.items()},
        "amc": guided,
        "response": response,
        "cmaes": lambda: EvolutionSearcher(start, seed=settings.seed),
        "random": lambda: RandomSearcher(settings.seed),
    }
    for name, make in searchers.items():
        if name in ("amc", *settings.policies):
            contest.run(name, make(), 1 if name in handcrafted else settings.episodes)


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
    graph: ChannelGraph, task: Task, criterion: str, workdir: Workdir
) -> dict[str, np.ndarray]:
    """The channels' importance, kept in a file.

    Shuffled training data would rank the channels of a resumed search anew,
    and the scores in its log are those of the old ranks.
    """
    shapes = {name: (group.channels,) for name, group in graph.groups.items()}
    known = workdir.read_json("importance.json", {})
    if known.get("criterion") == criterion:
        scores = {name: np.array(values) for name, values in known["scores"].items()}
        if {name: values.shape for name, values in scores.items()} == shapes:
            return scores
    scores = IMPORTANCES[criterion](graph, task)
    lists = {name: values.tolist() for name, values in scores.items()}
    workdir.write_json("importance.json", {"criterion": criterion, "scores": lists})
    return scores


def policy_plan(workdir: pathlib.Path, policy: str) -> pathlib.Path:
    """Where the best plan of a policy lies."""
    folder = workdir / "plans"
    folder.mkdir(exist_ok=True)
    return folder / f"{policy}.json"
