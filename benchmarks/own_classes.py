"""The user's case: a pretrained network trained on ten classes of one's own, then made small.

    python benchmarks/own_classes.py --data=DIR --workdir=DIR

Ten classes of CIFAR-10, of which `--images` are the user's training images, enlarged to `--size`
pixels. A network that was trained on ImageNet gets a new head and is trained on them. For each
share of its latency on this host, amc_tf then searches, fine-tunes by `amc_tf.distill` and exports.
Its opponents have the latency of the uniform plan of the same budget: that plan itself, refitted
and fine-tuned alike (`uniform`), and a network of the same widths with new weights, trained by the
same recipe, at the rate of `--narrow_rate`, for all epochs that the others had (`narrow`; nobody
has its weights on ImageNet). Where the pretrained network's batch norms are folded into its
kernels, the narrow one gets new ones, as no network learns well from new weights without.

All files are timed in turn in one run, on one thread. Accuracies are of the test images, those of
files by LiteRT. Everything is kept in `--workdir`: the same command resumes.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import cases, record

import amc_tf
import tflite_tools
from amc_tf.runs import layout
from amc_tf.runs.result import RunResult

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "efficientnet_lite0", "A network of ImageNet.")
SHARES = flags.DEFINE_multi_float("share", [0.5, 0.33, 0.2], "Shares of the dense latency.")
IMAGES = flags.DEFINE_integer("images", 10_000, "Training images.")
TESTED = flags.DEFINE_integer("tested", 10_000, "Test images.")
SIZE = flags.DEFINE_integer("size", 96, "Pixels of a side.")
DENSE_EPOCHS = flags.DEFINE_integer("dense_epochs", 5, "Passes of the dense network's training.")
EPOCHS = flags.DEFINE_integer("epochs", 10, "Passes of each fine-tuning.")
EPISODES = flags.DEFINE_integer("episodes", 40, "Episodes of a search.")
RATE = flags.DEFINE_float("rate", 0.01, "Largest learning rate (SGD with momentum).")
NARROW_RATE = flags.DEFINE_float("narrow_rate", 0.05, "The same where all weights are new.")
NARROW = flags.DEFINE_bool("narrow", True, "Train the narrow network, too.")
ROUNDS = flags.DEFINE_integer("rounds", 9, "Series in which each file is timed.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of everything.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all that is made.", required=True)

_FORMATS = ("float32", "int8")
_VALIDATION, _CALIBRATION = 1000, 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Ours:
    """The user's images, as datasets (pixels from 0 to 255, labels), and the recipe."""

    train: tf.data.Dataset
    validation: tuple[np.ndarray, np.ndarray]
    test: tf.data.Dataset
    calibration: np.ndarray

    @classmethod
    def load(cls, folder: str | None) -> Ours:
        """Reads CIFAR-10; the validation images are others of its training images."""
        (x, y), (test_x, test_y) = cases.cifar10_train(folder), cases.cifar10_test(folder)
        order = np.random.default_rng(SEED.value).permutation(len(x))
        if IMAGES.value + _VALIDATION > len(x):
            raise app.UsageError(f"expected at most {len(x) - _VALIDATION} --images")
        used, held = order[: IMAGES.value], order[IMAGES.value : IMAGES.value + _VALIDATION]
        train = tf.data.Dataset.from_tensor_slices((x[used], y[used]))
        train = train.shuffle(len(used), seed=SEED.value).batch(64, drop_remainder=True)
        test = tf.data.Dataset.from_tensor_slices((test_x, test_y)).take(TESTED.value)
        flip = keras.layers.RandomFlip("horizontal", seed=SEED.value)
        shift = keras.layers.RandomTranslation(0.12, 0.12, fill_mode="nearest", seed=SEED.value)
        return cls(
            train.map(lambda a, b: (_enlarged(shift(flip(tf.cast(a, "float32")))), b)),
            (_enlarged(x[held]).numpy(), y[held]),
            test.batch(100).map(lambda a, b: (_enlarged(a), b)),
            _enlarged(x[used[:_CALIBRATION]]).numpy(),
        )

    def task(self, recipe: amc_tf.Recipe) -> amc_tf.Task:
        return amc_tf.Task(
            train=self.train,
            validation=self.validation,
            test=self.test,
            compile=_compiled,
            fit=recipe,
            calibration=self.calibration,
            batch_size=100,
        )


def _enlarged(images) -> tf.Tensor:
    return tf.image.resize(tf.cast(images, tf.float32), (SIZE.value, SIZE.value))


def _compiled(model: keras.Model) -> None:
    optimizer = keras.optimizers.SGD(RATE.value, momentum=0.9, nesterov=True, weight_decay=1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])


def _with_new_head(pretrained: keras.Model) -> keras.Model:
    """Returns a network of ten classes that begins with the layers of one of ImageNet."""
    inputs = keras.Input((SIZE.value, SIZE.value, 3), name="pixels")
    copied = keras.models.clone_model(pretrained, input_tensors=inputs)
    copied.set_weights(pretrained.get_weights())
    (pooling,) = [x for x in copied.layers if isinstance(x, keras.layers.GlobalAveragePooling2D)]
    features = pooling.output
    if len(features.shape) == 4:  # kept dimensions
        features = keras.layers.Flatten()(features)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(features), name="own_classes")


def _trained(model: keras.Model, path: pathlib.Path, task: amc_tf.Task) -> keras.Model:
    """Returns a network after the task's training, from its file if there is one."""
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(SEED.value)
    _compiled(model)
    task.fit(model)
    model.save(path.with_suffix(".partial.keras"))
    path.with_suffix(".partial.keras").replace(path)
    return model


