"""Every file format of a network, dense and pruned: accuracy, size and latency on this host.

    python benchmarks/export.py --data=DIR --network=resnet56 --plan=resnet56_0.5_amc_0 \
        --workdir=DIR
    python benchmarks/export.py --network=demo --formats=float32,int8,int8_qat --workdir=DIR

DIR holds resnet56_cifar10.keras with cifar10.npz, mobilenet_v1_075_192.keras and
efficientnet_lite0.keras with imagenet_val/{calibration,validation}/CLASS/*.JPEG. The demo's network
is that of configs/mnist.py, trained here and fine-tuned after pruning. So are mobilenet_v3 and vit,
of common/trained.py, on CIFAR-10, in half as many epochs after pruning. The others are only pruned
and refitted: their accuracy shows what a format costs, and not what pruning costs.

--plan names a plan of a search, by its file or a name of plans.tar.xz. Without it every group keeps
the same fraction of its channels, in multiples of 8, that brings the MACs to half. Files are in
--workdir, and the same command does not make them again. Dense and pruned files are timed in turn,
so that their ratios come from one run. --rounds=0 times nothing: on a busy machine, time in a later
call. XNNPACK has no kernels for int16x8, which takes many times as long as the rest: leave it out
of --formats, or score it on few --test_images.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from absl import app, flags
from common import cases, plans, record, trained

import amc_tf
from amc_tf.export.exporter import Exporter
from amc_tf.export.timing import measure
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.pruning.refit.in_order import gather_in_order
from amc_tf.training.finetune import fine_tune

DATA = flags.DEFINE_string("data", None, "Folder of networks and images; none for the demo.")
NETWORK = flags.DEFINE_string("network", None, "A name of NETWORKS.", required=True)
PLAN = flags.DEFINE_string(
    "plan", None, "A plan's file, or a name of plans.tar.xz; default: uniform, half the MACs."
)
FORMATS = flags.DEFINE_list(
    "formats", ["float32", "float16", "dynamic", "int8", "int8_float_io", "int16x8"], "To write."
)
TEST_IMAGES = flags.DEFINE_integer("test_images", 0, "Test images to score on; 0 for all.")
CALIBRATION = flags.DEFINE_integer("calibration_images", 200, "Images for ranges of activations.")
EPOCHS = flags.DEFINE_integer("epochs", 12, "Epochs of networks that are trained here.")
TRAIN_IMAGES = flags.DEFINE_integer("train_images", 45000, "Images for these networks.")
BIAS = flags.DEFINE_integer("bias_samples", 0, "Images that correct the biases of int8; 0: none.")
KEEP_FLOAT = flags.DEFINE_list("keep_float", [], "Layers that stay float in quantised files.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the files.", required=True)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Fresh processes in which each file is timed; 0: none.")
RUNS = flags.DEFINE_integer("runs", 20, "Least number of timed inferences in each.")
ROOT = pathlib.Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Case:
    """A trained network, its data, and whether it can be trained further."""

    model: keras.Model
    task: amc_tf.Task
    fine_tuned: bool = False


def resnet56() -> Case:
    data = np.load(pathlib.Path(DATA.value) / "cifar10.npz")
    parts = {
        part: (data[f"x_{part}"].astype("float32"), data[f"y_{part}"].astype("int32"))
        for part in ("train", "test")
    }
    return Case(_load("resnet56_cifar10"), _task(parts["train"], parts["test"], from_logits=True))


def mobilenet_v3() -> Case:
    return _trained_here("mobilenet_v3")


def vit() -> Case:
    return _trained_here("vit")


def _trained_here(name: str) -> Case:
    """Trains a network on CIFAR-10, and tells how to go on after pruning."""
    train = tuple(a[: TRAIN_IMAGES.value] for a in cases.cifar10_train(DATA.value))
    test = cases.cifar10_test(DATA.value)

    def compile(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.AdamW(weight_decay=0.01), loss, metrics=["accuracy"])

    task = amc_tf.Task(
        train=train,
        validation=test,
        compile=compile,
        fine_tune=trained.recipe(train, max(1, EPOCHS.value // 2)),
    )
    file = pathlib.Path(WORKDIR.value) / "dense.keras"
    if file.exists():
        return Case(keras.models.load_model(file), task, fine_tuned=True)
    keras.utils.set_random_seed(0)
    model = trained.NETWORKS[name]()
    compile(model)
    trained.recipe(train, EPOCHS.value)(model)
    model.save(file)
    return Case(model, task, fine_tuned=True)


def mobilenet_v1() -> Case:
    model = _load("mobilenet_v1_075_192")
    return Case(model, _task(*_imagenet(model), from_logits=False))


def efficientnet_lite0() -> Case:
    model = _load("efficientnet_lite0")
    return Case(model, _task(*_imagenet(model), from_logits=False))


def demo() -> Case:
    path = ROOT / "configs" / "mnist.py"
    spec = importlib.util.spec_from_file_location("mnist", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    keras.utils.set_random_seed(0)
    model, task = module.get_model(config), module.get_task(config)
    task.compiled(model, model)
    task.train_dense(model)
    return Case(model, task, fine_tuned=True)


NETWORKS: dict[str, Callable[[], Case]] = {
    build.__name__: build
    for build in (resnet56, mobilenet_v1, efficientnet_lite0, mobilenet_v3, vit, demo)
}


def _load(name: str) -> keras.Model:
    if DATA.value is None:
        raise app.UsageError("--data is needed for this network")
    return keras.models.load_model(pathlib.Path(DATA.value) / f"{name}.keras", compile=False)


def _imagenet(model: keras.Model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Loads calibration and validation images at the model's size, pixels 0 to 255."""
    # Some networks have one more class, the first, for none of the thousand.
    offset = model.output_shape[-1] - 1000
    parts = []
    for part in ("calibration", "validation"):
        data = keras.utils.image_dataset_from_directory(
            pathlib.Path(DATA.value) / "imagenet_val" / part,
            image_size=model.input_shape[1:3],
            shuffle=False,
            verbose=False,
        )
        images, labels = zip(*data.as_numpy_iterator(), strict=True)
        parts.append((np.concatenate(images), np.concatenate(labels) + offset))
    return parts


