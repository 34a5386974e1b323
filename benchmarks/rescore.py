"""Rebuilds, refits and scores a kept plan on the test images.

    python benchmarks/rescore.py --data=DIR --plan=resnet56_0.5_amc_0

The name of the plan begins with the network. The model is rebuilt in Keras and evaluated by Keras,
not by the engine that scored it in the search.
"""

from __future__ import annotations

from absl import app, flags
from common import cases, plans, record

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.search.settings import SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
PLAN = flags.DEFINE_string("plan", None, "A plan's file, or a name of plans.tar.xz.", required=True)
REFIT = flags.DEFINE_string("refit", SearchSettings().final_refit, "Refit of the rebuilt network.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the positions sampled for the refit.")


def main(argv):
    del argv
    name = plans.name_of(PLAN.value)
    network = next(n for n in sorted(cases.CASES, key=len)[::-1] if name.startswith(n))
    case = cases.load(network, DATA.value)
    plan = plans.load(PLAN.value)
    graph = amc_tf.analyze(case.model)
    weights = REFITS[REFIT.value](graph, [case.calibration], SEED.value).refit(plan)
    small = amc_tf.rebuild(case.model, graph, plan, weights)
    task = case.task()
    accuracy = task.score(task.compiled(small, case.model), case.test)
    record.append(
        "rescore",
        {
            "plan": plans.cited(PLAN.value),
            "refit": REFIT.value,
            "accuracy": accuracy,
            "macs_ratio": amc_tf.macs(graph, plan) / amc_tf.macs(graph),
            "test_images": len(case.test[0]),
        },
    )


if __name__ == "__main__":
    app.run(main)
