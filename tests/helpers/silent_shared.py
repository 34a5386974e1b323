"""What several cases start from: a trained model, and finished runs of it.

The first case that needs one makes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import blobs
import forked_agents
import keras
import tensorflow as tf
from silent_judge import Bench, Case, Verdict, judged
from silent_tasks import HALF, classification, compile_model, dense, searching, settings

import amc_tf

FINISHED, SHUFFLED, TAYLOR, FITTED = "finished", "shuffled", "taylor", "fitted"


def shuffled() -> amc_tf.Task:
    """Training data as examples have it: a dataset that is shuffled without a seed."""
    tf.random.set_seed(int.from_bytes(os.urandom(4), "little"))  # as in another process
    data = tf.data.Dataset.from_tensor_slices(blobs.data(400, 0)).shuffle(400).batch(32)
    return classification(train=data, calibration_size=8)


def long_search(**changes) -> amc_tf.SearchSettings:
    return searching(episodes=12, policies=("amc", "random", "uniform"), **changes)


def fit(workdir: pathlib.Path, model: keras.Model, data=None) -> amc_tf.Compressor:
    """The `fit` of the shared run, with another model or other data."""
    small = amc_tf.Compressor(model, HALF, workdir, settings())
    small.fit(
        *(data or blobs.data(200, 0)), epochs=1, validation_data=blobs.data(100, 1), verbose=0
    )
    return small


def fresh(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = blobs.model()
    compile_model(model)
    return model


def finished_settings() -> amc_tf.Settings:
    """A run with a network for comparison, which leaves all kinds of product."""
    return settings(finetune=amc_tf.FineTuneSettings(compare=("uniform",)))


def _trained(bench: Bench, path: pathlib.Path) -> None:
    del bench
    blobs.trained().save(path)


def _finished(bench: Bench, path: pathlib.Path) -> None:
    amc_tf.compress(dense(bench), classification(), HALF, path, finished_settings())


def _shuffled(bench: Bench, path: pathlib.Path) -> None:
    amc_tf.search_plan(dense(bench), shuffled(), HALF, path, long_search())


def _taylor(bench: Bench, path: pathlib.Path) -> None:
    search = long_search(importance="taylor")
    amc_tf.search_plan(dense(bench), shuffled(), HALF, path, search)


def _fitted(bench: Bench, path: pathlib.Path) -> None:
    del bench
    fit(path, fresh())


MAKERS = {
    "blobs.keras": _trained,
    FINISHED: _finished,
    SHUFFLED: _shuffled,
    TAYLOR: _taylor,
    FITTED: _fitted,
}


@contextlib.contextmanager
def bench_of(root: pathlib.Path) -> Iterator[Bench]:
    """Yields a bench whose folder holds those of the cases."""
    (root / "shared").mkdir(parents=True)
    with forked_agents.Agents(root / "agents") as agents:
        yield Bench(root / "cases", root / "shared", agents.path, MAKERS)


def run(case: Case, bench: Bench, number: int) -> Verdict:
    """Runs a case in a folder of its own."""
    folder = bench.folder / f"{case.section}{number:03d}"
    os.makedirs(bench.folder, exist_ok=True)
    return judged(case, dataclasses.replace(bench, folder=folder))
