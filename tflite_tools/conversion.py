"""Conversion of a Keras model to TFLite bytes, in any of the number formats of LiteRT.

TensorFlow's converter quantises whole models, as it knows the integer form of more operators than
ai-edge-quantizer. In int8 it keeps single layers float (`tflite_tools.quantiser`); where these are
wanted in another format, a float file is made and quantised by a recipe (`tflite_tools.recipes`).
Each file is run once before it is handed out (`tflite_tools.running`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_tools import (
    flatbuffer,
    float_depthwise,
    float_layers,
    quantiser,
    quiet_rows,
    recipes,
    refusals,
)
from tflite_tools.inspection import inspect_file
from tflite_tools.quiet import quiet
from tflite_tools.representative import Sample, samples_of
from tflite_tools.running import require_runs
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
        per_tensor: whether each kernel has one scale for all its channels.
    """

    ops: tuple[Any, ...] = (_OPS.TFLITE_BUILTINS,)
    optimize: bool = True
    types: tuple[tf.DType, ...] = ()
    calibrated: bool = False
    ends: tf.DType = tf.float32
    per_tensor: bool = False

    @property
    def mended(self) -> bool:
        """Whether `tflite_tools.quantiser` quantises: ranges are mended, layers may stay float."""
        return self.ops is _INT8


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
    "int8_uint8_io": _Quantisation(_INT8, calibrated=True, ends=tf.uint8),
    "int8_per_tensor": _Quantisation(_INT8, calibrated=True, ends=tf.int8, per_tensor=True),
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
            * "dynamic": weights in int8, activations quantised while the model runs. Depthwise
              layers stay float, as LiteRT would run them several times as slowly.
            * "int8": weights and activations, inputs and outputs in int8.
            * "int8_float_io": the same with float32 inputs and outputs.
            * "int8_uint8_io": the same with uint8 inputs and outputs, as cameras give images.
            * "int8_per_tensor": as "int8", with one scale for all channels of a kernel, for
              accelerators that know no scale of each channel. It loses more.
            * "int16x8": int8 weights, int16 activations, inputs and outputs.
            * "int8_trained": as "int8", for a tf_keras model that was trained with fake
              quantisation and so holds its ranges.

            An operator without an integer form stays float, and so does a normalisation of rows
            of very different size, with what makes its rows, in the int8 formats
            (`tflite_tools.quiet_rows`); `tflite_tools.inspect_file` names them.
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
        ValueError: If an argument is invalid, the model cannot be converted, an operator has no
            TFLite counterpart (the message names it), or LiteRT refuses the file.
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
    if keep_float:
        _refuse_unquantised(quantize)
        float_layers.require_layers(model, keep_float)
    if sparse and (quantize == "dynamic" or (keep_float and quantize != "float16")):
        given = f"quantize={quantize!r}{' and keep_float' if keep_float else ''}"
        raise ValueError(
            f"sparse=True is not for {given}: LiteRT does not run such files on every processor; "
            "choose None, 'float16' or 'int8' without keep_float."
        )
    with quiet():
        function = freeze(in_float32(model), signature)

    named = functools.partial(float_layers.outputs_of, model=model, keep_float=keep_float)
    job = _Job(function, signature, quantize, samples, sparse, allow_flex)
    return _file(dataclasses.replace(job, named=named) if keep_float else job)


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
    specs = tuple(
        tf.TensorSpec(t.shape, t.dtype, name=t.name.partition(":")[0]) for t in function.inputs
    )
    names = tuple(f"output_{i}" for i in range(len(outputs)))
    signature = Signature(specs, tuple(spec.name for spec in specs), names)
    calibration = samples if _QUANTISATIONS[quantize].calibrated else []
    return _file(_Job(function, signature, quantize, calibration, sparse))


