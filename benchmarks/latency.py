"""Latency predicted from the table of operators against latency measured, on this host.

    python benchmarks/latency.py --data=DIR --network=mobilenet_v1 --plans=30

Several networks may be named (--network=mobilenet_v1,mobilenet_v2); each prints a JSON object.

DIR holds `mobilenet_v1_075_192.keras`, `resnet56_cifar10.keras` and `efficientnet_lite0.keras`;
MobileNet-V2 is built with random weights. The networks share one table, which begins empty unless
--table names a file; operators that a network finds there are reused. Random plans of all sizes are
rebuilt, converted, and timed in turn with the dense model; they differ from those of the
calibration. The error of a plan is that of its ratio to the dense model: `predicted(plan) /
predicted(dense)` against `measured(plan) / measured(dense)`. So a clock that has become slower
since the table was made does not count as an error. `absolute` gives the same numbers in
milliseconds. A network takes about four minutes. Run it when the machine is idle.
"""

from __future__ import annotations

import pathlib
import tempfile
import time

import keras
import numpy as np
from absl import app, flags
from common import record
from scipy.stats import spearmanr

import amc_tf
import tflite_tools
from amc_tf.latency.cost import latency_cost, random_counts
from amc_tf.latency.settings import LatencySettings, open_table
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.search.env.channels import allowed_counts

# File, rounding and least preserve ratio by name.
NETWORKS = {
    "mobilenet_v1": ("mobilenet_v1_075_192.keras", 8, 0.2),
    "mobilenet_v2": (None, 8, 0.2),
    "resnet56": ("resnet56_cifar10.keras", 1, 0.2),
    "efficientnet_lite0": ("efficientnet_lite0.keras", 8, 0.2),
}
DATA = flags.DEFINE_string("data", None, "Folder of the .keras files.", required=True)
NETWORK = flags.DEFINE_list("network", [*NETWORKS], "Networks, in this order.")
PLANS = flags.DEFINE_integer("plans", 30, "Random plans of each network.")
CALIBRATION = flags.DEFINE_integer("calibration_plans", 8, "Whole networks that calibrate it.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Series of each model.")
TABLE = flags.DEFINE_string("table", None, "File of the table; None for a temporary one.")
SEED = 1  # the calibration's plans have seed 0


def load(name: str) -> keras.Model:
    file = NETWORKS[name][0]
    if file is None:
        keras.utils.set_random_seed(0)
        return keras.applications.MobileNetV2(weights=None)
    return keras.models.load_model(pathlib.Path(DATA.value).expanduser() / file, compile=False)


def errors(predicted: np.ndarray, measured: np.ndarray) -> dict:
    wrong = np.abs(predicted / measured - 1)
    return {
        "rank_correlation": round(float(spearmanr(predicted, measured)[0]), 4),
        "median_error": round(float(np.median(wrong)), 4),
        "p95_error": round(float(np.percentile(wrong, 95)), 4),
    }


def study(name: str, table_file: str) -> dict:
    model = load(name)
    graph = amc_tf.analyze(model)
    choices = allowed_counts(graph, *NETWORKS[name][1:])
    settings = LatencySettings(table=table_file, rounds=ROUNDS.value)
    table = open_table(settings)
    start = time.monotonic()
    cost = latency_cost(graph, table, choices, calibration_plans=CALIBRATION.value)
    table_seconds = time.monotonic() - start

    rng = np.random.default_rng(SEED)
    plans = [random_counts(choices, rng) for _ in range(PLANS.value)]
    importance = consumer_magnitude(graph)
    models = {"dense": tflite_tools.convert(model)}
    for i, counts in enumerate(plans):
        plan = strongest(importance, dict(zip(graph.groups, counts, strict=True)))
        models[f"{i}"] = tflite_tools.convert(amc_tf.rebuild(model, graph, plan))
    times = table.files(models)
    measured = np.array([times[f"{i}"] for i in range(len(plans))])
    predicted = np.array([cost(counts) for counts in plans])
    dense = cost([int(allowed[-1]) for allowed in choices])
    plain = np.array(
        [sum(ms for kind, ms in cost.sums(c).items() if kind != "weight_mb") for c in plans]
    )
    return {
        "network": name,
        "plans": len(plans),
        **errors(predicted / dense, measured / times["dense"]),
        "absolute": errors(predicted, measured),
        "uncalibrated": errors(plain, measured),
        "table_seconds": round(table_seconds, 1),
        "operators_measured": table.measured,
        "operators_reused": table.found,
        "dense_ms": round(times["dense"], 4),
        "dense_foreseen_ms": round(dense, 4),
        "factors": {k: round(v, 4) for k, v in cost.calibration.factors.items()},
        "measured_ms": np.round(measured, 4).tolist(),
        "foreseen_ms": np.round(predicted, 4).tolist(),
        "conditions": dict(table.conditions),
    }


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        file = TABLE.value or f"{folder}/latency.sqlite"
        for name in NETWORK.value:
            settings = {"seed": SEED, "rounds": ROUNDS.value}
            record.append("latency", {**settings, **study(name, file)})


if __name__ == "__main__":
    app.run(main)
