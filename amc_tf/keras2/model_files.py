"""Files of Keras 2 models."""

from __future__ import annotations

import json
import pathlib
import zipfile
from typing import Any

import h5py

from amc_tf.errors import AmcError
from amc_tf.keras2 import safety


def is_keras2_file(path: pathlib.Path) -> bool:
    """Returns whether Keras 1 or 2 wrote a .keras or .h5 file, or a SavedModel folder."""
    if path.is_dir():
        return (path / "keras_metadata.pb").exists()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "metadata.json" not in archive.namelist():
                return False
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    elif h5py.is_hdf5(path):
        with h5py.File(path) as file:
            # Some very old files do not record the version.
            version = file.attrs.get("keras_version", "1" if "model_config" in file.attrs else "")
    else:
        return False
    version = version.decode() if isinstance(version, bytes) else str(version)
    return version.startswith(("1", "2"))


def load_file(path: pathlib.Path, safe_mode: bool) -> Any:
    """Loads the model in a file with Keras 2.

    Raises:
        AmcError: the file does not exist, cannot be loaded, or, in safe mode, holds code.
    """
    import tf_keras

    if not path.exists():
        raise AmcError(f"there is no model file or folder {path}")
    if safe_mode:
        safety.refuse_code(path)
    try:
        return tf_keras.models.load_model(path, compile=False, safe_mode=safe_mode)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise AmcError(
            f"{path} cannot be loaded as a Keras 2 model ({type(error).__name__}: {reason}); if "
            "it uses custom objects, register them with "
            "tf_keras.saving.register_keras_serializable, or load it yourself and give the model"
        ) from error
