"""Which reward ranks plans as a short fine-tuning does: ResNet-56 on CIFAR-10.

    python benchmarks/rank.py --data=DIR --plans=20 --steps=150 --workdir=DIR

Draws random plans at half the MACs, scores each before fine-tuning in every way of the table, and
correlates (Spearman) the scores with the accuracy after `steps` of fine-tuning, which start from
the strongest refit. The network has memorised the training images of the reward. So each score is
also taken on a distorted copy of them (shifted, mirrored, with noise and contrast that training
never showed). The accuracy after fine-tuning is that on the first half of the test images, which
decide nothing else. The same command resumes from `--workdir`. A plan takes about three minutes on
two cores.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time

import keras
import numpy as np
from absl import app, flags
from common import cases, record
from scipy import stats

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem

sys.path.insert(0, str(record.HERE.parent / "configs"))
import cifar10  # noqa: E402  the recipe that users get

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
PLANS = flags.DEFINE_integer("plans", 20, "Random plans.")
STEPS = flags.DEFINE_integer("steps", 150, "Steps of fine-tuning, 128 images each.")
PRECISION = flags.DEFINE_string("precision", "float32", "A dtype policy to train in.")
IMAGES = flags.DEFINE_integer("images", 2000, "Validation images.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of plans, distortions and batches.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the results so far.", required=True)

FEW = 500  # images of the variants with a smaller validation set


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


# Each maps (logits, labels, the dense network's logits) to a number; higher is better.
MEASURES = {
    "accuracy": lambda z, y, d: float(np.mean(z.argmax(1) == y)),
    "agreement": lambda z, y, d: float(np.mean(z.argmax(1) == d.argmax(1))),
    "cross-entropy": lambda z, y, d: float(log_softmax(z)[np.arange(len(y)), y].mean()),
    "divergence": lambda z, y, d: float(
        (np.exp(log_softmax(d)) * (log_softmax(z) - log_softmax(d))).sum(1).mean()
    ),
    "logits' distance": lambda z, y, d: -float(np.square(z - d).mean()),
}


def distorted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distorts images by shifts, mirroring, contrast and noise."""
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    rows, columns = rng.integers(0, 9, (2, len(images)))
    size = images.shape[1]
    moved = np.stack(
        [x[i : i + size, j : j + size] for x, i, j in zip(padded, rows, columns, strict=True)]
    )
    mirrored = rng.random(len(images)) < 0.5
    moved[mirrored] = moved[mirrored, :, ::-1]
    factor = rng.uniform(0.6, 1.4, (len(images), 1, 1, 1))
    noisy = (moved - 128) * factor + 128 + rng.normal(0, 12, moved.shape)
    return np.clip(noisy, 0, 255).astype("float32")


def main(argv):
    del argv
    case = cases.load("resnet56", DATA.value)
    train = cases.cifar10_train(DATA.value)
    graph = amc_tf.analyze(case.model)
    env = DecisionEnv(channel_problem(graph, rounding=1), amc_tf.Budget(macs=0.5))
    rng = np.random.default_rng(SEED.value)
    images, labels = (part[: IMAGES.value] for part in case.validation)
    splits = {"as they are": images, "distorted": distorted(images, rng)}
    judge = tuple(part[:5000] for part in case.test)
    refits = {name: make(graph, [case.calibration], SEED.value) for name, make in REFITS.items()}
    score = {
        split: fastest_scorer(graph, case.task((x, labels)), refits["none"])
        for split, x in splits.items()
    }
    dense = {split: score[split].outputs(None)[0] for split in splits}

    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    log = workdir / "rank.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for number in range(PLANS.value):
        wanted = rng.uniform(0.2, 1, len(env))
        plan = env.problem.plan(env.filled(wanted.tolist()))
        if number < len(rows):
            continue
        row, start = {}, time.monotonic()
        weights = {name: refit.refit(plan) for name, refit in refits.items()}
        for refit_name, known in weights.items():
            for split in splits:
                logits = score[split].refitted_by(Known(known)).outputs(plan)[0]
                for measure, of in MEASURES.items():
                    value = of(logits, labels, dense[split])
                    row[f"{refit_name} | {split} | {measure} | {len(images)}"] = value
                few = MEASURES["accuracy"](logits[:FEW], labels[:FEW], dense[split][:FEW])
                row[f"{refit_name} | {split} | accuracy | {FEW}"] = few
        small = amc_tf.rebuild(case.model, graph, plan, weights["in_order"])
        keras.utils.set_random_seed(SEED.value)
        cifar10.fit(small, train, 1, 0.01, batches=STEPS.value, precision=PRECISION.value)
        logits = small.predict(judge[0], batch_size=250, verbose=0)
        row["fine-tuned"] = float(np.mean(logits.argmax(1) == judge[1]))
        row["seconds"] = round(time.monotonic() - start)
        rows.append(row)
        with open(log, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(number, row["fine-tuned"], row["seconds"], flush=True)

    judged = [row["fine-tuned"] for row in rows]
    names = [name for name in rows[0] if name not in ("fine-tuned", "seconds")]
    record.append(
        "rank",
        {
            "network": "resnet56",
            "plans": len(rows),
            "steps": STEPS.value,
            "precision": PRECISION.value,
            "seed": SEED.value,
            "fine_tuned": {"least": min(judged), "most": max(judged)},
            "correlations": {
                name: correlation([row[name] for row in rows], judged, SEED.value) for name in names
            },
        },
    )


class Known:
    """A refit with weights that are known already."""

    def __init__(self, weights):
        self._weights = weights

    def refit(self, plan):
        """Returns the known weights."""
        del plan
        return self._weights


def correlation(values: list[float], judged: list[float], seed: int) -> list[float]:
    """Computes Spearman's correlation and the middle 90 % of its bootstrap over the plans."""
    rng = np.random.default_rng(seed)
    a, b = np.asarray(values), np.asarray(judged)
    draws = [stats.spearmanr(a[i], b[i]).statistic for i in rng.integers(0, len(a), (500, len(a)))]
    low, high = np.nanquantile(draws, [0.05, 0.95])
    return [round(float(v), 3) for v in (stats.spearmanr(a, b).statistic, low, high)]


if __name__ == "__main__":
    app.run(main)