@dataclass(frozen=True, eq=False)
class _Job:
    """A network to convert.

    Attributes:
        function: the frozen network.
        signature: its signature.
        quantize: as for `convert`.
        samples: calibration samples, for the formats that need them.
        sparse: as for `convert`.
        allow_flex: as for `convert`.
        named: finds in a float file the output tensors of the operators that the user keeps float,
            if there are any.
    """

    function: Any
    signature: Signature
    quantize: str | None
    samples: list[Sample]
    sparse: bool = False
    allow_flex: bool = False
    named: Callable[[bytes], list[str]] | None = None

    @functools.cached_property
    def float32(self) -> bytes:
        """The float32 file."""
        return _converted(self, _QUANTISATIONS[None])

    def kept(self, content: bytes, bits: int) -> list[str]:
        """Finds in a float file the output tensors of all operators that stay float."""
        named = self.named(content) if self.named else []
        # The interpreter of this package cannot run operators of TensorFlow's own.
        if not self.samples or inspect_file(content).flex_operators:
            return named
        quiet = quiet_rows.float_outputs(content, self.samples, bits)
        if quiet and self.sparse:
            raise ValueError(
                "sparse=True in an integer format is not for this network: its normalisations read "
                "rows of very different size and must stay float, and LiteRT does not run sparse "
                "integer layers beside float ones on every processor; choose 'float16', or leave "
                "sparse out."
            )
        return [*named, *quiet]


def _file(job: _Job) -> bytes:
    """Converts a network in the way of its format, and runs the file once."""
    mode = _QUANTISATIONS[job.quantize]
    if mode.calibrated:
        _refuse_loops(job.function, job.quantize)
    if mode.mended:
        calibrated = _converted(job, mode)
        content = quantiser.quantise(
            calibrated, mode.ends, job.kept(calibrated, bits=8), per_tensor=mode.per_tensor
        )
    elif job.quantize in recipes.RECIPES:
        content = _by_converter_or_recipe(job, mode, recipes.RECIPES[job.quantize])
    else:
        content = _converted(job, mode)
    return require_runs(encode(content) if job.sparse else content)


def _by_converter_or_recipe(job: _Job, mode: _Quantisation, recipe: Callable) -> bytes:
    """Converts by TensorFlow's converter, unless it cannot do what is wanted."""
    kept = job.kept(job.float32, bits=16) if job.named or job.samples else []
    if not kept:
        try:
            content = _converted(job, mode)
            if job.quantize == "dynamic" and "DEPTHWISE_CONV_2D" in inspect_file(content).counts:
                return float_depthwise.with_float_depthwise(content, job.float32)
            return require_runs(content)
        except ValueError:
            # The converter refuses operators without an int16 form, or makes integer operators
            # that no kernel computes. The recipe leaves both float.
            if not mode.calibrated:
                raise
    return recipes.quantize_file(job.float32, recipe, job.samples, kept)


def _refuse_unquantised(quantize: str | None) -> None:
    allowed = [name for name, q in _QUANTISATIONS.items() if q.mended or name in recipes.RECIPES]
    if quantize not in allowed:
        raise ValueError(
            f"keep_float names layers of a quantised file, but quantize is {quantize!r}; choose "
            f"one of {', '.join(map(repr, allowed))}, or leave keep_float out."
        )


def _refuse_loops(function: Any, quantize: str | None) -> None:
    if has_loops(function):
        raise ValueError(
            f"quantize={quantize!r} cannot calibrate a model with loops, as in a recurrent "
            "layer: set unroll=True in the layer, or choose 'dynamic' or 'float16'."
        )


def _converted(job: _Job, mode: _Quantisation) -> bytes:
    """Runs TensorFlow's converter; where `mode.mended`, as far as the calibrated float file."""
    names = (job.signature.input_names, job.signature.output_names, output_paths(job.function))
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([job.function])
        flex = (_OPS.SELECT_TF_OPS,) if job.allow_flex else ()
        converter.target_spec.supported_ops = [*mode.ops, *flex]
        converter.target_spec.supported_types = list(mode.types)
        if mode.optimize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if mode.calibrated:
            converter.representative_dataset = lambda: iter(job.samples)
        converter.inference_input_type = converter.inference_output_type = mode.ends
        try:
            made = quantiser.calibrate(converter) if mode.mended else converter.convert()
        except Exception as error:
            raise refusals.explained(error) from error
    return flatbuffer.sign(bytes(made), *names)
