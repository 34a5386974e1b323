"""Whole networks in int8 by TensorFlow's quantiser, except for layers that stay float.

TensorFlow's converter calibrates a network and quantises it in one go. Here the two are apart, so
that ranges can be mended between them (`tflite_tools.ranges`), and layers kept float.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tensorflow as tf
from tensorflow.lite.python.convert import mlir_quantize

from tflite_tools import flatbuffer, ranges
from tflite_tools.quiet import quiet


def calibrate(converter: Any) -> bytes:
    """Converts to a float32 file whose activations have the ranges of the representative data.

    Args:
        converter: a converter (`tf.lite.TFLiteConverter`), set to make an int8 file.
    """
    # The one way to a calibrated file; `tf.lite.experimental.QuantizationDebugger` takes it, too.
    converter._experimental_calibrate_only = True
    return bytes(converter.convert())


def quantise(
    content: bytes, ends: tf.DType, keep_float: Collection[str], per_tensor: bool = False
) -> bytes:
    """Quantises a calibrated file.

    Args:
        content: a file of `calibrate`.
        ends: number type of inputs and outputs: float32, int8 or uint8.
        keep_float: names of the output tensors of the operators that stay float.
        per_tensor: whether each kernel has one scale, and not one for each channel.

    Returns:
        A file that every kernel runs: ranges of dead layers are widened. A filter that is nearly
        zero gets a scale at which its bias fits into 32 bits.

    Raises:
        ValueError: the quantiser refuses the file.
    """
    with quiet():
        made = mlir_quantize(
            ranges.widened(content),
            disable_per_channel=per_tensor,
            input_data_type=ends,
            output_data_type=ends,
            denylisted_nodes=sorted(keep_float) or None,
        )
    return flatbuffer.write(flatbuffer.sharing(flatbuffer.read(bytes(made))))
