"""Finding code in Keras 2 files before any of it is executed.

Keras 2 (tf_keras) no longer gets fixes: loading its files can execute bytecode
of a Lambda layer, import any module that a configuration names, run any operation
of TensorFlow, and read any file as a vocabulary. Here the configuration is only read as
data, and what is not known to be harmless is refused.
"""

from __future__ import annotations

import functools
import inspect
import operator
import pathlib
from collections.abc import Iterator
from typing import Any

from amc_tf.errors import AmcError
from amc_tf.keras2 import model_archive

# Namespaces of TensorFlow's API whose functions only compute.
_COMPUTING = frozenset(
    "__operators__ audio bitwise dtypes image linalg math nn quantization random sets "
    "signal sparse strings".split()
)
# Functions at the top level, of version 2 and of version 1, that only compute.
_COMPUTING_FUNCTIONS = frozenset(
    "abs acos acosh add add_n argmax argmin argsort as_string asin asinh atan atan2 atanh "
    "batch_gather batch_to_space batch_to_space_nd bitcast boolean_mask broadcast_dynamic_shape "
    "broadcast_static_shape broadcast_to cast ceil clip_by_global_norm clip_by_norm "
    "clip_by_value complex concat conj constant convert_to_tensor cos cosh cross cumprod cumsum "
    "depth_to_space dequantize diag diag_part digamma div div_no_nan divide dynamic_partition "
    "dynamic_stitch edit_distance eig eigvals einsum ensure_shape equal erf erfc exp expand_dims "
    "expm1 extract_image_patches extract_volume_patches eye fill fingerprint floor floor_div "
    "floordiv floormod gather gather_nd greater greater_equal histogram_fixed_width "
    "histogram_fixed_width_bins identity identity_n imag is_finite is_inf is_nan less less_equal "
    "lgamma linspace log log1p log_sigmoid logical_and logical_not logical_or logical_xor matmul "
    "matrix_square_root maximum meshgrid minimum mod multiply negative norm not_equal one_hot "
    "ones ones_like pad parallel_stack polygamma pow quantize range rank real realdiv reciprocal "
    "reduce_all reduce_any reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod "
    "reduce_sum repeat required_space_to_batch_paddings reshape reverse reverse_sequence "
    "reverse_v2 rint roll round rsqrt saturate_cast scalar_mul scatter_nd searchsorted "
    "segment_max segment_mean segment_min segment_prod segment_sum sequence_mask shape shape_n "
    "sigmoid sign sin sinh size slice sort space_to_batch space_to_batch_nd space_to_depth split "
    "sqrt square squared_difference squeeze stack stop_gradient strided_slice subtract tan tanh "
    "tensor_scatter_nd_add tensor_scatter_nd_max tensor_scatter_nd_min tensor_scatter_nd_sub "
    "tensor_scatter_nd_update tensordot tile to_bfloat16 to_double to_float to_int32 to_int64 "
    "trace transpose truediv truncatediv truncatemod unique unique_with_counts unravel_index "
    "unstack where zeros zeros_like".split()
)
_FUNCTION_LAYERS = frozenset({"TFOpLambda", "SlicingOpLambda"})
# Modules of Keras 2 with the classes that files may name, and with the functions.
_CLASSES = (
    "constraints",
    "initializers",
    "layers",
    "layers.experimental",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "optimizers",
    "optimizers.legacy",
    "optimizers.schedules",
    "regularizers",
)
_FUNCTIONS = ("activations", "losses", "metrics")
# Names of files that the public modules do not have: of functional models, and of older versions.
_OLDER = frozenset(
    "BatchNormalizationV1 BatchNormalizationV2 CuDNNGRU CuDNNLSTM Functional GRUCellV1 GRUCellV2 "
    "GRUV1 GRUV2 LSTMCellV1 LSTMCellV2 LSTMV1 LSTMV2 PreprocessingLayer".split()
)
_ALLOW = (
    "if you trust where it comes from, allow it by safe_mode=False (--unsafe in commands that "
    "load models)"
)


def only_computes(symbol: str) -> bool:
    """Returns whether a function of TensorFlow's API, named without `tf.`, only computes."""
    symbol = symbol.removeprefix("compat.").removeprefix("v1.").removeprefix("v2.")
    namespace, _, name = symbol.rpartition(".")
    return namespace.split(".")[0] in _COMPUTING if namespace else name in _COMPUTING_FUNCTIONS


def refuse_code(path: pathlib.Path) -> None:
    """Raises an error if loading a Keras 2 file would do more than make layers of Keras.

    Args:
        path: an existing .h5 or .keras file, or a SavedModel folder.

    Raises:
        AmcError: the file is damaged or a SavedModel (a TensorFlow program), or holds a Lambda
            layer, a class that is neither part of Keras nor registered, a TensorFlow function
            that is not known to only compute, or the name of another file.
    """
    if path.is_dir():
        raise AmcError(
            f"{path} is a SavedModel, a TensorFlow program that may do anything when it is loaded; "
            f"{_ALLOW}"
        )
    for entry in _objects(model_archive.configurations(path)):
        found = _acts(entry)
        if found:
            raise AmcError(f"{path} holds {found}, which loading could execute; {_ALLOW}")
        vocabulary = _config(entry).get("vocabulary")
        if isinstance(vocabulary, str):
            raise AmcError(
                f"{path} names the file {vocabulary!r} as a vocabulary, which loading would "
                f"read; {_ALLOW}"
            )


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yields every object in configurations that names a class or function."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "class_name" in node:
                yield node
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def _config(entry: dict[str, Any]) -> dict[str, Any]:
    config = entry.get("config")
    return config if isinstance(config, dict) else {}


def _acts(entry: dict[str, Any]) -> str:
    """Returns what a configuration's object would execute, in words; empty if nothing."""
    import tf_keras

    name, module = str(entry["class_name"]), str(entry.get("module") or "keras")
    if name in ("Lambda", "__lambda__"):
        return "a Python function (Lambda)"
    if name in _FUNCTION_LAYERS:
        symbol = str(_config(entry).get("function", "__operators__.getitem"))
        return "" if only_computes(symbol) else f"a call of tf.{symbol}"
    called = str(entry.get("config")) if name == "function" else name
    registered = called if name == "function" else str(entry.get("registered_name") or name)
    if tf_keras.saving.get_registered_object(registered) is not None:
        return ""
    known = _functions() if name == "function" else _classes()
    homes = ("keras", "tf_keras", "builtins") if name == "function" else ("keras", "tf_keras")
    # Keras 2 looks for either of the two names.
    if called in known and registered == called and module.split(".")[0] in homes:
        return ""
    return f"{registered!r} of the module {entry.get('module')!r}"


@functools.cache
def _classes() -> frozenset[str]:
    """Returns the names of all classes of Keras 2 that only compute."""
    import tf_keras

    found = set(_OLDER)
    for module in _CLASSES:
        members = vars(operator.attrgetter(module)(tf_keras))
        found |= {name for name, value in members.items() if inspect.isclass(value)}
    return frozenset(found - {"Lambda"})


@functools.cache
def _functions() -> frozenset[str]:
    """Returns the names of the functions of Keras 2 that only compute."""
    import tf_keras

    found = set()
    for module in _FUNCTIONS:
        members = vars(getattr(tf_keras, module))
        found |= {name for name, value in members.items() if inspect.isfunction(value)}
    return frozenset(found - {"deserialize", "get", "serialize"})
