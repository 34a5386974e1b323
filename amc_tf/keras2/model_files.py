"""Files of Keras 2 models."""

from __future__ import annotations

import pathlib
from typing import Any

from amc_tf.errors import AmcError
from amc_tf.keras2 import model_archive, safety


def is_keras2_file(path: pathlib.Path) -> bool:
    """Returns whether Keras 1 or 2 wrote a .keras or .h5 file, or a SavedModel folder.

    Raises:
        AmcError: the file is damaged.
    """
    if path.is_dir():
        # Before TensorFlow 2.5 there was no keras_metadata.pb beside it.
        return (path / "saved_model.pb").exists()
    return model_archive.version(path).startswith(("1", "2"))


def load_file(path: pathlib.Path, safe_mode: bool) -> Any:
    """Loads the model in a file with Keras 2.

    Raises:
        AmcError: the file does not exist, is damaged, cannot be loaded, or, in safe mode, holds
            code or keeps data in other files.
    """
    import tf_keras

    if not path.exists():
        raise AmcError(f"there is no model file or folder {path}")
    if safe_mode:
        safety.refuse_code(path)
        model_archive.refuse_outside_data(path)
    elif path.is_file():
        model_archive.configurations(path)
    try:
        return tf_keras.models.load_model(path, compile=False, safe_mode=safe_mode)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise AmcError(
            f"{path} cannot be loaded as a Keras 2 model ({type(error).__name__}: {reason}); if "
            "it uses custom objects, register them with "
            "tf_keras.saving.register_keras_serializable, or load it yourself and give the model"
        ) from error
