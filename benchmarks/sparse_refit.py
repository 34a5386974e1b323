"""ResNet-56 on CIFAR-10 at several densities, as cut and refitted, without training.

    python benchmarks/sparse_refit.py --data=DIR --densities=0.5,0.35,0.25,0.2

Every kernel keeps the same share of its weights, the largest; the refit of `amc-sparsify` restores
them on 2,000 training images without labels. Accuracy on evenly spaced test images.
"""

from __future__ import annotations

import time

import numpy as np
from absl import app, flags
from common import cases, record

import amc_tf
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.sparsity.kernels import STEPS, kernels
from amc_tf.sparsity.masks import MagnitudeMasks
from amc_tf.sparsity.plan import DensityPlan
from amc_tf.sparsity.refit import SparseReconstruction

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
DENSITIES = flags.DEFINE_list("densities", ["0.5", "0.35", "0.25", "0.2"], "Of the kernels.")
TEST_IMAGES = flags.DEFINE_integer("test_images", 10_000, "Images that are scored.")
CALIBRATION = flags.DEFINE_integer("calibration_images", 2000, "Images of the refit.")


def main(argv):
    del argv
    case = cases.load("resnet56", DATA.value)
    graph = amc_tf.analyze(case.model)
    chosen = np.linspace(0, len(case.test[0]) - 1, TEST_IMAGES.value).astype(int)
    task = case.task((case.test[0][chosen], case.test[1][chosen]))
    cut = fastest_scorer(graph, task, MagnitudeMasks(graph))
    start = time.monotonic()
    refitted = cut.refitted_by(
        SparseReconstruction(graph, [case.calibration[: CALIBRATION.value]], seed=0)
    )
    dense = cut(None)
    rows = []
    for density in map(float, DENSITIES.value):
        plan = DensityPlan(steps={k.name: round(density * STEPS) for k in kernels(graph)})
        rows.append({"density": density, "cut": cut(plan), "refitted": refitted(plan)})
        print(rows[-1], flush=True)
    record.append(
        "sparse_refit",
        {
            "network": "resnet56",
            "test_images": TEST_IMAGES.value,
            "calibration_images": CALIBRATION.value,
            "dense": dense,
            "rows": rows,
            "seconds": round(time.monotonic() - start),
        },
    )


if __name__ == "__main__":
    app.run(main)
