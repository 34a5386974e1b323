"""Test accuracy of a kept plan of ResNet-56, fine-tuned by a recipe of the library.

    python benchmarks/finetune.py --data=DIR --plan=resnet56_0.5_amc_0 --epochs=30 \
        --workdir=DIR

Trains on the 45,000 images on which no reward was measured, by `amc_tf.distill`. `--workdir` holds
a checkpoint of each epoch: the same command resumes. `--share=0` trains on the labels alone. Rows
with a `precision` are of the recipe of configs/cifar10.py.
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
import cifar10  # noqa: E402  augmentation and compile settings as in the configurations

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
PLAN = flags.DEFINE_string("plan", None, "A plan's file, or a name of plans.tar.xz.", required=True)
EPOCHS = flags.DEFINE_integer("epochs", 30, "Passes over the training images.")
RATE = flags.DEFINE_float("rate", 0.02, "Largest learning rate; it falls by a cosine to 0.")
SHARE = flags.DEFINE_float("share", 0.5, "Share of the loss that follows the dense network.")
TEMPERATURE = flags.DEFINE_float("temperature", 3.0, "Temperature of the distillation.")
FEATURES = flags.DEFINE_float("features", 0.0, "Weight of the features.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the batches and the refit.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the checkpoint.", required=True)

_MOMENTUM, _DECAY = 0.9, 5e-4


def main(argv):
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    case = cases.load("resnet56", DATA.value)
    graph = amc_tf.analyze(case.model)
    plan = plans.load(PLAN.value)
    refit = REFITS[SearchSettings().final_refit](graph, [case.calibration], SEED.value)
    small = amc_tf.rebuild(case.model, graph, plan, refit.refit(plan))
    keras.utils.set_random_seed(SEED.value)  # of the augmentation
    images = cifar10.augmented(*cases.cifar10_train(DATA.value), 128, seed=SEED.value)
    recipe = amc_tf.distill(
        images,
        EPOCHS.value,
        SHARE.value,
        temperature=TEMPERATURE.value,
        features=FEATURES.value,
        rate=RATE.value,
        optimizer=keras.optimizers.SGD(momentum=_MOMENTUM, nesterov=True, weight_decay=_DECAY),
        backup=workdir / "checkpoint",
    )
    task = amc_tf.Task(
        train=images,
        validation=case.validation,
        test=case.test,
        compile=cifar10.compile,
        fine_tune=recipe,
        calibration=case.calibration,
        batch_size=case.batch_size,
    )

    def accuracy(model: keras.Model) -> float:
        return task.score(task.compiled(model, case.model), task.test)

    before = accuracy(small)
    print(f"before: {before:.4f}", flush=True)
    start = time.monotonic()
    features = amc_tf.features(graph, plan) if FEATURES.value else ()
    settings = amc_tf.FineTuneSettings(seed=SEED.value, keep="last")
    amc_tf.fine_tune(small, case.model, task, settings, features=features)
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
            "share": SHARE.value,
            "temperature": TEMPERATURE.value,
            "features": FEATURES.value,
            "seed": SEED.value,
            "before": before,
            "after": after,
            "accuracy": after,
            "dense": accuracy(case.model),
            "seconds_since_the_last_resumption": round(time.monotonic() - start),
        },
    )


if __name__ == "__main__":
    app.run(main)
