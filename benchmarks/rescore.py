"""Rebuilds, refits and scores a kept plan on the test images, or on images of your own.

    python benchmarks/rescore.py --data=DIR --plan=resnet56_0.5_amc_0
    python benchmarks/rescore.py --data=DIR --plan=mobilenet_v1_0.5_amc_0 --images=FOLDER

The name of the plan begins with the network; --network says it for other plans. The model is
rebuilt in Keras and evaluated by Keras, not by the engine that scored it in the search. --images is
a folder with a folder of images for each class, such as ImageNet's validation images. Their names
in order are the network's classes, unless --labels is a file with a line `FOLDER LABEL` for each.
The refit's images stay those of --data, as they were for the search.
"""

from __future__ import annotations

import pathlib

from absl import app, flags
from common import cases, plans, record
from common.image_folder import images_of

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.search.settings import SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
PLAN = flags.DEFINE_string("plan", None, "A plan's file, or a name of plans.tar.xz.", required=True)
NETWORK = flags.DEFINE_string("network", None, "One of common/cases.py; default: by the plan.")
REFIT = flags.DEFINE_string("refit", SearchSettings().final_refit, "Refit of the rebuilt network.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the positions sampled for the refit.")
IMAGES = flags.DEFINE_string("images", None, "Folder of images by class; default: test images.")
LABELS = flags.DEFINE_string("labels", None, "File with the label of each folder of --images.")


def network_of(plan: str) -> str:
    name = plans.name_of(plan)
    found = [n for n in sorted(cases.CASES, key=len)[::-1] if name.startswith(n)]
    if not found:
        raise app.UsageError(
            f"expected a plan whose name begins with one of {', '.join(cases.CASES)}, received "
            f"{name!r}; say the network by --network"
        )
    return found[0]


def main(argv):
    del argv
    case = cases.load(NETWORK.value or network_of(PLAN.value), DATA.value)
    plan = plans.load(PLAN.value)
    images, count, folder = case.test, len(case.test[0]), None
    if IMAGES.value:
        images, count = images_of(IMAGES.value, LABELS.value, case)
        folder = pathlib.Path(IMAGES.value).name
    graph = amc_tf.analyze(case.model)
    weights = REFITS[REFIT.value](graph, [case.calibration], SEED.value).refit(plan)
    small = amc_tf.rebuild(case.model, graph, plan, weights)
    task = case.task()
    scored = {"accuracy": task.score(task.compiled(small, case.model), images)}
    if folder:
        # The dense network on others' images tells whether their labels fit.
        dense = task.score(task.compiled(case.model, case.model), images)
        scored |= {"dense_accuracy": dense, "images": folder}
    record.append(
        "rescore",
        {
            "plan": plans.cited(PLAN.value),
            "refit": REFIT.value,
            **scored,
            "macs_ratio": amc_tf.macs(graph, plan) / amc_tf.macs(graph),
            "test_images": count,
        },
    )


if __name__ == "__main__":
    app.run(main)
