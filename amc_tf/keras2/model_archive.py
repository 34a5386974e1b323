"""Keras files read as data: the version that wrote them, and what lies outside them.

A file is an HDF5 file, a zip archive with an HDF5 file inside, or both at once. HDF5 can keep
the values of a dataset in any other file. Loading such a file would make weights of what
another file of this machine holds.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import h5py

from amc_tf.errors import AmcError

# What json, zipfile and h5py raise for a damaged file; also its parts with other types.
_DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,  # RecursionError, and zip archives under a password
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

_LFS = b"version https://git-lfs.github.com/spec"


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """Turns what a damaged model file raises into one sentence.

    Raises:
        AmcError: anything in the context raised an error of damaged files.
    """
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AmcError(
            f"{path} cannot be loaded as a Keras model ({type(error).__name__}: {reason}); the "
            "file is damaged or no model file: save or download it again"
        ) from error


def version(path: pathlib.Path) -> str:
    """Returns the version of Keras that wrote a file; empty if no Keras model is in it.

    Raises:
        AmcError: the file is damaged.
    """
    with reading(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if "metadata.json" not in archive.namelist():
                    return ""
                found = json.loads(archive.read("metadata.json")).get("keras_version", "")
        elif h5py.is_hdf5(path):
            with h5py.File(path) as file:
                # Some very old files do not record the version.
                found = file.attrs.get("keras_version", "1" if "model_config" in file.attrs else "")
        else:
            return ""
        return found.decode() if isinstance(found, bytes) else str(found)


def other_kind(path: pathlib.Path) -> str | None:
    """Says what a file is that is no model of its own, and what to do; None if it may be one."""
    with path.open("rb") as stream:
        start = stream.read(len(_LFS))
    if start == _LFS:
        return "is a pointer of Git LFS, not the file itself; fetch it (git lfs pull)"
    with reading(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            if any("\\" in name for name in names):
                return (
                    "is an archive whose paths have backslashes, in which Keras finds no weights; "
                    "unpack it and pack it again with slashes, or save the model again"
                )
        elif h5py.is_hdf5(path):
            with h5py.File(path) as file:
                if "model_config" not in file.attrs:
                    return (
                        "holds weights without the model; build the model in code, load them by "
                        "model.load_weights, and give the model or save it whole (model.save)"
                    )
    return None


def configurations(path: pathlib.Path) -> list[Any]:
    """Returns the configurations that either format would read: a file can have both formats.

    Raises:
        AmcError: the file is damaged, or holds weights without a configuration.
    """
    found = []
    with reading(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if "config.json" not in archive.namelist():
                    raise ValueError("the archive holds no config.json")
                found.append(json.loads(archive.read("config.json")))
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                if "model_config" in file.attrs:
                    found.append(json.loads(file.attrs["model_config"]))
                elif not found:
                    raise ValueError("the file holds weights only, without the model")
        for configuration in found:
            if not isinstance(configuration, dict) or "class_name" not in configuration:
                raise ValueError("the configuration names no model class")
    return found


def refuse_outside_data(path: pathlib.Path) -> None:
    """Raises an error if a part of a model file lies in another file.

    Args:
        path: a file that Keras 2 or Keras 3 is to load.

    Raises:
        AmcError: a dataset is external or virtual, or a link is no hard link; or the file is
            damaged.
    """
    with reading(path):
        outside = _in_archive(path) if zipfile.is_zipfile(path) else None
        if outside is None and h5py.is_hdf5(path):
            with h5py.File(path) as file:
                outside = _outside(file)
    if outside is not None:
        raise AmcError(
            f"{path} keeps {outside} outside of itself, so loading it would read another file of "
            "this machine; if you trust where it comes from, allow it by safe_mode=False (--unsafe)"
        )


def _in_archive(path: pathlib.Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith(".h5"):
                with archive.open(member) as stream, h5py.File(stream) as file:
                    outside = _outside(file)
                    if outside is not None:
                        return outside
    return None


def _outside(file: h5py.File) -> str | None:
    """Returns the path of the first dataset or link that leads elsewhere."""
    pending, seen = [file["/"]], set()
    while pending:
        group = pending.pop()
        # Hard links can form a cycle.
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return repr(where)
            child = group[name]
            if isinstance(child, h5py.Dataset) and (child.external or child.is_virtual):
                return repr(where)
            if isinstance(child, h5py.Group):
                pending.append(child)
    return None
