"""Test accuracy of a kept plan of ResNet-56, fine-tuned by the recipe of configs/cifar10.py.

    python benchmarks/finetune.py --data=DIR --plan=resnet56_0.5_amc_0 --epochs=30 \
        --workdir=DIR

Trains on the 45,000 images on which no reward was measured; half of the loss follows the dense
network's outputs. `--workdir` holds a checkpoint of each epoch: the same command resumes. An epoch
takes three to six minutes on two cores, or on one with `--precision=mixed_bfloat16`.
"""

from __future__ import annotations

import pathlib
import sys
import time

import keras
from absl import app, flags
from common import cases, plans, record

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.search.settings import SearchSettings

sys.path.insert(0, str(record.HERE.parent / "configs"))
import cifar10  # noqa: E402  the recipe that users get

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
PLAN = flags.DEFINE_string("plan", None, "A plan's file, or a name of plans.tar.xz.", required=True)
EPOCHS = flags.DEFINE_integer("epochs", 30, "Passes over the training images.")
RATE = flags.DEFINE_float("rate", 0.02, "First learning rate; it falls by a cosine to 0.")
PRECISION = flags.DEFINE_string("precision", "float32", "A dtype policy to train in.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the batches and the refit.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the checkpoint.", required=True)


def main(argv):
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    case = cases.load("resnet56", DATA.value)
    graph = amc_tf.analyze(case.model)
    plan = plans.load(PLAN.value)
    refit = REFITS[SearchSettings().final_refit](graph, [case.calibration], SEED.value)
    small = amc_tf.rebuild(case.model, graph, plan, refit.refit(plan))
    task = case.task()

    def accuracy(model: keras.Model) -> float:
        return task.score(task.compiled(model, case.model), case.test)

    before = accuracy(small)
    print(f"before: {before:.4f}", flush=True)
    keras.utils.set_random_seed(SEED.value)
    start = time.monotonic()
    cifar10.fit(
        small,
        cases.cifar10_train(DATA.value),
        EPOCHS.value,
        RATE.value,
        teacher=case.model,
        backup=workdir / "checkpoint",
        precision=PRECISION.value,
    )
    after = accuracy(small)
    small.save(workdir / "finetuned.keras")
    record.append(
        "finetune",
        {
            "network": "resnet56",
            "plan": plans.cited(PLAN.value),
            "macs_ratio": amc_tf.macs(graph, plan) / amc_tf.macs(graph),
            "epochs": EPOCHS.value,
            "rate": RATE.value,
            "precision": PRECISION.value,
            "seed": SEED.value,
            "before": before,
            "after": after,
            "dense": accuracy(case.model),
            "seconds_since_the_last_resumption": round(time.monotonic() - start),
        },
    )


if __name__ == "__main__":
    app.run(main)