def _task(train: tuple, test: tuple, from_logits: bool) -> amc_tf.Task:
    def compile(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
        model.compile(keras.optimizers.SGD(1e-2, momentum=0.9), loss, metrics=["accuracy"])

    return amc_tf.Task(train=train, validation=test, compile=compile)


def pruned(case: Case) -> keras.Model:
    """Prunes by the plan: rebuilds, refits, and fine-tunes where that is possible."""
    graph = amc_tf.analyze(case.model)
    plan = plans.load(PLAN.value) if PLAN.value else uniform(graph)
    images = case.task.calibration_inputs(case.model)
    model = amc_tf.rebuild(
        case.model, graph, plan, gather_in_order(graph, images, seed=0).refit(plan)
    )
    if case.fine_tuned:
        fine_tune(model, case.model, case.task)
    return model


def cited_plan() -> str:
    """Returns the path by which results of this script cite the plan."""
    return f"benchmarks/{plans.cited(PLAN.value)}" if PLAN.value else "uniform"


def uniform(graph: ChannelGraph) -> amc_tf.PruningPlan:
    """Keeps the strongest channels of every group, as many as half the MACs allow."""
    importance = consumer_magnitude(graph)
    for kept in np.arange(1.0, 0.0, -0.01):
        counts = {
            name: min(group.channels, max(8, round(kept * group.channels / 8) * 8))
            for name, group in graph.groups.items()
        }
        plan = strongest(importance, counts)
        if amc_tf.macs(graph, plan) <= amc_tf.macs(graph) / 2:
            return plan
    raise app.UsageError("the network has too few channels for half its MACs; give --plan")


def written(
    case: Case, settings: amc_tf.ExportSettings, workdir: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Writes and checks every file of the dense and the pruned network."""
    networks = {}
    for label, model in {"dense": case.model, "pruned": pruned(case)}.items():
        exporter = Exporter(model, case.model, case.task, settings)
        graph = amc_tf.analyze(model)
        files = {}
        for name in settings.formats:
            exported = exporter.write(name, _path(workdir, label, name))
            files[name] = {"accuracy": exported.score, **dataclasses.asdict(exported)}
            del files[name]["score"]
            print(label, name, exported.score, exported.bytes, flush=True)
        networks[label] = {
            "accuracy": exporter.score,
            "macs": amc_tf.macs(graph),
            "params": amc_tf.params(graph),
            "files": files,
        }
    return networks


def _path(workdir: pathlib.Path, label: str, name: str) -> pathlib.Path:
    return workdir / f"{label}_{name}.tflite"


def main(argv):
    del argv
    settings = amc_tf.ExportSettings(
        formats=tuple(FORMATS.value),
        score_samples=TEST_IMAGES.value,
        calibration_samples=CALIBRATION.value,
        bias_samples=BIAS.value,
        keep_float=tuple(KEEP_FLOAT.value),
        latency_rounds=ROUNDS.value,
        latency_runs=RUNS.value,
        latency_min_secs=0.5,
    )
    workdir = pathlib.Path(WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    done = workdir / "files.json"
    if not done.exists():
        case = NETWORKS[NETWORK.value]()
        result = {
            "test_images": TEST_IMAGES.value or len(case.task.test_data[0]),
            "networks": written(case, settings, workdir),
        }
        done.write_text(json.dumps(result))
    result = json.loads(done.read_text())
    networks = result["networks"]
    if not ROUNDS.value:
        return
    paths = {
        f"{label}/{name}": _path(workdir, label, name)
        for label, network in networks.items()
        for name in network["files"]
    }
    for key, latency in measure(paths, settings).items():
        label, name = key.split("/")
        networks[label]["files"][name] |= {
            "latency_ms": latency.median_ms,
            "latency_ms_min": latency.min_ms,
            "latency_ms_max": latency.max_ms,
        }
    record.append(
        "export",
        {
            "network": NETWORK.value,
            "plan": cited_plan(),
            "calibration_images": CALIBRATION.value,
            "bias_samples": BIAS.value,
            "keep_float": KEEP_FLOAT.value,
            **result,
        },
    )


if __name__ == "__main__":
    app.run(main)