def _normalised(layer: keras.Layer, *args, **kwargs):
    """Calls a layer, and after a convolution a new batch norm, too."""
    called = layer(*args, **kwargs)
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        called = keras.layers.BatchNormalization(name=f"{layer.name}_norm")(called)
    return called


def _narrow(
    uniform: keras.Model, dense: keras.Model, path: pathlib.Path, ours: Ours
) -> keras.Model:
    """Returns a network of the same widths, new but for the epochs that the others had, too."""
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(SEED.value)
    normalised = any(isinstance(x, keras.layers.BatchNormalization) for x in uniform.layers)
    model = keras.models.clone_model(uniform, call_function=None if normalised else _normalised)
    recipe = amc_tf.distill(
        ours.train,
        DENSE_EPOCHS.value + EPOCHS.value,
        rate=NARROW_RATE.value,
        backup=path.with_suffix(".backup"),
    )
    task = ours.task(recipe)
    amc_tf.fine_tune(model, dense, task, amc_tf.FineTuneSettings(seed=SEED.value, keep="last"))
    model.save(path.with_suffix(".partial.keras"))
    path.with_suffix(".partial.keras").replace(path)
    return model


def _compressed(dense: keras.Model, share: float, folder: pathlib.Path, ours: Ours) -> RunResult:
    """Runs amc_tf within a share of the latency."""
    settings = amc_tf.Settings(
        search=amc_tf.SearchSettings(
            episodes=EPISODES.value, policies=("amc", "uniform"), seed=SEED.value
        ),
        finetune=amc_tf.FineTuneSettings(compare=("amc", "uniform"), seed=SEED.value),
        export=amc_tf.ExportSettings(formats=_FORMATS, latency_rounds=0),
        latency=amc_tf.LatencySettings(table=str(folder.parent / "latency.sqlite")),
    )
    task = ours.task(amc_tf.distill(ours.train, EPOCHS.value))
    amc_tf.compress(dense, task, amc_tf.Budget(latency=share), folder, settings)
    return RunResult.read(folder)


def _finetuned(folder: pathlib.Path, result: RunResult, policy: str) -> keras.Model:
    chosen = result.chosen == policy
    file = layout.FINETUNED if chosen else layout.finetuned_file(policy)
    return keras.models.load_model(folder / file.name)


def _exported(
    name: str, model: keras.Model, dense: keras.Model, task: amc_tf.Task, workdir: pathlib.Path
) -> Mapping[str, dict]:
    """Exports a network; returns accuracy and bytes of each file, by format."""
    found = {}
    settings = amc_tf.ExportSettings(latency_rounds=0, tolerance=1.0)
    for form in _FORMATS:
        file = amc_tf.export_tflite(
            model, dense, task, form, workdir / f"{name}_{form}.tflite", settings
        )
        found[form] = {"accuracy": file.score, "bytes": file.bytes}
    return found


def main(argv):
    del argv
    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    ours = Ours.load(DATA.value)
    pretrained = cases.load(NETWORK.value, DATA.value).model
    keras.utils.set_random_seed(SEED.value)
    first = amc_tf.Recipe(ours.train, DENSE_EPOCHS.value, backup=workdir / "dense.backup")
    task = ours.task(first)
    dense = _trained(_with_new_head(pretrained), workdir / "dense.keras", task)
    del pretrained
    networks, about = {"dense": dense}, {"dense": {}}
    for share in SHARES.value:
        folder = workdir / f"latency_{share:g}"
        result = _compressed(dense, share, folder, ours)
        made = {name: _finetuned(folder, result, name) for name in ("amc", "uniform")}
        if NARROW.value:
            narrow = workdir / f"narrow_{share:g}.keras"
            made["narrow"] = _narrow(made["uniform"], dense, narrow, ours)
        for policy, network in made.items():
            networks[f"{policy}_{share:g}"] = network
            about[f"{policy}_{share:g}"] = {"share": share, "policy": policy}
        about[f"amc_{share:g}"]["chosen"] = result.chosen
    rows = {}
    for name, network in networks.items():
        costs = amc_tf.analyze(network)
        rows[name] = {
            **about[name],
            "macs": amc_tf.macs(costs),
            "params": amc_tf.params(costs),
            "files": _exported(name, network, dense, task, workdir),
        }
    paths = {(n, f): workdir / f"{n}_{f}.tflite" for n in networks for f in _FORMATS}
    contents = {f"{n} {f}": path.read_bytes() for (n, f), path in paths.items()}
    times = tflite_tools.open_device("host", rounds=ROUNDS.value).measure_all(contents)
    base = np.array(times["dense float32"].rounds_ms)
    for name, form in paths:
        ratios = np.array(times[f"{name} {form}"].rounds_ms) / base
        rows[name]["files"][form] |= {
            "latency_ratio": float(np.median(ratios)),
            "latency_ratio_range": [float(ratios.min()), float(ratios.max())],
        }
    record.append(
        "own_classes",
        {
            "network": NETWORK.value,
            "images": IMAGES.value,
            "test_images": TESTED.value,
            "size": SIZE.value,
            "dense_epochs": DENSE_EPOCHS.value,
            "epochs": EPOCHS.value,
            "episodes": EPISODES.value,
            "rate": RATE.value,
            "narrow_rate": NARROW_RATE.value,
            "seed": SEED.value,
            "networks": rows,
        },
    )


if __name__ == "__main__":
    app.run(main)
