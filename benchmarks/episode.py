"""Seconds of an episode, by what they are spent on, against the floor of running the network.

    python benchmarks/episode.py --data=DIR --network=resnet56 --episodes=5

Networks: resnet56 (5,000 CIFAR-10 images split off the training set), mobilenet_v1 (0.75 at 192,
634 ImageNet images), mobilenet_v1_224 (1.0 at 224, random weights, 1,000 images of noise). The
floor of an episode is the time of the dense network's TFLite file at a static batch over the same
images, times the plan's share of the MACs. A fifth of the images is run through the dense network
before each episode, so that both see the same machine. Run it when the machine is idle. `threads`
processors are used by all parts alike.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import statistics
import tempfile
import time

import keras
import numpy as np
import record
from absl import app, flags

import amc_tf
from amc_tf.agent import DdpgSearcher
from amc_tf.env import NUM_FEATURES
from amc_tf.evaluate import scorer
from amc_tf.folding import fold
from amc_tf.lite import LiteEngine, LiteNetwork
from amc_tf.refit import REFITS
from amc_tf.search import SearchSettings, environment

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "resnet56, mobilenet_v1, mobilenet_v1_224.")
EPISODES = flags.DEFINE_integer("episodes", 5, "Episodes that are timed.")
SEED = flags.DEFINE_integer("seed", 0, "Of the agent.")


class Clock:
    """Seconds by label."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, label: str):
        start = time.perf_counter()
        yield
        self.seconds[label] = self.seconds.get(label, 0) + time.perf_counter() - start


class TimedRefit:
    """A refit whose seconds are counted."""

    def __init__(self, refit, clock: Clock):
        self._refit, self._clock = refit, clock

    def refit(self, plan):
        with self._clock("refit"):
            return self._refit.refit(plan)


def resnet56(folder: pathlib.Path):
    with np.load(folder / "cifar10.npz") as arrays:
        x, y = arrays["x_train"], arrays["y_train"].reshape(-1).astype("int32")
    chosen = np.random.default_rng(0).permutation(len(x))
    scored, statistics_of = chosen[:5000], chosen[5000:7000]
    return (
        keras.models.load_model(folder / "resnet56_cifar10.keras"),
        (x[scored].astype("float32"), y[scored]),
        x[statistics_of].astype("float32"),
    )


def mobilenet_v1(folder: pathlib.Path):
    def images(part: str):
        data = keras.utils.image_dataset_from_directory(
            folder / "imagenet_val" / part, image_size=(192, 192), shuffle=False, verbose=False
        )
        x, y = zip(*data.as_numpy_iterator(), strict=True)
        return np.concatenate(x), np.concatenate(y) + 1

    return (
        keras.models.load_model(folder / "mobilenet_v1_075_192.keras"),
        images("validation"),
        images("calibration")[0],
    )


def mobilenet_v1_224(folder: pathlib.Path):
    del folder
    rng = np.random.default_rng(0)
    x = rng.random((1000, 224, 224, 3), np.float32)
    model = keras.applications.MobileNet(weights=None, classifier_activation=None)
    return model, (x, rng.integers(0, 1000, len(x)).astype("int32")), x[:600]


NETWORKS = {f.__name__: f for f in (resnet56, mobilenet_v1, mobilenet_v1_224)}


def dense_seconds(network: LiteNetwork, images: np.ndarray) -> float:
    start = time.perf_counter()
    network([images[: len(images) // 5]])
    return 5 * (time.perf_counter() - start)


def study(name: str, folder: pathlib.Path, episodes: int, seed: int) -> dict:
    model, validation, calibration = NETWORKS[name](folder)
    task = amc_tf.Task(
        train=validation,
        validation=validation,
        compile=lambda m: m.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"]),
        batch_size=256,
    )
    # Of three episodes that are not timed the last one trains for the first time.
    settings = SearchSettings(seed=seed, ddpg=amc_tf.DdpgSettings(warmup_episodes=2))
    set_up, clock = Clock(), Clock()
    with tempfile.TemporaryDirectory() as log, set_up("all"):
        graph = amc_tf.analyze(model)
        agent = DdpgSearcher(settings.ddpg, NUM_FEATURES, seed, pathlib.Path(log, "agent.log"))
        with agent:
            with set_up("statistics"):
                refit = REFITS["dense"](graph, [calibration], seed)
            with set_up("scorer"):
                score = scorer(graph, task, TimedRefit(refit, clock))
            env = environment(graph, score, amc_tf.Budget(macs=0.5), settings)
            folding = fold(graph)
            dense = LiteEngine(folding.graph, fixed=folding.fixed).network(None)
            floors, rows = [], []
            for _ in range(episodes + 3):
                floors.append(dense_seconds(dense, validation[0]))
                if len(rows) == 3:
                    clock.seconds.clear()
                rows.append(run(env, agent, clock))
    rows, floors = rows[3:], floors[3:]
    floor = statistics.mean(floors)
    share = statistics.mean(row["macs"] for row in rows) / amc_tf.macs(graph)
    each = {label: seconds / episodes for label, seconds in clock.seconds.items()}
    score_refit = each["finish"]
    total = statistics.mean(row["seconds"] for row in rows)
    return {
        "network": name,
        "seed": seed,
        "episodes": episodes,
        "images": len(validation[0]),
        "groups": len(graph.groups),
        "threads": os.cpu_count(),
        "scorer": type(score).__name__,
        "dense_seconds": floors,
        "macs_share": share,
        "seconds_per_episode": total,
        "seconds": [row["seconds"] for row in rows],
        "refit_seconds": each["refit"],
        "score_seconds": score_refit - each["refit"],
        "agent_seconds": each["agent"],
        "rest_seconds": total - score_refit - each["agent"],
        "score_refit_over_floor": score_refit / (floor * share),
        "agent_ms_per_decision": 1000 * each["agent"] / len(graph.groups),
        "set_up_seconds": set_up.seconds["statistics"] + set_up.seconds["scorer"],
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(env, agent, clock: Clock) -> dict:
    start = time.perf_counter()
    state = env.reset()
    while state is not None:
        with clock("agent"):
            action = agent.act(state)
        state, _ = env.step(action)
    with clock("finish"):
        outcome = env.finish()
    with clock("agent"):
        agent.finish(outcome.actions, outcome.reward)
    return {"seconds": time.perf_counter() - start, "macs": outcome.macs}


def main(argv):
    del argv
    folder = pathlib.Path(DATA.value or os.environ.get("AMC_TF_DATA", "")).expanduser()
    record.append("episode", study(NETWORK.value, folder, EPISODES.value, SEED.value))


if __name__ == "__main__":
    app.run(main)
