"""The pretrained networks of the studies, with the images each study may use.

DIR, the value of `--data` or of AMC_TF_DATA, holds `cifar10.npz`,
`resnet56_cifar10.keras`, `imagenet_val/validation` and
`imagenet_val/calibration` (folders of images by class),
`mobilenet_v1_075_192.keras` and `efficientnet_lite0.keras`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np

import amc_tf

Labelled = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A network and its images.

    Attributes:
        model: the dense network, trained.
        validation: images and labels of the reward; never trained on here.
        calibration: images for the refit, without labels.
        test: images and labels that decide nothing. On ImageNet there are none left, so they are
            those of the reward: accuracy on the refit's images would be too high.
        rounding: number whose multiples channel counts are.
        batch_size: batch size of the scoring.
        first_label: label of the first of the classes' folders.
    """

    model: keras.Model
    validation: Labelled
    calibration: np.ndarray
    test: Labelled
    rounding: int
    batch_size: int
    first_label: int = 0

    def task(self, data: Labelled | None = None) -> amc_tf.Task:
        """Makes a task that scores on `data`, by default on the validation images."""
        data = data or self.validation
        return amc_tf.Task(
            train=data,
            validation=data,
            compile=lambda m: m.compile(
                loss="sparse_categorical_crossentropy", metrics=["accuracy"]
            ),
            calibration=self.calibration,
            batch_size=self.batch_size,
        )


def cifar10_train(folder: str | None) -> Labelled:
    """Loads the 45,000 training images that no reward is measured on, as uint8."""
    x, y, _ = _cifar10(_path(folder))
    chosen = _shuffled(x)[5000:]
    return x[chosen], y[chosen]


def cifar10_test(folder: str | None) -> Labelled:
    """Loads the 10,000 test images, as float32."""
    return _cifar10(_path(folder))[2]


def _cifar10(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray, Labelled]:
    with np.load(folder / "cifar10.npz") as arrays:
        x, y = arrays["x_train"], arrays["y_train"].reshape(-1).astype("int32")
        test = arrays["x_test"].astype("float32"), arrays["y_test"].reshape(-1).astype("int32")
    return x, y, test


def _shuffled(images: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(images))


def resnet56(folder: pathlib.Path) -> Case:
    """CIFAR-10; 5,000 training images for the reward, and 2,000 others for the refit."""
    x, y, test = _cifar10(folder)
    chosen = _shuffled(x)
    scored, statistics_of = chosen[:5000], chosen[5000:7000]
    return Case(
        keras.models.load_model(folder / "resnet56_cifar10.keras"),
        (x[scored].astype("float32"), y[scored]),
        x[statistics_of].astype("float32"),
        test,
        rounding=1,
        batch_size=250,
    )


def _imagenet(folder: pathlib.Path, file: str, first_label: int) -> Case:
    model = keras.models.load_model(folder / file)

    def images(part: str) -> Labelled:
        data = keras.utils.image_dataset_from_directory(
            folder / "imagenet_val" / part,
            image_size=model.input_shape[1:3],
            shuffle=False,
            verbose=False,
        )
        # Filled in place, as joining the batches would hold every image twice.
        x = np.empty((len(data.file_paths), *model.input_shape[1:]), np.float32)
        labels = []
        for batch, y in data.as_numpy_iterator():
            x[len(labels) : len(labels) + len(y)] = batch
            labels.extend(y)
        return x, np.array(labels) + first_label

    validation, calibration = images("validation"), images("calibration")
    return Case(
        model,
        validation,
        calibration[0],
        validation,
        rounding=8,
        batch_size=64,
        first_label=first_label,
    )


def mobilenet_v1(folder: pathlib.Path) -> Case:
    """MobileNet-V1 0.75 at 192: 634 ImageNet images for the reward, 666 for the refit."""
    return _imagenet(folder, "mobilenet_v1_075_192.keras", first_label=1)


def efficientnet_lite0(folder: pathlib.Path) -> Case:
    """EfficientNet-Lite0 at 224, the same images."""
    return _imagenet(folder, "efficientnet_lite0.keras", first_label=0)


def mobilenet_v1_224(folder: pathlib.Path) -> Case:
    """MobileNet-V1 1.0 at 224 with random weights on 1,000 images of noise: for timing alone.

    Its batch norms have the statistics of the noise. With those of a new model its values would
    shrink from layer to layer to 1e-19.
    """
    del folder
    rng = np.random.default_rng(0)
    x = rng.random((1000, 224, 224, 3), np.float32)
    images = x, rng.integers(0, 1000, len(x)).astype("int32")
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(weights=None, classifier_activation=None)
    norms = [n for n in model.layers if isinstance(n, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # the statistics become those of the next batch
    model(x[:4], training=True)
    for norm in norms:
        norm.momentum = 0.99
    return Case(model, images, x[:600], images, rounding=8, batch_size=64)


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    f.__name__: f for f in (resnet56, mobilenet_v1, efficientnet_lite0, mobilenet_v1_224)
}


def load(name: str, folder: str | None) -> Case:
    """Loads the case with this name; its data are in `folder`, or in AMC_TF_DATA."""
    return CASES[name](_path(folder))


def _path(folder: str | None) -> pathlib.Path:
    return pathlib.Path(folder or os.environ.get("AMC_TF_DATA", "")).expanduser()
