"""Accuracy given back without labels: a pruned network, refitted and then recovered.

    python benchmarks/recover.py --data=DIR --network=mobilenet_v1 --macs=0.5
    python benchmarks/recover.py --data=DIR --network=mobilenet_v1 --plan=NAME --images=FOLDER

Without --plan, the plan is found first, by a search within the MACs that is kept in --workdir. The
refit and the recovery see four fifths of the calibration images, without their labels; the others
decide which epoch is kept. Accuracies are of the test images, or of --images (see rescore.py). The
images of ImageNet's networks that measure are those on which a search chooses among its finalists
(see common/cases.py). `--weights` is
the network of an earlier run, which is only scored. `--workdir` holds the progress and the
network: the same command resumes.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time

import keras
import numpy as np
from absl import app, flags
from common import cases, plans, record, trees
from common.image_folder import images_of

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.recovery.settings import RecoverySettings
from amc_tf.search.settings import SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "mobilenet_v1", "One of common/cases.py.")
MACS = flags.DEFINE_float("macs", 0.5, "Share of the dense MACs, without --plan.")
PLAN = flags.DEFINE_string("plan", None, "A plan's file, or a name of plans.tar.xz.")
EPISODES = flags.DEFINE_integer("episodes", 40, "Episodes of the search, without --plan.")
VIEWS = flags.DEFINE_integer("views", RecoverySettings().views, "Views that are trained on.")
RATE = flags.DEFINE_float("rate", RecoverySettings().rate, "Largest learning rate.")
FEATURES = flags.DEFINE_float("features", RecoverySettings().features, "Weight of the features.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the refit and the recovery.")
IMAGES = flags.DEFINE_string("images", None, "Folder of images by class; default: test images.")
LABELS = flags.DEFINE_string("labels", None, "File with the label of each folder of --images.")
WEIGHTS = flags.DEFINE_string("weights", None, "A .keras file of an earlier run, to be scored.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of progress and network.", required=True)


def plan_of(case: cases.Case, workdir: pathlib.Path) -> amc_tf.PruningPlan:
    if PLAN.value:
        return plans.load(PLAN.value)
    settings = amc_tf.SearchSettings(
        episodes=EPISODES.value, rounding=case.rounding, seed=SEED.value
    )
    budget = amc_tf.Budget(macs=MACS.value)
    return amc_tf.search_plan(case.model, case.task(), budget, workdir / "search", settings).plan


def main(argv):
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    case = cases.load(NETWORK.value, DATA.value)
    images, count, folder = case.test, len(case.test[0]), None
    if IMAGES.value:
        images, count = images_of(IMAGES.value, LABELS.value, case)
        folder = pathlib.Path(IMAGES.value).name
    task = case.task()
    graph = amc_tf.analyze(case.model)

    def accuracy(model: keras.Model) -> float:
        return task.score(task.compiled(model, case.model), images)

    dense = accuracy(amc_tf.rebuild(case.model, graph, None))
    if WEIGHTS.value:
        small = keras.models.load_model(WEIGHTS.value)
        ratio = amc_tf.macs(amc_tf.analyze(small)) / amc_tf.macs(graph)
        record.append(
            "recover_scored",
            {
                **trees.present(),
                "network": NETWORK.value,
                "weights": pathlib.Path(WEIGHTS.value).name,
                "dense": dense,
                "recovered": accuracy(small),
                "images": count,
                "folder": folder,
                "macs_ratio": ratio,
            },
        )
        return
    plan = plan_of(case, workdir)
    order = np.random.default_rng(SEED.value).permutation(len(case.calibration))
    held = len(order) // 5
    held_out, images_seen = case.calibration[order[:held]], case.calibration[order[held:]]
    refit = REFITS[SearchSettings().final_refit](graph, [images_seen], SEED.value)
    small = amc_tf.rebuild(case.model, graph, plan, refit.refit(plan))
    del refit
    pruned = accuracy(small)
    print(f"dense {dense:.4f}, pruned {pruned:.4f}", flush=True)
    settings = amc_tf.RecoverySettings(
        views=VIEWS.value, rate=RATE.value, features=FEATURES.value, seed=SEED.value
    )
    start = time.monotonic()
    found = amc_tf.recover(
        small,
        graph,
        plan,
        [images_seen],
        [held_out],
        task.twin(case.model),
        settings,
        workdir / "progress.npz",
    )
    seconds = time.monotonic() - start
    small.save(workdir / "recovered.keras")
    record.append(
        "recover",
        {
            **trees.present(),
            "network": NETWORK.value,
            "plan": "found" if PLAN.value is None else plans.cited(PLAN.value),
            "macs_ratio": amc_tf.macs(graph, plan) / amc_tf.macs(graph),
            "dense": dense,
            "pruned": pruned,
            "recovered": accuracy(small),
            "images": count,
            "folder": folder,
            "seconds": round(seconds),
            "settings": dataclasses.asdict(settings),
            "images_seen": len(images_seen),
            "held_out": held,
            **{f"divergence_{name}": getattr(found, name) for name in ("before", "after")},
            "kept": found.kept,
            "epochs": found.epochs,
        },
    )


if __name__ == "__main__":
    app.run(main)
