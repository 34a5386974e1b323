"""Conversion of a Keras model to TFLite bytes, in any of the number formats of LiteRT.

TensorFlow's converter quantises whole models, as it knows the integer form of more operators than
ai-edge-quantizer. It cannot keep single layers float. Where these are wanted, a float file is made
and quantised by a recipe (`tflite_tools.recipes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_tools import flatbuffer, recipes
from tflite_tools.quiet import quiet
from tflite_tools.representative import Sample, samples_of
from tflite_tools.sparse import encode
from tflite_tools.tracing import (
    Signature,
    freeze,
    has_loops,
    in_float32,
    output_paths,
    require_finite_weights,
    signature_of,
)

_OPS = tf.lite.OpsSet


@dataclass(frozen=True)
class _Quantisation:
    """One allowed value of ``quantize``.

    Attributes:
        ops: kinds of operators that may be used, the preferred first; LiteRT's float operators
            follow the integer ones, for operators without an integer form.
        optimize: whether weights are quantised at all.
        types: number types of weights, if not int8.
        calibrated: whether representative data are required (else they are refused).
        ends: number type of inputs and outputs.
    """

    ops: tuple[Any, ...] = (_OPS.TFLITE_BUILTINS,)
    optimize: bool = True
    types: tuple[tf.DType, ...] = ()
    calibrated: bool = False
    ends: tf.DType = tf.float32


_INT8 = (_OPS.TFLITE_BUILTINS_INT8, _OPS.TFLITE_BUILTINS)
_INT16X8 = (
    _OPS.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    _OPS.TFLITE_BUILTINS,
)
# https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
_QUANTISATIONS: Mapping[str | None, _Quantisation] = {
    None: _Quantisation(optimize=False),
    "float16": _Quantisation(types=(tf.float16,)),
    "dynamic": _Quantisation(),
    "int8": _Quantisation(_INT8, calibrated=True, ends=tf.int8),
    "int8_float_io": _Quantisation(_INT8, calibrated=True),
    "int16x8": _Quantisation(_INT16X8, calibrated=True, ends=tf.int16),
    # The ranges are in the model: it was trained with fake quantisation.
    "int8_trained": _Quantisation(ends=tf.int8),
}
CALIBRATED = tuple(name for name, q in _QUANTISATIONS.items() if name and q.calibrated)
"""Values of ``quantize`` that need representative data."""


def convert(
    model: Any,
    quantize: str | None = None,
    representative: Iterable[np.ndarray | Sequence | Mapping] | None = None,
    *,
    keep_float: Sequence[str] = (),
    dynamic_batch: bool = False,
    allow_flex: bool = False,
    sparse: bool = False,
) -> bytes:
    """Converts a Keras model into a TFLite file.

    Inputs and outputs are in the order of ``model.inputs`` and ``model.outputs``. The file's
    signature ``serving_default`` names them: inputs by their tensors, outputs by the keys of a
    dictionary, or else by their layers. Layers run in inference mode.

    Args:
        model: A built functional or Sequential model, of Keras 3 or tf_keras, whose input shapes
            are fixed except for the batch dimension.
        quantize:
            * None: float32.
            * "float16": weights in float16, read as float32 (a GPU may compute in float16).
            * "dynamic": weights in int8, activations quantised while the model runs.
            * "int8": weights and activations, inputs and outputs in int8.
            * "int8_float_io": the same with float32 inputs and outputs.
            * "int16x8": int8 weights, int16 activations, inputs and outputs.
            * "int8_trained": as "int8", for a tf_keras model that was trained with fake
              quantisation and so holds its ranges.

            An operator without an integer form stays float; `tflite_tools.inspect_file` names it.
        representative: Calibration data for the formats with integer activations: an iterable of
            samples, each of batch 1. For one input a sample is an array of shape ``(1, ...)``; for
            several it is a sequence of such arrays in the order of ``model.inputs``, or a mapping
            from input name to array. Scale them as the model's inputs will be; a few hundred
            samples are usual.
        keep_float: Names of layers that stay float32 in a quantised file.
        dynamic_batch: Whether the batch dimension stays open. The file is slower, and GPU
            delegates refuse it.
        allow_flex: Whether TensorFlow operators that LiteRT lacks are allowed. Such a file runs
            only in an app that links the Flex delegate, and not in this package.
        sparse: Whether only the nonzero values of weights with many zeros are stored;
            `tflite_tools.sparse_weights` says which of these files run faster. It is not allowed
            for "dynamic", which XNNPACK refuses, nor for integer formats with keep_float:
            XNNPACK looks for chains to run sparsely, and may crash on quantised layers beside
            float ones. In int8, Dense layers stay dense.

    Returns:
        The contents of a ``.tflite`` file.

    Raises:
        ValueError: If an argument is invalid, the model cannot be converted, or an operator has no
            TFLite counterpart; the message names the operator.
    """
    if quantize not in _QUANTISATIONS:
        allowed = ", ".join(map(repr, _QUANTISATIONS))
        raise ValueError(f"quantize must be one of {allowed}; received {quantize!r}.")
    mode = _QUANTISATIONS[quantize]
    signature = signature_of(model, dynamic_batch)
    require_finite_weights(model)
    samples: list[Sample] = []
    if mode.calibrated:
        samples = samples_of(representative, f"quantize={quantize!r}", signature)
    elif representative is not None:
        raise ValueError(
            f"quantize={quantize!r} uses no representative data, but some were given; leave "
            f"representative out or choose one of {', '.join(map(repr, CALIBRATED))}."
        )
    recipe = recipes.check(quantize, keep_float, model) if keep_float else None
    if sparse and (quantize == "dynamic" or (keep_float and quantize != "float16")):
        given = f"quantize={quantize!r}{' and keep_float' if keep_float else ''}"
        raise ValueError(
            f"sparse=True is not for {given}: LiteRT does not run such files on every processor; "
            "choose None, 'float16' or 'int8' without keep_float."
        )
    with quiet():
        function = freeze(in_float32(model), signature)
    if mode.calibrated:
        _refuse_loops(function, quantize)
    if recipe is not None:
        content = _converted(function, signature, _QUANTISATIONS[None], [], allow_flex)
        content = recipes.quantize_file(content, recipe, samples, keep_float, model)
    else:
        content = _converted(function, signature, mode, samples, allow_flex)
    return encode(content) if sparse else content


def convert_graph(
    graph: bytes,
    inputs: Sequence[str],
    outputs: Sequence[str],
    quantize: str | None,
    samples: list[Sample],
    *,
    sparse: bool = False,
) -> bytes:
    """Converts a frozen graph, as `convert` does once it has made one.

    Args:
        graph: a serialised GraphDef without variables.
        inputs: names of the tensors that are fed.
        outputs: names of the tensors that are wanted.
        quantize: as for `convert`.
        samples: calibration samples in the order of `inputs`, for the formats that need them.
        sparse: as for `convert`.

    Raises:
        ValueError: the graph cannot be converted.
    """
    definition = tf.compat.v1.GraphDef.FromString(graph)
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
    tensor = whole.graph.get_tensor_by_name
    function = whole.prune([tensor(name) for name in inputs], [tensor(name) for name in outputs])
    mode = _QUANTISATIONS[quantize]
    if mode.calibrated:
        _refuse_loops(function, quantize)
    specs = tuple(
        tf.TensorSpec(t.shape, t.dtype, name=t.name.partition(":")[0]) for t in function.inputs
    )
    names = tuple(f"output_{i}" for i in range(len(outputs)))
    signature = Signature(specs, tuple(spec.name for spec in specs), names)
    calibration = samples if mode.calibrated else []
    content = _converted(function, signature, mode, calibration, allow_flex=False)
    return encode(content) if sparse else content


def _refuse_loops(function: Any, quantize: str | None) -> None:
    if has_loops(function):
        raise ValueError(
            f"quantize={quantize!r} cannot calibrate a model with loops, as in a recurrent "
            "layer: set unroll=True in the layer, or choose 'dynamic' or 'float16'."
        )


def _converted(
    function: Any,
    signature: Signature,
    mode: _Quantisation,
    samples: list[Sample],
    allow_flex: bool,
) -> bytes:
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        flex = (_OPS.SELECT_TF_OPS,) if allow_flex else ()
        converter.target_spec.supported_ops = [*mode.ops, *flex]
        converter.target_spec.supported_types = list(mode.types)
        if mode.optimize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode.calibrated:
            converter.representative_dataset = lambda: iter(samples)
        converter.inference_input_type = converter.inference_output_type = mode.ends
        try:
            content = bytes(converter.convert())
        except Exception as error:
            raise _explained(error) from error
    return flatbuffer.sign(
        content, signature.input_names, signature.output_names, output_paths(function)
    )


def _explained(error: Exception) -> ValueError:
    """Makes one sentence of the converter's message, which fills many pages."""
    message = str(error)
    found = {
        kind: sorted(set(re.findall(rf"^{kind} ops: (.+)$", message, re.MULTILINE)))
        for kind in ("TF Select", "Custom")
    }
    if any(found.values()):
        names = "; ".join(", ".join(value) for value in found.values() if value)
        remedy = (
            "replace them by supported layers"
            if found["Custom"]
            else "replace them by supported layers, or pass allow_flex=True for apps that link "
            "the Flex delegate"
        )
        return ValueError(
            f"LiteRT has no counterpart of the TensorFlow operators {names}; {remedy}."
        )
    first = next((line for line in message.splitlines() if line.strip()), type(error).__name__)
    return ValueError(f"TensorFlow's converter refuses the model: {first.strip()}")
