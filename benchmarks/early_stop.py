"""How much early stopping of hopeless plans saves, and whether it ever gives up the best plan.

    python benchmarks/early_stop.py --data=DIR --network=resnet56 --log=WORKDIR/episodes.jsonl

Scores the plans that the agent tried in a search (benchmarks/search.py), in the same order, on all
of the validation images. It then simulates `SearchSettings(early_stop=...)` at several thresholds
on the score of each batch. It counts the images that would not have been run, and the plans given
up although they were the best so far. `--refit` must be that of the search.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np
from absl import app, flags
from common import cases, record

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.scoring.batches import order
from amc_tf.scoring.early_stopping import hopeless
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.problem import check, problem_of
from amc_tf.search.settings import SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
LOG = flags.DEFINE_string("log", None, "episodes.jsonl of a search.", required=True)
MACS = flags.DEFINE_float("macs", 0.5, "The search's share of the dense MACs.")
REFIT = flags.DEFINE_string("refit", SearchSettings().refit, "Refit before a plan is scored.")
PLANS = flags.DEFINE_integer("plans", 100, "Greatest number of plans of the log.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the refit.")

THRESHOLDS = (1.0, 2.0, 3.0, 4.0)


def played(scores: np.ndarray, sizes: np.ndarray, z: float) -> dict:
    """Simulates a search on `scores` (plans, batches), in the order in which they are run."""
    total, best, run, given_up, lost, errors = int(sizes.sum()), -np.inf, 0, 0, [], []
    for plan in scores:
        count = len(sizes)
        for n in range(1, len(sizes)):
            if hopeless(plan[:n], sizes[:n], total, best, z):
                count = n
                break
        run += int(sizes[:count].sum())
        seen = float(np.average(plan[:count], weights=sizes[:count]))
        accuracy = float(np.average(plan, weights=sizes))
        if count < len(sizes):
            given_up += 1
            errors.append(abs(seen - accuracy))
            if accuracy > best:
                lost.append(accuracy - best)
        best = max(best, seen)
    return {
        "images_run": run / (total * len(scores)),
        "given_up": given_up,
        "better_ones_given_up": len(lost),
        "most_lost": max(lost, default=0.0),
        "mean_error_of_given_up": float(np.mean(errors)) if errors else 0.0,
        "best": best,
    }


def main(argv):
    del argv
    case = cases.load(NETWORK.value, DATA.value)
    graph = amc_tf.analyze(case.model)
    settings = SearchSettings(rounding=case.rounding, refit=REFIT.value)
    problem = problem_of(graph, settings)
    check(problem, amc_tf.Budget(macs=MACS.value), settings)
    lines = map(json.loads, pathlib.Path(LOG.value).read_text().splitlines())
    tried = dict.fromkeys(tuple(e["counts"]) for e in lines if e["policy"] == "amc")
    refit = REFITS[REFIT.value](graph, [case.calibration], SEED.value)
    score, labels = fastest_scorer(graph, case.task(), refit), case.validation[1]
    starts = np.arange(0, len(labels), case.batch_size)
    turns = order(len(starts))
    sizes = np.diff([*starts, len(labels)])[turns]
    scores = []
    for counts in list(tried)[: PLANS.value]:
        right = score.outputs(problem.plan(counts))[0].argmax(-1) == labels
        scores.append([right[i : i + case.batch_size].mean() for i in starts[turns]])
        print(len(scores), float(np.average(scores[-1], weights=sizes)), flush=True)
    table = {f"{z:g}": played(np.array(scores), sizes, z) for z in THRESHOLDS}
    record.append(
        "early_stop",
        {
            "network": NETWORK.value,
            "macs": MACS.value,
            "refit": REFIT.value,
            "seed": SEED.value,
            "plans": len(scores),
            "images": len(labels),
            "batches": len(sizes),
            "best": float(np.average(scores, axis=1, weights=sizes).max()),
            "thresholds": table,
        },
    )


if __name__ == "__main__":
    app.run(main)
