"""How well a cheap score of a plan says what the final one will be.

    python benchmarks/fidelities.py --data=DIR --network=mobilenet_v1 --plans=24 \
        --refits=250x16,64x8 --samples=0,500,250

Plans are those of `knapsack` and others scattered around them, filled up to the budget. What each
is judged by is the divergence of its outputs from the dense network's after the final refit, on all
validation images. A cheap score is taken after a refit over few images: `64x8` is `quick_in_order`
over 64 images with 8 rows for each feature, `dense` the solve from the dense network's statistics;
and on part of the validation images (0: on all). `correlation` is Spearman's, with a 95 % interval
over resampled plans; `error` the standard deviation of the logarithm of cheap over final; and
`lost` how much farther than the best plan the best of the cheap score's best five is.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import scipy.stats
from absl import app, flags
from common import cases, record

import amc_tf
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.refit.methods import REFITS, quick
from amc_tf.pruning.refit.runner import RunByOthers
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.allocations import allocated
from amc_tf.search.env.channels import by_importance
from amc_tf.search.kept_importance import kept_importance
from amc_tf.search.problem import environment, problem_of
from amc_tf.search.settings import KNAPSACK, SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
MACS = flags.DEFINE_float("macs", 0.5, "Share of the dense MACs.")
PLANS = flags.DEFINE_integer("plans", 24, "Number of plans.")
REFIT = flags.DEFINE_list("refits", ["250x16", "64x8"], "IMAGESxROWS, or names of amc_tf's REFITS.")
SAMPLES = flags.DEFINE_list("samples", ["0", "2000", "500"], "Images scored; 0 for all.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of plans and sampled positions.")


class Remembered:
    """A refit that does each plan once, and counts its seconds."""

    def __init__(self, refit: Any):
        self._refit = refit
        self._known: dict[int, dict] = {}
        self.seconds: list[float] = []

    def refit(self, plan: PruningPlan) -> dict[str, np.ndarray]:
        if id(plan) not in self._known:
            start = time.perf_counter()
            self._known = {id(plan): self._refit.refit(plan)}
            self.seconds.append(time.perf_counter() - start)
        return self._known[id(plan)]

    def run_by(self, make: Any) -> Remembered:
        if isinstance(self._refit, RunByOthers):
            self._refit = self._refit.run_by(make)
        return self


def plans_of(graph: ChannelGraph, case: cases.Case, count: int, seed: int) -> list[PruningPlan]:
    """Returns plans of about the quality that a search tries."""
    task = case.task()
    settings = SearchSettings(rounding=case.rounding, policies=("amc", KNAPSACK), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        workdir = Workdir(folder)
        halves = Halves(graph, [case.calibration], seed)
        importance = kept_importance(halves, task, settings.importance, workdir)
        problem = dataclasses.replace(
            problem_of(graph, settings), plan=by_importance(graph, importance)
        )
        env = environment(problem, amc_tf.Budget(macs=MACS.value), settings)
        starts = allocated(env, halves, task, settings, importance, workdir).plans[KNAPSACK]
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        ratios = np.array(starts[number % len(starts)])
        if number >= len(starts):
            moved = ratios + rng.choice([0.03, 0.06, 0.1]) * rng.normal(size=len(ratios))
            ratios = env.fitted(np.clip(moved, 0.05, 1).tolist())
        found.append(problem.plan(env.filled(ratios)))
    return found


def compared(cheap: np.ndarray, final: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(final), len(final)) for _ in range(1000)]
    many = [scipy.stats.spearmanr(cheap[d], final[d])[0] for d in draws]
    best = np.argsort(cheap)[:5]
    return {
        "correlation": round(float(scipy.stats.spearmanr(cheap, final)[0]), 3),
        "between": [round(float(q), 3) for q in np.nanquantile(many, (0.025, 0.975))],
        "error": round(float(np.std(np.log(cheap / final))), 4),
        "lost": round(float(final[best].min() / final.min() - 1), 4),
    }


def main(argv):
    del argv
    case = cases.load(NETWORK.value, DATA.value)
    task, images, seed = case.task(), [case.calibration], SEED.value
    graph = amc_tf.analyze(case.model)
    plans = plans_of(graph, case, PLANS.value, seed)
    score = fastest_scorer(graph, task, None, None, compare=True)
    score(None)
    samples = [int(n) for n in SAMPLES.value if int(n) < len(case.validation[0])]
    of_part = {n: score.on_part(n) if n else score for n in {0, *samples}}

    def scored(refit: Remembered, samples: list[int]) -> np.ndarray:
        on_parts = [part.refitted_by(refit) for part in map(of_part.__getitem__, samples)]
        return np.array([[part(plan).divergence for part in on_parts] for plan in plans]).T

    last = Remembered(REFITS[SearchSettings().final_refit](graph, images, seed))
    (final,) = scored(last, [0])
    rows = []
    for name in REFIT.value:
        if name in REFITS:
            refit = Remembered(REFITS[name](graph, images, seed))
        else:
            few, rows_each = map(int, name.split("x"))
            refit = Remembered(quick(graph, images, seed, few, rows_each))
        for n, cheap in zip(samples, scored(refit, samples), strict=True):
            row = {"refit": name, "samples": n or len(case.validation[0])}
            row |= {"refit_seconds": round(statistics.median(refit.seconds), 3)}
            rows.append(row | compared(cheap, final))
            print(rows[-1], flush=True)
    record.append(
        "fidelities",
        {
            "network": NETWORK.value,
            "macs": MACS.value,
            "plans": len(plans),
            "seed": seed,
            "final_seconds": round(statistics.median(last.seconds), 3),
            "final": {"least": round(final.min(), 4), "most": round(final.max(), 4)},
            "rows": rows,
        },
    )


if __name__ == "__main__":
    app.run(main)
