"""The search as a stage: the best plans, and the networks that are built by them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amc_tf.graph.analysis import analyze
from amc_tf.pipeline.folding import dense_costs
from amc_tf.pipeline.run import Run, timed
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.verification import verify
from amc_tf.runs import layout
from amc_tf.runs.provenance import versions
from amc_tf.runs.result_parts import Bound, DenseNetwork, PolicyNetwork
from amc_tf.search.plan_search import search_in
from amc_tf.search.result import SearchResult

STAGE = "search"


def search(run: Run) -> SearchResult:
    """Searches (or resumes) and rebuilds the best plans: `plan.json`, `pruned.keras`."""
    workdir = run.workdir
    workdir.forget("policies", "choice", "pruned", "finetuned", "tflite")
    if workdir.result.products.get(STAGE):
        workdir.record(STAGE, ())  # they are about to be written anew
    with timed(workdir, STAGE):
        found = search_in(
            workdir,
            run.searched,
            run.task,
            run.budget,
            run.settings.search,
            run.settings.latency,
            run.metric,
            None if run.searched is run.dense else _costs(run),
        )
    few = [array[:4] for array in run.task.calibration_inputs(run.dense)]
    verify(run.searched, run.graph, found.plan, few)
    measured, policies = {}, {}
    for name, outcome in found.best.items():
        pruned = rebuild(run.searched, run.graph, outcome.plan, found.refitted(outcome.plan))
        workdir.save_model(layout.pruned_file(name), pruned)
        measured[name] = run.measures(pruned)
        policies[name] = PolicyNetwork(
            **vars(measured[name]), search_score=outcome.score, reward=outcome.reward
        )
    chosen = workdir.load_model(layout.pruned_file(found.chosen))
    workdir.save_model(layout.PRUNED, chosen)
    dense = run.measures(rebuild(run.dense, analyze(run.dense), None))  # not the user's own model
    dense_ms = None if found.measured is None else found.measured.dense_ms
    latency_ms = found.best[found.chosen].latency_ms
    reached: dict[str, Any] = {**measured[found.chosen].costs, "latency": latency_ms}
    before: dict[str, Any] = {**dense.costs, "latency": dense_ms}
    bounds = {
        kind: Bound(bound, reached[kind], before[kind]) for kind, bound in found.bounds.items()
    }
    workdir.update_result(
        metric=found.metric,
        uncertainty=found.uncertainty,
        dense=DenseNetwork(
            **vars(dense), search_score=found.dense_score, constant_score=found.constant_score
        ),
        pruned=measured[found.chosen],
        budget=bounds,
        policies=policies,
        chosen=found.chosen,
        choice=found.choice,
        reward=found.reward,
        episodes=run.settings.search.episodes,
        seed=run.settings.search.seed,
        input_shapes=run.graph.input_shapes,
        versions=versions(),
    )
    workdir.record(STAGE, products(found.best))
    return found


def _costs(run: Run) -> dict[str, float]:
    return dense_costs(analyze(run.dense, input_shape=run.graph.input_shapes))


def products(policies: Iterable[str]) -> list[str]:
    """Returns the files of a search that ended with a plan of each policy."""
    kept = [name for policy in policies for name in _of_policy(policy)]
    return [layout.PLAN, layout.BEST_PLANS, layout.SEARCH, layout.PRUNED.name, *kept]


def _of_policy(policy: str) -> tuple[str, str]:
    return layout.plan_file(policy), layout.pruned_file(policy).name
