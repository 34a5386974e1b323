"""How long a file, or a Keras model, takes."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tflite_tools
from amc_tf.export.settings import ExportSettings
from tflite_tools.time_model import repeat


def keras_latency(model: keras.Model, settings: ExportSettings) -> dict[str, float]:
    """Milliseconds of a Keras model's own forward pass, one sample, as a compiled graph.

    TensorFlow runs it with all its threads, so it stands beside the files' for
    orientation only.

    Args:
        model: the model.
        settings: how often it is run.

    Returns:
        `latency_ms` (median) with `latency_ms_min` and `latency_ms_max`, the range over rounds.
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
    return {
        "latency_ms": statistics.median(medians),
        "latency_ms_min": min(medians),
        "latency_ms_max": max(medians),
    }


def measure(paths: Mapping[str, pathlib.Path], settings: ExportSettings) -> dict[str, Any]:
    """Times files against each other on this host; name to `tflite_tools.Latency`."""
    return tflite_tools.measure_host(
        {name: path.read_bytes() for name, path in paths.items()},
        num_threads=settings.num_threads,
        rounds=settings.latency_rounds,
        num_runs=settings.latency_runs,
        min_secs=settings.latency_min_secs,
        warmup_min_secs=min(0.5, settings.latency_min_secs),
    )
