"""A search by latency on this host against searches by MACs; the final networks are timed whole.

    python benchmarks/latency_search.py --data=DIR --latency=0.5 --workdir=DIR

The budget of the latency search is a share of the dense model's milliseconds. Each search by MACs
gets a share of the MACs (--macs, repeatable) and as many episodes in the same environment. The best
plan of every search is then rebuilt, converted and timed in turn with the dense model on one
thread, so that the ratios come from one run. The accuracy of a MACs plan as fast as the latency
plan is read off the line through the two MACs plans nearest to it in latency. Accuracies are before
fine-tuning, with the final refit, on the reward's images. Run it when the machine is idle;
`--workdir` resumes.
"""

from __future__ import annotations

import pathlib

import numpy as np
from absl import app, flags
from common import cases, plans, record
from common.intervals import difference

import amc_tf
import tflite_tools
from amc_tf.latency.settings import LatencySettings
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.plan_search import search_plan
from amc_tf.search.result import SearchResult
from amc_tf.search.settings import SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "mobilenet_v1", "One of common/cases.py.")
LATENCY = flags.DEFINE_float("latency", 0.5, "Share of the dense milliseconds.")
MACS = flags.DEFINE_multi_float("macs", [0.45, 0.5], "Shares of the dense MACs (repeatable).")
EPISODES = flags.DEFINE_integer("episodes", 100, "Episodes of each search.")
REFIT = flags.DEFINE_string("refit", "quick_in_order", "Refit before a plan is scored.")
RERANK = flags.DEFINE_integer("rerank", 5, "Plans of a policy scored with the final refit.")
ROUNDS = flags.DEFINE_integer("rounds", 9, "Series in which each final file is timed.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the searches.")
TABLE = flags.DEFINE_string("table", None, "The table's file; default: one in the workdir.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the searches' logs.", required=True)


def searched(case: cases.Case, budget: amc_tf.Budget, folder: pathlib.Path) -> SearchResult:
    """Runs one search, whose log is in the folder; returns the result."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = SearchSettings(
        episodes=EPISODES.value,
        seed=SEED.value,
        rounding=case.rounding,
        refit=REFIT.value,
        rerank=RERANK.value,
        policies=("amc", "uniform"),
    )
    table = TABLE.value or str(pathlib.Path(WORKDIR.value) / "latency.sqlite")
    device = LatencySettings(table=table)
    return search_plan(case.model, case.task(), budget, folder, settings, device)


def main(argv):
    del argv
    case = cases.load(NETWORK.value, DATA.value)
    workdir = pathlib.Path(WORKDIR.value)
    budgets = {f"latency {LATENCY.value:.0%}": amc_tf.Budget(latency=LATENCY.value)}
    budgets |= {f"MACs {share:.0%}": amc_tf.Budget(macs=share) for share in sorted(MACS.value)}
    found = {
        name: searched(case, budget, workdir / name.replace(" ", "_"))
        for name, budget in budgets.items()
    }
    files = {"dense": tflite_tools.convert(case.model)}
    for name, result in found.items():
        weights = result.refitted(result.plan)
        small = amc_tf.rebuild(case.model, result.graph, result.plan, weights)
        files[name] = tflite_tools.convert(small)
    device = tflite_tools.open_device("host", rounds=ROUNDS.value)
    times = device.measure_all(files)

    any_result = next(iter(found.values()))
    tested = fastest_scorer(any_result.graph, case.task(case.test), any_result.final)
    labels = case.test[1]
    right = {
        name: np.argmax(tested.outputs(result.plan)[0], axis=-1) == labels
        for name, result in found.items()
    }
    by_latency = next(iter(found))
    rows, kept = {}, {}
    for name, result in found.items():
        # Every round holds one series of the file and one of the dense file.
        ratios = np.array(times[name].rounds_ms) / np.array(times["dense"].rounds_ms)
        rows[name] = {
            "chosen": result.chosen,
            "macs_ratio": amc_tf.macs(result.graph, result.plan) / amc_tf.macs(result.graph),
            "latency_ms": times[name].median_ms,
            "latency_ratio": float(np.median(ratios)),
            "latency_ratio_range": [float(ratios.min()), float(ratios.max())],
            "accuracy": float(right[name].mean()),
            "latency_plan_better_by": difference(right[by_latency], right[name]),
        }
        plan = f"{NETWORK.value}_{name.lower().replace(' ', '_').replace('%', '')}"
        kept[plan] = result.plan
        rows[name]["plan"] = plans.cited(plan)
    plans.keep(kept)
    by_macs = [row for name, row in rows.items() if name != by_latency]
    by_macs.sort(key=lambda row: row["latency_ratio"])
    equal = np.interp(
        rows[by_latency]["latency_ratio"],
        [row["latency_ratio"] for row in by_macs],
        [row["accuracy"] for row in by_macs],
    )
    record.append(
        "latency_search",
        {
            "network": NETWORK.value,
            "budget": LATENCY.value,
            "episodes": EPISODES.value,
            "refit": REFIT.value,
            "rerank": RERANK.value,
            "seed": SEED.value,
            "rounds": ROUNDS.value,
            "images": len(labels),
            "dense_ms": times["dense"].median_ms,
            "dense_accuracy": float((np.argmax(tested.outputs(None)[0], -1) == labels).mean()),
            "rows": rows,
            "accuracy_of_macs_plan_as_fast": float(equal),
            "conditions": dict(times["dense"].conditions),
        },
    )


if __name__ == "__main__":
    app.run(main)
