"""Labelled images of a folder, read batch by batch: there may be more than fit into memory."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

import amc_tf

if TYPE_CHECKING:  # scripts know this module as common.cases, tests as benchmarks.common.cases
    from benchmarks.common.cases import Case


def images_of(folder: str, labels: str | None, case: Case) -> tuple[Any, int]:
    """Reads a folder that has a folder of images for each class.

    Images are resized to the network's input, as those of the case are.

    Args:
        folder: the folder. Without `labels`, its folders in the order of their names are all of
            the network's classes, from the case's first label on.
        labels: file with a line `FOLDER LABEL` for each class; then there may be fewer.
        case: the network.

    Returns:
        A dataset of (images, labels) in batches, and the number of images.

    Raises:
        AmcError: the folders do not fit the network's classes, or there are no images.
    """
    root = pathlib.Path(folder).expanduser()
    classes = case.model.output_shape[-1]
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if labels is None:
        expected = classes - case.first_label
        if len(found) != expected:
            raise amc_tf.AmcError(
                f"expected {expected} folders in {root}, one for each class of "
                f"{case.model.name!r} in the order of their names, received {len(found)}; give "
                "the label of each by --labels=FILE, with a line 'FOLDER LABEL' for each"
            )
        label_of = {name: case.first_label + i for i, name in enumerate(found)}
    else:
        label_of = _read(pathlib.Path(labels).expanduser(), classes)
        missing = [name for name in found if name not in label_of]
        if missing or not found:
            what = f"no label of {missing[0]!r}" if missing else f"no folder in {root}"
            raise amc_tf.AmcError(
                f"expected a line 'FOLDER LABEL' in {labels} for each folder of images in {root}, "
                f"received {what}; add it"
            )
    data = keras.utils.image_dataset_from_directory(
        root,
        image_size=case.model.input_shape[1:3],
        batch_size=case.batch_size,
        shuffle=False,
        verbose=False,
    )
    table = tf.constant(np.array([label_of[name] for name in data.class_names], np.int32))
    labelled = data.map(lambda x, y: (x, tf.gather(table, y)))
    return labelled.prefetch(tf.data.AUTOTUNE), len(data.file_paths)


def _read(path: pathlib.Path, classes: int) -> dict[str, int]:
    labels = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not (name and label.isdecimal() and int(label) < classes):
            raise amc_tf.AmcError(
                f"line {number} of {path}: expected 'FOLDER LABEL' with a label below {classes}, "
                f"received {line!r}"
            )
        labels[name.strip()] = int(label)
    return labels
