"""Seconds of an episode by its parts, against the least time to run the network (the floor).

    python benchmarks/episode.py --data=DIR --network=resnet56 --episodes=5

Networks: resnet56 (5,000 CIFAR-10 images split off the training set), mobilenet_v1 (0.75 at 192,
634 ImageNet images), mobilenet_v1_224 (1.0 at 224, random weights, 1,000 images of noise). The
floor of an episode is the time of the dense network's TFLite file at a static batch over the same
images, times the plan's share of the MACs. A fifth of the images is run through the dense network
before each episode, so that both are timed under the same load. This floor is for the engine that
scores plans, with an interpreter for each thread. `score_refit_over_usual_floor` is relative to one
interpreter with all threads at the same static batch, the usual way of running a file. The
floor is of all images, though a search scores its episodes on part of them (`--samples`, by default
as searches do; 0 for all): `score_refit_over_scored_floor` is relative to the floor of that part.
The default refit solves from statistics of the dense network; `--refit=quick_in_order`, the default
of searches, runs the pruned network over a few images. All parts use the same number of processors,
`threads`, and memory is kept as the commands keep it. Run it when the machine is idle.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import resource
import statistics
import tempfile
import time

import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from common import cases, record

import amc_tf
from amc_tf.cli import memory
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.pruning.refit.runner import RunByOthers
from amc_tf.scoring.batch_norm_folding import fold
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.scoring.tflite_engine import LiteEngine, LiteNetwork
from amc_tf.search.agents.ddpg.process import DdpgSearcher
from amc_tf.search.env.problem import NUM_FEATURES
from amc_tf.search.problem import environment, problem_of
from amc_tf.search.settings import SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
EPISODES = flags.DEFINE_integer("episodes", 5, "Episodes that are timed.")
REFIT = flags.DEFINE_string("refit", "dense", "Refit before a plan is scored.")
ROUNDING = flags.DEFINE_integer("rounding", None, "Multiples of channels; default: the network's.")
SAMPLES = flags.DEFINE_integer("samples", None, "Images an episode is scored on; 0 for all.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the agent.")


class Clock:
    """A clock that adds up seconds by label."""

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

    def run_by(self, make):
        if not isinstance(self._refit, RunByOthers):
            return self
        return TimedRefit(self._refit.run_by(make), self._clock)


def dense_seconds(network: LiteNetwork, images: np.ndarray) -> float:
    start = time.perf_counter()
    network([images[: len(images) // 5]])
    return 5 * (time.perf_counter() - start)


def usual_seconds(interpreter: Interpreter, images: np.ndarray) -> float:
    detail = interpreter.get_input_details()[0]
    size = detail["shape"][0]
    few = images[: len(images) // 5 // size * size]
    start = time.perf_counter()
    for batch in few.reshape(-1, size, *images.shape[1:]):
        interpreter.set_tensor(detail["index"], batch)
        interpreter.invoke()
        interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return (time.perf_counter() - start) * len(images) / len(few)


def study(
    name: str, case: cases.Case, refit_name: str, episodes: int, rounding: int | None, seed: int
) -> dict:
    images, task = case.validation[0], case.task()
    settings = SearchSettings(
        seed=seed, rounding=rounding or case.rounding, ddpg=amc_tf.DdpgSettings(warmup_episodes=2)
    )
    set_up, clock = Clock(), Clock()
    with tempfile.TemporaryDirectory() as log, set_up("all"):
        graph = amc_tf.analyze(case.model)
        agent = DdpgSearcher(settings.ddpg, NUM_FEATURES, seed, pathlib.Path(log, "agent.log"))
        with agent:
            with set_up("statistics"):
                refit = REFITS[refit_name](graph, [case.calibration], seed)
            with set_up("scorer"):
                score = fastest_scorer(graph, task, TimedRefit(refit, clock), compare=True)
                score(None)  # with whose outputs those of plans are compared
                samples = SAMPLES.value
                samples = settings.episode_samples if samples is None else samples
                score = score.on_part(samples) if samples else score
            problem = problem_of(graph, settings)
            env = environment(problem, amc_tf.Budget(macs=0.5), settings)
            folding = fold(graph)
            engine = LiteEngine(folding.graph, fixed=folding.fixed)
            dense = engine.network(None)
            usual = Interpreter(model_content=engine.file(None), num_threads=os.cpu_count())
            usual.allocate_tensors()
            floors, usual_floors, rows = [], [], []
            # The first training, which waits for a batch of transitions, is slow: it is not timed.
            untimed = 2 + math.ceil(settings.ddpg.batch_size / len(env))
            for _ in range(untimed + episodes):
                floors.append(dense_seconds(dense, images))
                usual_floors.append(usual_seconds(usual, images))
                if len(rows) == untimed:
                    clock.seconds.clear()
                rows.append(run(env, agent, score, clock))
    rows, floors, usual_floors = rows[untimed:], floors[untimed:], usual_floors[untimed:]
    floor = statistics.mean(floors)
    share = statistics.mean(row["macs"] for row in rows) / amc_tf.macs(graph)
    each = {label: seconds / episodes for label, seconds in clock.seconds.items()}
    score_refit, scored = each["finish"], score.images or len(images)
    total = statistics.mean(row["seconds"] for row in rows)
    return {
        "network": name,
        "refit": refit_name,
        "rounding": rounding,
        "seed": seed,
        "episodes": episodes,
        "images": len(images),
        "scored_images": scored,
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
        "score_refit_over_scored_floor": score_refit / (floor * share * scored / len(images)),
        "score_refit_over_usual_floor": score_refit / (statistics.mean(usual_floors) * share),
        "agent_ms_per_decision": 1000 * each["agent"] / len(graph.groups),
        "set_up_seconds": set_up.seconds["statistics"] + set_up.seconds["scorer"],
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(env, agent, score, clock: Clock) -> dict:
    start = time.perf_counter()
    state = env.reset()
    while state is not None:
        with clock("agent"):
            action = agent.act(state)
        state, _ = env.step(action)
    with clock("finish"):
        decided = env.finish()
        outcome = env.outcome(decided, score(decided.plan))
    with clock("agent"):
        agent.finish(outcome.actions, outcome.reward)
    return {"seconds": time.perf_counter() - start, "macs": outcome.macs}


def main(argv):
    del argv
    memory.keep_freed()
    case = cases.load(NETWORK.value, DATA.value)
    what = (flag.value for flag in (REFIT, EPISODES, ROUNDING, SEED))
    record.append("episode", study(NETWORK.value, case, *what))


if __name__ == "__main__":
    app.run(main)
