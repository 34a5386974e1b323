"""Mixed precision: an ai-edge-quantizer recipe quantises a float file except for some layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_tools.intermediate import ranges
from tflite_tools.quiet import quiet
from tflite_tools.representative import Sample

# Operators whose weights ai-edge-quantizer can store in 16 bits.
_FLOAT16_OPS = (
    "FULLY_CONNECTED",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "CONV_2D_TRANSPOSE",
    "EMBEDDING_LOOKUP",
)


def _float16(quantizer: Any) -> None:
    for operation in _FLOAT16_OPS:
        quantizer.add_weight_only_config(
            regex=".*", operation_name=operation, num_bits=16, algorithm_key="float_casting"
        )


def _dynamic(quantizer: Any) -> None:
    quantizer.add_dynamic_config(regex=".*", operation_name="*", num_bits=8)
    # See `tflite_tools.float_depthwise`.
    quantizer.update_quantization_recipe(
        regex=".*", operation_name="DEPTHWISE_CONV_2D", algorithm_key="no_quantize"
    )


def _int16x8(quantizer: Any) -> None:
    quantizer.add_static_config(
        regex=".*", operation_name="*", activation_num_bits=16, weight_num_bits=8
    )


RECIPES: Mapping[str, Callable[[Any], None]] = {
    "float16": _float16,
    "dynamic": _dynamic,
    "int16x8": _int16x8,
}
"""Formats that are quantised so where layers stay float. For int8 see `tflite_tools.quantiser`."""


def quantize_file(
    content: bytes,
    recipe: Callable[[Any], None],
    samples: Sequence[Sample],
    keep_float: Collection[str],
) -> bytes:
    """Quantises a float32 file except for some operators.

    Args:
        content: the float32 file.
        recipe: one of `RECIPES`.
        samples: calibration samples, for the formats that need them.
        keep_float: names of the output tensors of the operators that stay float32.

    Raises:
        ValueError: ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer as aeq
    except ImportError as error:
        raise ValueError(
            f"keep_float needs the package ai-edge-quantizer ({error}); pip install "
            "'ai-edge-quantizer>=0.10,<0.11'."
        ) from error
    quantizer = aeq.Quantizer(bytearray(content))
    recipe(quantizer)
    for name in keep_float:
        quantizer.update_quantization_recipe(
            regex=f"(^|;){re.escape(name)}(;|$)", operation_name="*", algorithm_key="no_quantize"
        )
    calibration = None
    if quantizer.need_calibration:
        # The quantizer's own calibration averages the ranges of samples, and so cuts off rare high
        # values. These ranges, like the converter's, cover all values that occurred.
        calibration = {
            name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
            for name, (low, high) in ranges(content, samples).items()
        }
    with quiet():
        result = quantizer.quantize(
            calibration, enable_progress_bar=False, enable_progress_report=False
        )
    return bytes(result.quantized_model)
