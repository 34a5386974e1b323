"""How many channels each group keeps, by rules that need no search.

    python benchmarks/allocations.py --data=DIR --network=mobilenet_v1 --macs=0.5 \
        --importances=consumer_magnitude,elimination --rules=uniform,knapsack --seeds=0,1

For each importance (which channels of a group stay) and each rule (how many stay), the plan is
refitted in order and scored on the test images, before fine-tuning. Seeds are those of the sampled
positions of rule and refit. Seconds are those of all the process's threads on processors, and a
rule's do not hold the importance's. `--workdir` keeps the scores: the same command resumes. Rules
are functions of the table RULES.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Collection, Mapping

import numpy as np
from absl import app, flags
from common import cases, record
from common.intervals import interval
from common.overrides import overridden
from common.yardstick import REFIT, Yardstick

import amc_tf
from amc_tf.errors import choices
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.streams import streams
from amc_tf.pruning.importance.criteria import IMPORTANCES, Importance
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.importance.refit_curves import losses_of, refit_curves
from amc_tf.search.agents.global_ranking import global_ranking
from amc_tf.search.agents.handcrafted import PROFILES, profile
from amc_tf.search.agents.knapsack import knapsack
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import by_importance
from amc_tf.search.problem import environment, problem_of
from amc_tf.search.settings import GLOBAL_RANKINGS, KNAPSACK, SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
MACS = flags.DEFINE_float("macs", 0.5, "Share of the dense MACs.")
IMPORTANCE = flags.DEFINE_list(
    "importances", [SearchSettings().importance], "Names of amc_tf's IMPORTANCES."
)
RULE = flags.DEFINE_list("rules", ["uniform", "knapsack"], "Names of RULES.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of the sampled positions.")
SET = flags.DEFINE_multi_string("set", [], "FIELD=VALUE of SearchSettings (repeatable).")
FOLD = flags.DEFINE_bool(
    "fold_residuals", False, "Whether residuals are folded first; MACs stay of the dense network."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the scores so far.")


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What a rule may use.

    Attributes:
        case: network and images.
        graph: the analysed network.
        env: the decisions and their budget.
        importance: scores that say which channels are kept.
        seed: seed of sampled positions.
    """

    case: cases.Case
    graph: ChannelGraph
    env: DecisionEnv
    importance: Importance
    seed: int

    @property
    def whole_streams(self) -> list[int]:
        """Returns the decisions about residual streams."""
        joined = streams(self.graph)
        return [t for t, name in enumerate(self.graph.groups) if name in joined]


def handcrafted(name: str, given: Given) -> list[float]:
    return given.env.fitted(profile(name, len(given.env)).tolist())


def least_loss(given: Given, whole: Collection[int] = ()) -> list[float]:
    curves = refit_curves(
        Halves(given.graph, [given.case.calibration], given.seed), given.importance
    )
    return knapsack(given.env, losses_of(curves, given.graph, given.env.choices), whole)


def ranked(criterion: str, given: Given) -> list[float]:
    scores = IMPORTANCES[criterion](given.graph, given.case.task())
    of_groups = [scores[name] for name in given.graph.groups]
    return global_ranking(given.env, of_groups, streams=given.whole_streams)


# Name to a function that returns the preserve ratio of each decision, within the budget.
RULES: Mapping[str, Callable[[Given], list[float]]] = {
    **{name: functools.partial(handcrafted, name) for name in PROFILES},
    KNAPSACK: least_loss,
    "knapsack_whole_streams": lambda given: least_loss(given, given.whole_streams),
    **{name: functools.partial(ranked, of) for name, of in GLOBAL_RANKINGS.items()},
}


def main(argv):
    del argv
    choices("rule", RULE.value, RULES)
    choices("importance", IMPORTANCE.value, IMPORTANCES)
    case = cases.load(NETWORK.value, DATA.value)
    settings = overridden(SearchSettings(rounding=case.rounding), SET.value)
    dense_macs = amc_tf.macs(amc_tf.analyze(case.model))
    if FOLD.value:
        folded = amc_tf.fold_residuals(case.model, [case.calibration[:500]])
        case = dataclasses.replace(case, model=folded)
    graph = amc_tf.analyze(case.model)
    problem = problem_of(graph, settings)
    seeds = [int(seed) for seed in SEEDS.value]
    kept = None
    if WORKDIR.value:
        folder = pathlib.Path(WORKDIR.value)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{NETWORK.value}{'_folded' * FOLD.value}.json"
    judges = {seed: Yardstick(graph, case, seed, kept) for seed in seeds}
    rows = []
    for criterion in IMPORTANCE.value:
        start = time.process_time()
        importance = IMPORTANCES[criterion](graph, case.task())
        importance_seconds = time.process_time() - start
        problem = dataclasses.replace(problem, plan=by_importance(graph, importance))
        env = environment(problem, amc_tf.Budget(macs=MACS.value * dense_macs), settings)
        for name in RULE.value:
            accuracies, seconds = [], []
            for seed, judge in judges.items():
                start = time.process_time()
                ratios = RULES[name](Given(case, graph, env, importance, seed))
                seconds.append(time.process_time() - start)
                counts = np.rint(np.array(ratios) * problem.dense).astype(int)
                plan = problem.plan(counts)
                accuracies.append(judge.accuracy(plan))
            rows.append(
                {
                    "importance": criterion,
                    "rule": name,
                    "accuracy": float(np.mean(accuracies)),
                    "accuracies": accuracies,
                    "interval": interval(float(np.mean(accuracies)), len(case.test[0])),
                    "macs_ratio": round(amc_tf.macs(graph, plan) / dense_macs, 4),
                    "rule_cpu_seconds": round(float(np.median(seconds)), 2),
                    "importance_cpu_seconds": round(importance_seconds, 2),
                    "counts": counts.tolist(),
                }
            )
            print(criterion, name, accuracies, flush=True)
    record.append(
        "allocations",
        {
            "network": NETWORK.value,
            "macs": MACS.value,
            "seeds": seeds,
            "set": [*SET.value, *["residuals folded first"] * FOLD.value],
            "min_preserve": settings.min_preserve,
            "final_refit": REFIT,
            "test_images": len(case.test[0]),
            "dense_accuracy": judges[seeds[0]].accuracy(None),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    app.run(main)
