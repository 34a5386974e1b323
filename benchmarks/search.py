"""Searches on a pretrained network by several policies with the same number of evaluations.

    python benchmarks/search.py --data=DIR --network=resnet56 --macs=0.5 --episodes=150 --seed=0

Every policy searches in the same environment with as many evaluations, and its best plans are
scored once more with the final refit (see `amc_tf.SearchSettings`). Accuracies are before
fine-tuning. Those on `test` decide nothing; for ImageNet there are no such images, and `test` is
the data on which the plans were chosen. The best plans are kept in plans.tar.xz; rescore.py
rebuilds and scores them again. `--workdir` holds the search's log: the same command resumes.
"""

from __future__ import annotations

import json
import pathlib
import time

import numpy as np
from absl import app, flags
from common import cases, plans, record, trees
from common.intervals import difference, interval

import amc_tf
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.agents.handcrafted import PROFILES
from amc_tf.search.plan_search import search_plan
from amc_tf.search.settings import SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
MACS = flags.DEFINE_float("macs", 0.5, "Share of the dense MACs.")
EPISODES = flags.DEFINE_integer("episodes", 150, "Episodes of each policy that searches.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the search.")
REFIT = flags.DEFINE_string("refit", SearchSettings().refit, "Refit before a plan is scored.")
EARLY_STOP = flags.DEFINE_float("early_stop", None, "Standard errors at which plans are given up.")
RERANK = flags.DEFINE_integer(
    "rerank", SearchSettings().rerank, "Best plans of each, refitted last."
)
POLICIES = flags.DEFINE_list("policies", ["amc", "random", *PROFILES], "Policies.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the search's log.", required=True)


def main(argv):
    del argv
    case = cases.load(NETWORK.value, DATA.value)
    settings = SearchSettings(
        episodes=EPISODES.value,
        seed=SEED.value,
        rounding=case.rounding,
        refit=REFIT.value,
        early_stop=EARLY_STOP.value,
        rerank=RERANK.value,
        policies=tuple(POLICIES.value),
    )
    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    budget = amc_tf.Budget(macs=MACS.value)
    found = search_plan(case.model, case.task(), budget, workdir, settings)
    seconds = time.monotonic() - start

    tested = fastest_scorer(found.graph, case.task(case.test), found.final)
    labels = case.test[1]

    def right(plan) -> np.ndarray:
        return np.argmax(tested.outputs(plan)[0], axis=-1) == labels

    answers = {name: right(outcome.plan) for name, outcome in found.best.items()}
    dense = right(None)
    episodes = [json.loads(x) for x in (workdir / "episodes.jsonl").read_text().splitlines()]
    policies, kept = {}, {}
    for name, outcome in found.best.items():
        share = outcome.macs / amc_tf.macs(found.graph)
        search = SEED.value, REFIT.value, EPISODES.value, settings.response_share
        plan = "_".join(map(str, (NETWORK.value, f"{MACS.value:g}", name, *search)))
        kept[plan] = outcome.plan
        rewards = [e["score"] for e in episodes if e["policy"] == name]
        accuracy = float(answers[name].mean())
        policies[name] = {
            "macs_ratio": round(share, 4),
            "search_accuracy": max(rewards),
            "best_after": {
                n: max(rewards[:n]) for n in (25, 50, 100, 200, 400) if n <= len(rewards)
            },
            "final_accuracy": outcome.score,
            "test_accuracy": accuracy,
            "test_interval": interval(accuracy, len(labels)),
            "amc_better_by": difference(answers["amc"], answers[name]),
            "plan": plans.cited(plan),
        }
    plans.keep(kept)
    record.append(
        "search",
        {
            **trees.present(),
            "network": NETWORK.value,
            "macs": MACS.value,
            "episodes": EPISODES.value,
            "seed": SEED.value,
            "refit": settings.refit,
            "response_share": settings.response_share,
            "early_stop": settings.early_stop,
            "rerank": settings.rerank,
            "final_refit": settings.final_refit,
            "validation_images": len(case.validation[0]),
            "test_images": len(labels),
            "dense_accuracy": found.dense_score,
            "dense_test_accuracy": float(dense.mean()),
            "chosen": found.chosen,
            "policies": policies,
            "seconds": round(seconds),
            "seconds_of_episodes": round(sum(e["seconds"] for e in episodes)),
        },
    )


if __name__ == "__main__":
    app.run(main)
