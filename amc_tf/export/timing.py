"""The latency of files and of Keras models on this host."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

import tflite_tools
from amc_tf.export.settings import ExportSettings
from amc_tf.runs.result_parts import Exported, Milliseconds
from tflite_tools.time_model import repeat


def keras_latency(model: keras.Model, settings: ExportSettings) -> Milliseconds:
    """Times the forward pass of a Keras model on one sample, as a compiled graph.

    TensorFlow runs it with all its threads, so compare it with the latency of files only roughly.

    Args:
        model: the model.
        settings: rounds, and runs and seconds of a round.

    Returns:
        The median and the range over rounds.
    """
    inputs = [tf.zeros((1, *t.shape[1:]), t.dtype) for t in model.inputs]
    forward = tf.function(lambda: model(inputs if len(inputs) > 1 else inputs[0], training=False))
    forward()
    medians = [
        1e3
        * statistics.median(
            repeat(
                lambda: keras.tree.map_structure(np.asarray, forward()),
                num_runs=settings.latency_runs,
                min_secs=settings.latency_min_secs,
                max_secs=150,
            )
        )
        for _ in range(settings.latency_rounds)
    ]
    return Milliseconds(statistics.median(medians), min(medians), max(medians))


def measure(paths: Mapping[str, pathlib.Path], settings: ExportSettings) -> dict[str, Milliseconds]:
    """Times files against each other on this host; returns the median and the range of each."""
    found = tflite_tools.measure_host(
        {name: path.read_bytes() for name, path in paths.items()},
        num_threads=settings.num_threads,
        rounds=settings.latency_rounds,
        num_runs=settings.latency_runs,
        min_secs=settings.latency_min_secs,
        warmup_min_secs=min(0.5, settings.latency_min_secs),
    )
    return {
        name: Milliseconds(latency.median_ms, latency.min_ms, latency.max_ms)
        for name, latency in found.items()
    }


def timed(
    exported: Mapping[str, Exported], folder: pathlib.Path, settings: ExportSettings
) -> dict[str, Exported]:
    """Times files, and adds the latency to what is known of each.

    Args:
        exported: measurements of each file, by its name in the folder.
        folder: folder of the files.
        settings: see `measure`.
    """
    found = measure({name: folder / name for name in exported}, settings)
    return {name: dataclasses.replace(file, latency=found[name]) for name, file in exported.items()}
