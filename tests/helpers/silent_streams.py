"""Data without an end, and what is drawn from data."""

from __future__ import annotations

import blobs
import numpy as np
import tensorflow as tf
from silent_data import TRAIN, VALIDATION, Batches, dataset, each, endless_generator, truth, unknown
from silent_judge import Bench, expect
from silent_tasks import HALF, classification, compress, dense, near, search, settings, value

import amc_tf

# --- data without an end ----------------------------------------------------------------------

ENDLESS = {
    "repeat()": lambda *arrays: dataset(*arrays).repeat(),
    "repeat() of unknown size": lambda *arrays: unknown(*arrays).repeat(),
    "a generator that never ends": endless_generator,
    "PyDataset without an end": lambda *arrays: Batches(arrays, endless=True),
}


def _endless_validation(form: str, bench: Bench) -> None:
    search(bench, dense(bench), classification(validation=ENDLESS[form](*VALIDATION)))
    expect(False, "accepts validation data without an end")


def endless_training(bench: Bench) -> None:
    compress(bench, dense(bench), classification(train=dataset(*TRAIN).repeat()))
    expect(False, "accepts training data without an end")


def endless_fit(bench: Bench) -> None:
    small = amc_tf.Compressor(dense(bench), HALF, bench.workdir, settings(), trained=True)
    endless = dataset(*VALIDATION).repeat()
    small.fit(dataset(*TRAIN), validation_data=endless, verbose=0)
    expect(False, "accepts validation data without an end")


def steps(bench: Bench) -> None:
    """Three steps of thirty are the ninety samples."""
    task = classification(
        train=dataset(*TRAIN).repeat(),
        train_steps=7,
        validation=dataset(*VALIDATION).repeat(),
        validation_steps=3,
        test=dataset(*VALIDATION).repeat(),
        test_steps=3,
    )
    result = compress(bench, dense(bench), task)
    got, wanted = value(result["finetuned"]), truth(bench, VALIDATION)
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")


def fit_steps(bench: Bench) -> None:
    """Compressor.fit with steps_per_epoch and validation_steps, as Model.fit has them."""
    small = amc_tf.Compressor(dense(bench), HALF, bench.workdir, settings(), trained=True)
    small.fit(
        dataset(*TRAIN).repeat(),
        validation_data=dataset(*VALIDATION).repeat(),
        steps_per_epoch=7,
        validation_steps=3,
        verbose=0,
    )
    got, wanted = value(small.result["finetuned"]), truth(bench, VALIDATION)
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")


# --- what is drawn ----------------------------------------------------------------------------


def sorted_dataset(bench: Bench) -> None:
    """Calibration inputs drawn from data sorted by class are of all classes."""
    x, y = blobs.data(400, 0)
    order = np.argsort(y, kind="stable")
    task = classification(train=dataset(x[order], y[order]), calibration_size=64)
    drawn = task.calibration_inputs(dense(bench))[0]
    labels = {image.tobytes(): label for image, label in zip(x, y, strict=True)}
    found = np.bincount([labels[image.tobytes()] for image in drawn], minlength=4)
    expect(len(drawn) == 64, f"draws {len(drawn)} inputs instead of 64")
    expect(found.min() >= 6, f"64 calibration inputs have the classes {found.tolist()}")


def drawn_count(bench: Bench) -> str | None:
    """How many were drawn of how many is said."""
    x, y = blobs.data(400, 0)
    search(bench, dense(bench), classification(train=dataset(x, y), calibration_size=64))
    said = bench.heard(r"\b64\b.*\b400\b")
    expect(said, "nothing says that 64 of 400 inputs were drawn")
    return said


def empty_calibration(bench: Bench) -> None:
    search(bench, dense(bench), classification(calibration=np.zeros((0, 8, 8, 1), "float32")))
    expect(False, "accepts no calibration inputs at all")


CALIBRATIONS = {
    "an array": lambda x, y: x,
    "a dataset of inputs": lambda x, y: tf.data.Dataset.from_tensor_slices(x).batch(30),
    "a dataset of pairs": dataset,
    "a PyDataset": lambda x, y: Batches((x, y)),
}


def _calibration(form: str, bench: Bench) -> None:
    x, y = TRAIN
    task = classification(calibration=CALIBRATIONS[form](x, y))
    drawn = task.calibration_inputs(dense(bench))
    expect(np.array_equal(drawn[0], x), f"has the shape {drawn[0].shape} instead of {x.shape}")


CASES = {
    **each("endless validation: ", _endless_validation, ENDLESS),
    "endless training data": endless_training,
    "Compressor.fit: endless validation": endless_fit,
    "steps of endless data": steps,
    "Compressor.fit: steps of endless data": fit_steps,
    "calibration from a dataset sorted by class": sorted_dataset,
    "how many calibration inputs of how many": drawn_count,
    "no calibration inputs": empty_calibration,
    **each("calibration as ", _calibration, CALIBRATIONS),
}
