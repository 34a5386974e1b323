"""Keras model to TFLite bytes.

The model is traced on a static signature of batch 1, its variables are frozen into constants, and
the frozen graph is converted. A static signature matters: an open batch dimension yields a dynamic
graph, which GPU delegates refuse and which takes several times as long to convert.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

Sample = list[np.ndarray]
"""One calibration sample: an array of batch 1 for each model input, in the order of the inputs."""


@dataclass(frozen=True)
class _Quantisation:
    """One allowed value of ``quantize``.

    Attributes:
        configure: Sets the converter's options; gets the converter and the calibration samples.
        calibrated: Whether representative data are required (else they are refused).
    """

    configure: Callable[[tf.lite.TFLiteConverter, list[Sample]], None]
    calibrated: bool = False


def _float32(converter: tf.lite.TFLiteConverter, samples: list[Sample]) -> None:
    """Leaves weights and activations in float32."""


def _int8(converter: tf.lite.TFLiteConverter, samples: list[Sample]) -> None:
    """Full-integer quantisation, as LiteRT's guide to post-training quantisation sets it up.

    https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
    """
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter(samples)
    # This set has no float kernels: an operator without an int8 one fails the conversion instead
    # of staying float unnoticed.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8


_QUANTISATIONS: Mapping[str | None, _Quantisation] = {
    None: _Quantisation(_float32),
    "int8": _Quantisation(_int8, calibrated=True),
}


def convert(
    model: keras.Model,
    quantize: str | None = None,
    representative: Iterable[np.ndarray | Sequence | Mapping] | None = None,
) -> bytes:
    """Converts a Keras model into a TFLite file of batch 1.

    Inputs keep their names and their order (``model.inputs``); outputs are in the order of
    ``model.outputs``. Layers run in inference mode.

    Args:
        model: A built functional or Sequential model whose input shapes are fixed but for the
            batch dimension.
        quantize: None for float32, or "int8" for full-integer quantisation with int8 inputs and
            outputs.
        representative: Calibration data for "int8": an iterable of samples, each of batch 1. For
            one input a sample is an array of shape ``(1, ...)``; for several it is a sequence of
            such arrays in the order of ``model.inputs``, or a mapping from input name. Scale them
            as the model's inputs will be; some hundred samples are usual.

    Returns:
        The contents of a ``.tflite`` file.

    Raises:
        ValueError: If an argument or the model cannot be converted; found before the conversion.
        Exception: TensorFlow's ``ConverterError``, if an operator has no TFLite counterpart.
    """
    if quantize not in _QUANTISATIONS:
        allowed = ", ".join(map(repr, _QUANTISATIONS))
        raise ValueError(f"quantize must be one of {allowed}; received {quantize!r}.")
    mode = _QUANTISATIONS[quantize]
    signature = _signature(model)
    _require_finite_weights(model)
    samples: list[Sample] = []
    if mode.calibrated:
        samples = _samples(representative, quantize, model, signature)
    elif representative is not None:
        raise ValueError(
            f"quantize={quantize!r} uses no representative data, but some were given; leave "
            "representative out or choose quantize='int8'."
        )

    with _quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([_freeze(model, signature)])
        mode.configure(converter, samples)
        return bytes(converter.convert())


def _signature(model: keras.Model) -> list[tf.TensorSpec]:
    """The static batch-1 signature, in the order of ``model.inputs``."""
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "conversion needs Keras on the TensorFlow backend, but it runs on "
            f"{keras.config.backend()!r}; set KERAS_BACKEND=tensorflow before importing keras."
        )
    if not getattr(model, "inputs", None):
        raise ValueError(
            "model must be a built functional or Sequential keras.Model with known inputs; "
            f"received {type(model).__name__} without them. Begin a Sequential model with "
            "keras.Input, or wrap a subclassed one in keras.Model(x, model(x)), x a keras.Input."
        )
    for tensor in model.inputs:
        if tensor.shape[0] not in (None, 1) or None in tensor.shape[1:]:
            raise ValueError(
                f"input {tensor.name!r} has shape {tuple(tensor.shape)}, but conversion needs a "
                "batch of None or 1 and every other dimension fixed; rebuild the model with a "
                "fixed input shape."
            )
    return [
        tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]


def _require_finite_weights(model: keras.Model) -> None:
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    bad = [path for path, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(
            f"every weight must be finite, but {len(bad)} of {len(arrays)} variables hold NaN or "
            f"infinity (the first is {bad[0]!r}); retrain or restore the model."
        )


def _samples(
    representative: Iterable | None,
    quantize: str | None,
    model: keras.Model,
    signature: list[tf.TensorSpec],
) -> list[Sample]:
    """Checks the representative data and brings each sample into the order of the signature."""
    wanted = ", ".join(f"{spec.name} {tuple(spec.shape)}" for spec in signature)
    if not isinstance(representative, Iterable):
        received = "None" if representative is None else type(representative).__name__
        raise ValueError(
            f"quantize={quantize!r} needs representative data, an iterable of samples ({wanted}); "
            f"received {received}."
        )
    samples = [_in_order(sample, model, signature) for sample in representative]
    if not samples:
        raise ValueError(
            f"representative is empty, but quantize={quantize!r} needs at least one sample "
            f"({wanted}); a generator can be read only once."
        )
    for index, sample in enumerate(samples):
        shapes = [array.shape for array in sample]
        if shapes != [tuple(spec.shape) for spec in signature]:
            raise ValueError(
                f"each representative sample must hold {wanted}; sample {index} has the shapes "
                f"{shapes}. Give one sample at a time, with a batch dimension of 1."
            )
        if not all(np.isfinite(array).all() for array in sample):
            raise ValueError(
                f"representative sample {index} holds NaN or infinity, from which no scale can be "
                "derived; remove or repair it."
            )
    return samples


def _in_order(sample: object, model: keras.Model, signature: list[tf.TensorSpec]) -> Sample:
    if isinstance(sample, Mapping):
        names = [spec.name for spec in signature]
        structure = getattr(model, "input", None)
        if isinstance(structure, Mapping):
            # Keras only warns when a key differs from the name of its tensor: the key is what the
            # model's callers write, and flattening puts keys and tensors in the same order.
            names = keras.tree.flatten({key: key for key in structure})
        if set(sample) != set(names):
            raise ValueError(
                f"a representative sample given as a mapping must have the keys {names}; received "
                f"{list(sample)}."
            )
        arrays = [sample[name] for name in names]
    elif isinstance(sample, (list, tuple)):
        arrays = list(sample)
    else:
        arrays = [sample]
    if len(arrays) != len(signature):
        raise ValueError(
            f"each representative sample must hold {len(signature)} arrays, one for each input in "
            f"the order of model.inputs; received {len(arrays)}."
        )
    return [
        np.asarray(array, dtype=spec.dtype.as_numpy_dtype)
        for array, spec in zip(arrays, signature, strict=True)
    ]


def _freeze(model: keras.Model, signature: list[tf.TensorSpec]) -> tf.types.experimental.Callable:
    """The model as a graph function with its weights as constants and its outputs flattened."""

    def call(*tensors: tf.Tensor) -> list[tf.Tensor]:
        # A Sequential model has one input and no `input` attribute until it has been called.
        inputs = (
            tensors[0]
            if len(tensors) == 1 and isinstance(model, keras.Sequential)
            else keras.tree.pack_sequence_as(model.input, tensors)
        )
        return keras.tree.flatten(model(inputs, training=False))

    traced = tf.function(call, input_signature=signature, autograph=False)
    # Unfrozen, the converter would leave the variables out of the file without an error.
    return convert_variables_to_constants_v2(traced.get_concrete_function())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences two notices of the converter that no caller can act upon.

    They advise a ``trackable_obj``, which a frozen graph does not need, and miss statistics of the
    inputs, which only the retired quantisation-aware path used.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
            yield
    finally:
        logger.setLevel(level)
