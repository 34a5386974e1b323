"""The formats of exported TFLite files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Format:
    """The way in which a file's numbers are stored.

    Attributes:
        quantize: value of the argument of this name of `tflite_tools.convert`.
        calibrated: whether it needs calibration inputs.
        integer: whether activations are integers.
        trained: whether the network is trained with emulated rounding first.
        sparse: whether only the nonzero values of weights with many zeros are stored.
    """

    quantize: str | None = None
    calibrated: bool = False
    integer: bool = False
    trained: bool = False
    sparse: bool = False


_INT8 = Format("int8", calibrated=True, integer=True)

FORMATS: Mapping[str, Format] = {
    "float32": Format(),
    "float16": Format("float16"),
    "dynamic": Format("dynamic"),
    "int8": _INT8,
    "int8_float_io": dataclasses.replace(_INT8, quantize="int8_float_io"),
    "int8_uint8_io": dataclasses.replace(_INT8, quantize="int8_uint8_io"),
    "int8_per_tensor": dataclasses.replace(_INT8, quantize="int8_per_tensor"),
    "int16x8": dataclasses.replace(_INT8, quantize="int16x8"),
    "int8_qat": Format("int8_trained", integer=True, trained=True),
    "float32_sparse": Format(sparse=True),
    "float16_sparse": Format("float16", sparse=True),
    "int8_sparse": dataclasses.replace(_INT8, sparse=True),
}

# Values of `quantize` whose biases are integers of 32 bits.
BIAS_CORRECTED = ("int8", "int8_float_io", "int8_uint8_io", "int8_per_tensor")
