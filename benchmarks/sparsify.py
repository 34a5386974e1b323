"""Fine-grained pruning of ResNet-56 on CIFAR-10 in the paper's rounds of pruning and fine-tuning.

    python benchmarks/sparsify.py --data=DIR --workdir=DIR --epochs=8,8,8,30

The agent searches the density of every kernel, the smallest weights become zero, and the others are
refitted. Then the recipe of configs/cifar10.py trains them on the 45,000 images on which no reward
is measured; half of the loss follows the dense network's outputs. An epoch is `--batches` batches
of 128 images. `--workdir` holds the search's log, the model of each round and a checkpoint of each
epoch: the same command resumes. Test images decide nothing.
"""

from __future__ import annotations

import pathlib
import sys
import time

import numpy as np
from absl import app, flags
from common import cases, record

import amc_tf
from amc_tf.search.settings import SearchSettings
from amc_tf.sparsity.rounds import sparsify
from amc_tf.sparsity.settings import SparsitySettings

sys.path.insert(0, str(record.HERE.parent / "configs"))
import cifar10  # noqa: E402  the recipe that users get

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of logs and checkpoints.", required=True)
DENSITIES = flags.DEFINE_list("densities", ["0.5", "0.35", "0.25", "0.2"], "One for each round.")
EPOCHS = flags.DEFINE_list("epochs", ["8", "8", "8", "30"], "Epochs of fine-tuning in each round.")
BATCHES = flags.DEFINE_integer("batches", 351, "Batches of an epoch, 128 images each; 351: all.")
RATE = flags.DEFINE_float("rate", 0.01, "First learning rate of a round; it falls to 0.")
EPISODES = flags.DEFINE_integer("episodes", 100, "Episodes of the agent in each round.")
REWARD_IMAGES = flags.DEFINE_integer("reward_images", 2000, "Images that score a plan.")
TEST_IMAGES = flags.DEFINE_integer("test_images", 10_000, "Test images, evenly spaced.")
REFIT = flags.DEFINE_bool("refit", True, "Refit by least squares before fine-tuning.")
PRECISION = flags.DEFINE_string("precision", "float32", "A dtype policy to train in.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of search, refit and training.")


def main(argv):
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    case = cases.load("resnet56", DATA.value)
    teacher = cases.load("resnet56", DATA.value).model
    train = cases.cifar10_train(DATA.value)
    chosen = np.linspace(0, len(case.test[0]) - 1, TEST_IMAGES.value).astype(int)
    test = case.test[0][chosen], case.test[1][chosen]
    epochs = [int(e) for e in EPOCHS.value]

    def fine_tune(model):
        done = len(list(workdir.glob("round?.keras")))
        backup = workdir / f"checkpoint{done + 1}"
        cifar10.fit(
            model,
            train,
            epochs[done],
            RATE.value,
            teacher,
            backup=backup,
            batches=BATCHES.value,
            jit_compile=False,
            precision=PRECISION.value,
        )

    task = amc_tf.Task(
        train=train,
        validation=tuple(np.asarray(a)[: REWARD_IMAGES.value] for a in case.validation),
        test=test,
        compile=cifar10.compile,
        fine_tune=fine_tune,
        calibration=case.calibration,
        batch_size=case.batch_size,
    )
    start = time.monotonic()
    densities = tuple(float(d) for d in DENSITIES.value)
    result = sparsify(
        case.model,
        task,
        workdir,
        SparsitySettings(densities=densities, refit=REFIT.value),
        SearchSettings(episodes=EPISODES.value, seed=SEED.value, policies=("uniform",)),
    )
    record.append(
        "sparsify",
        {
            "network": "resnet56",
            "epochs": epochs,
            "batches": BATCHES.value,
            "rate": RATE.value,
            "precision": PRECISION.value,
            "seed": SEED.value,
            "refit": REFIT.value,
            "densities": densities,
            "test_images": TEST_IMAGES.value,
            **result,
            "seconds_since_the_last_resumption": round(time.monotonic() - start),
        },
    )


if __name__ == "__main__":
    app.run(main)
