"""Peak memory of a search by the size of its validation data.

    python benchmarks/memory.py --workdir=DIR

For each size and form, validation data is written to a file in --workdir, and a fresh process runs
a whole search on it: the check of the data, the dense network's score, three episodes of the agent
and the rebuilt networks' scores. Reported is the process's largest resident memory (`ru_maxrss`),
without that of the agent's own process. Forms: `arrays` is an `np.memmap`, `dataset` a
`tf.data.Dataset` of its batches, of known length. The network is a small one, so that the data and
not the activations take the memory.
"""

from __future__ import annotations

import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from common import record

WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the data, removed at the end.")
SIZES = flags.DEFINE_list("megabytes", ["200", "1000", "4000"], "Sizes of the validation data.")
FORMS = flags.DEFINE_list("forms", ["arrays", "dataset"], "Forms of the data.")
EPISODES = flags.DEFINE_integer("episodes", 3, "Episodes of the search.")
CHILD = flags.DEFINE_string("child", None, "FORM,FILE,IMAGES: one search, in this process.")

SHAPE = (128, 128, 3)
IMAGE_BYTES = 4 * 128 * 128 * 3


def written(path: pathlib.Path, images: int) -> None:
    """Writes images of noise; a block of them repeats."""
    block = np.random.default_rng(0).normal(0, 1, (64, *SHAPE)).astype("float32")
    with open(path, "wb") as file:
        for start in range(0, images, 64):
            file.write(block[: images - start].tobytes())


def search(form: str, path: str, images: int, workdir: str) -> float:
    """Runs a search and returns the seconds it took."""
    import keras
    import tensorflow as tf

    import amc_tf

    x = np.memmap(path, "float32", "r", shape=(images, *SHAPE))
    y = np.arange(images) % 3
    data = (x, y)
    if form == "dataset":
        batches = [slice(start, start + 64) for start in range(0, images, 64)]

        def read(part):
            # Not by the map, whose pages would count as memory of this process.
            count = min(part.stop, images) - part.start
            offset = part.start * IMAGE_BYTES
            flat = np.fromfile(path, "float32", count * IMAGE_BYTES // 4, offset=offset)
            return flat.reshape(count, *SHAPE)

        data = tf.data.Dataset.from_generator(
            lambda: ((read(part), y[part]) for part in batches),
            output_signature=(tf.TensorSpec((None, *SHAPE)), tf.TensorSpec((None,), tf.int64)),
        ).apply(tf.data.experimental.assert_cardinality(len(batches)))
    few = (np.array(x[:256]), y[:256])
    inputs = keras.Input(SHAPE)
    h = keras.layers.Conv2D(8, 8, strides=8, activation="relu")(inputs)
    h = keras.layers.Conv2D(8, 3, activation="relu")(h)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(h))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    settings = amc_tf.SearchSettings(
        episodes=EPISODES.value,
        rounding=1,
        policies=("amc",),
        refit="dense",
        final_refit="dense",
        ddpg=amc_tf.DdpgSettings(warmup_episodes=1, batch_size=8, decay_episodes=2),
    )
    task = amc_tf.Task(few, data, batch_size=64, calibration_size=128)
    start = time.monotonic()
    amc_tf.Compression(
        model, task, amc_tf.Budget(macs=0.5), workdir, amc_tf.Settings(search=settings)
    ).search()
    return time.monotonic() - start


def measured(form: str, megabytes: int, folder: pathlib.Path) -> dict:
    """Measures one search in a fresh process."""
    images = megabytes * 10**6 // IMAGE_BYTES
    path = folder / "images"
    written(path, images)
    run = folder / "run"
    # This process stays small: the peak of a child counts what its parent held at the fork.
    command = [sys.executable, __file__, f"--child={form},{path},{images}", f"--workdir={run}"]
    process = subprocess.run(
        [*command, f"--episodes={EPISODES.value}"], stdout=subprocess.PIPE, text=True, check=True
    )
    path.unlink()
    shutil.rmtree(run)
    seconds, peak = process.stdout.split()[-2:]
    row = {"form": form, "megabytes": megabytes, "images": images}
    return row | {"peak_mib": round(int(peak) / 1024), "seconds": round(float(seconds), 1)}


def main(argv):
    del argv
    if CHILD.value:
        form, path, images = CHILD.value.split(",")
        seconds = search(form, path, int(images), WORKDIR.value)
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    rows = []
    pathlib.Path(WORKDIR.value).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORKDIR.value) as folder:
        for form in FORMS.value:
            for megabytes in SIZES.value:
                rows.append(measured(form, int(megabytes), pathlib.Path(folder)))
                print(rows[-1], flush=True)
    record.append("memory", {"episodes": EPISODES.value, "rows": rows})


if __name__ == "__main__":
    app.run(main)
