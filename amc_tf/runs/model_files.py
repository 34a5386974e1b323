"""Model files: safe loading, and fingerprints of the weights."""

from __future__ import annotations

import functools
import hashlib
import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph import network
from amc_tf.keras2 import convert, model_archive, model_files

_LOG = logging.getLogger(__name__)
# What Keras says of classes and functions that it does not know, in .keras and in .h5 files.
_MISSING = (
    r"Could not locate (?P<kind>\w+) '(?P<name>[^']+)'",
    r"Unknown (?P<kind>layer|\w+): '(?P<name>[^']+)'",
)


def refuse_code(flat: network.Network) -> None:
    """Checks that the saved file of a network will hold no Python code.

    Raises:
        AmcError: the function of a Lambda layer is not registered; the message names the layer.
    """
    for operation in (*flat.operations(), *flat.unread):
        if isinstance(operation, keras.layers.Lambda):
            try:
                keras.layers.Lambda.from_config(operation.get_config(), safe_mode=True)
            except Exception:
                raise AmcError(
                    f"the layer {operation.name!r} (Lambda) holds Python code, and so would the "
                    "files of the run, which are loaded without executing code; register the "
                    "function (keras.saving.register_keras_serializable), or allow it by "
                    "safe_mode=False (--unsafe)"
                ) from None


def load_model(
    path: str | pathlib.Path,
    safe_mode: bool = True,
    custom_objects: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Loads a .keras or .h5 file, or whatever Keras 2 (tf_keras) saved.

    Args:
        path: the file, or the folder of a Keras 2 SavedModel; `~` is expanded.
        safe_mode: whether files that would execute their own code are refused:
            Lambda layers, and SavedModels, which are TensorFlow programs; and files
            that keep a part of their data in other files. Turn it off only for files
            that you would run as programs.
        custom_objects: classes and functions that are not registered with Keras, by the
            name that the file has for them.

    Returns:
        The model. It is compiled if Keras 3 saved it compiled and its loss and
        metrics are known; a warning says where they are not. A Keras 2 model is
        converted (`from_keras2`).

    Raises:
        AmcError: the file is missing, damaged or not a Keras model, holds code, keeps data in
            other files, or needs custom objects that are not registered.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_file():
        kind = model_archive.other_kind(path)
        if kind:
            raise AmcError(f"{path} {kind}")
    if model_files.is_keras2_file(path):
        return convert.from_keras2(path, safe_mode=safe_mode)
    if not path.is_file():
        raise AmcError(f"there is no model file {path}")
    if safe_mode:
        model_archive.refuse_outside_data(path)
    loading = functools.partial(
        keras.models.load_model, path, dict(custom_objects or {}), safe_mode=safe_mode
    )
    try:
        return loading()
    except Exception as error:
        try:
            # A loss or a metric may be at fault, which the task gives anew.
            model = loading(compile=False)
        except Exception as final:
            raise _explained(path, final, safe_mode) from final
        _LOG.warning(
            "%s is loaded without its compile settings, which Keras cannot read (%s)",
            path,
            _reason(error),
        )
        return model


def _explained(path: pathlib.Path, error: Exception, safe_mode: bool) -> AmcError:
    """Makes one sentence of why Keras cannot load a file."""
    if safe_mode and "safe_mode=False" in str(error):
        return AmcError(
            f"{path} holds Python code (a Lambda layer), which loading would execute; if you "
            "trust its source, allow it by safe_mode=False (--unsafe)"
        )
    missing = next(filter(None, (re.search(text, str(error)) for text in _MISSING)), None)
    if missing:
        kind, name = missing.groupdict().get("kind") or "layer class", missing["name"]
        return AmcError(
            f"{path} needs the {kind} {name!r}, which is not registered with Keras; decorate "
            "it with @keras.saving.register_keras_serializable() and import its module first "
            f"(--import in a command), or give custom_objects={{{name!r}: ...}}"
        )
    return AmcError(
        f"{path} cannot be loaded as a Keras model ({type(error).__name__}: {_reason(error)}); if "
        "it uses custom objects, import the module that registers them first (--import in a "
        "command)"
    )


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def fingerprint(model: keras.Model) -> str:
    """Returns a hash of a model's weights, by which a work directory recognises its model."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        # Keras numbers variables without a name by the process: variable, variable_1, ...
        name = re.sub(r"^variable_\d+$", "variable", weight.name)
        digest.update(f"{name}{value.shape}{value.dtype}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]
