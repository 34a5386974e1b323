"""Mixed precision: an ai-edge-quantizer recipe quantises a float file except for some layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tflite_tools import flatbuffer
from tflite_tools.intermediate import ranges
from tflite_tools.quiet import quiet
from tflite_tools.representative import Sample
from tflite_tools.tracing import layer_scopes, layers_of

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


def _static(activation_bits: int, *, float_ends: bool = False) -> Callable[[Any], None]:
    def configure(quantizer: Any) -> None:
        quantizer.add_static_config(
            regex=".*",
            operation_name="*",
            activation_num_bits=activation_bits,
            weight_num_bits=8,
        )
        if float_ends:
            for end in ("INPUT", "OUTPUT"):
                quantizer.update_quantization_recipe(
                    regex=".*", operation_name=end, algorithm_key="no_quantize"
                )

    return configure


_RECIPES: Mapping[str, Callable[[Any], None]] = {
    "float16": _float16,
    "dynamic": _dynamic,
    "int8": _static(8),
    "int8_float_io": _static(8, float_ends=True),
    "int16x8": _static(16),
}


def check(quantize: str | None, keep_float: Sequence[str], model: Any) -> str:
    """Refuses, before a conversion, what `quantize_file` could not do; returns `quantize`.

    Raises:
        ValueError: the format has no recipe, or the model has no layer of a name in `keep_float`.
    """
    if quantize not in _RECIPES:
        raise ValueError(
            f"keep_float names layers of a quantised file, but quantize is {quantize!r}; choose "
            f"one of {', '.join(map(repr, _RECIPES))}, or leave keep_float out."
        )
    names = {layer.name for layer in layers_of(model)}
    unknown = [name for name in keep_float if name not in names]
    if unknown:
        raise ValueError(
            f"keep_float names {unknown[0]!r}, but the model has no such layer; it has "
            f"{', '.join(sorted(names))}."
        )
    return quantize


def quantize_file(
    content: bytes,
    quantize: str,
    samples: Sequence[Sample],
    keep_float: Sequence[str],
    model: Any,
) -> bytes:
    """Quantises a float32 file except for the operators of some layers.

    Args:
        content: the signed float32 file of `model`.
        quantize: as for `convert`.
        samples: calibration samples, for the formats that need them.
        keep_float: names of layers whose operators stay float32. An operator that the converter
            fused with another layer's (a batch norm, an activation) stays float as a whole.
        model: the Keras model, for the names of its layers.

    Raises:
        ValueError: a layer of `keep_float` has no operator in the file.
    """
    try:
        from ai_edge_quantizer import quantizer as aeq
    except ImportError as error:
        raise ValueError(
            f"keep_float needs the package ai-edge-quantizer ({error}); pip install "
            "'ai-edge-quantizer>=0.10,<0.11'."
        ) from error
    quantizer = aeq.Quantizer(bytearray(content))
    _RECIPES[quantize](quantizer)
    for name in _tensors_of(content, keep_float, model):
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


def _tensors_of(content: bytes, keep_float: Sequence[str], model: Any) -> list[str]:
    """Finds the output names of the operators that come from the layers."""
    graph = flatbuffer.read(content).subgraphs[0]
    found: dict[str, set[str]] = {}
    for operator in graph.operators:
        for index in operator.outputs:
            name = flatbuffer.text(graph.tensors[index].name)
            found[name] = set(layer_scopes(model, name))
    wanted = set(keep_float)
    missing = wanted.difference(*found.values())
    if missing:
        raise ValueError(
            f"keep_float names {sorted(missing)[0]!r}, but the converted file has no operator of "
            "that layer: the layer does nothing in inference, or was folded into a constant; leave "
            "it out of keep_float."
        )
    return [name for name, layers in found.items() if layers & wanted]
