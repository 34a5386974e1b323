"""Configuration files: each describes an experiment as a Python program.

A configuration file defines

* `get_config()`: a `ConfigDict`, usually `amc_tf.default_config()` with changes;
* `get_model(config)`: the Keras model;
* `get_task(config)`: the `amc_tf.Task`.

The file is code and is executed: run only files that you trust.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import sys
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

import keras
import ml_collections

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.pipeline.compression import Compression
from amc_tf.pipeline.settings import Settings, nested
from amc_tf.search.env.budget import Budget

Section = TypeVar("Section")


def default_config() -> ml_collections.ConfigDict:
    """Returns all settings with their defaults, by section, and an empty `budget`.

    The sections are `search`, `recovery`, `finetune`, `export`, `latency` and `sparsity`, as in
    `amc_tf.Settings`, whose classes describe each setting; `train_dense`, `fold_residuals` and
    `rehearse` stand beside them. The sections are locked, so that a misspelt setting is an error
    that names the nearest one. An experiment may add its own keys beside them.

    Constraints of single layers are pairs, so that the command line accepts them, too:

        config.search.importance = "taylor"
        config.search.constraints.freeze = ("stem",)
        config.search.constraints.min_preserve = (("block_1*", 0.5), ("head", 0.8))
        config.search.constraints.rounding = (("block_*", 16),)

        --config.search.constraints.min_preserve='(("block_1*", 0.5), ("head", 0.8))'
    """
    config = _section(Settings())
    config.budget = ml_collections.ConfigDict(
        {
            field.name: ml_collections.config_dict.placeholder(float)
            for field in dataclasses.fields(Budget)
        }
    )
    for section in ("budget", *nested(Settings)):
        config[section].lock()
    return config


def _section(settings: Any) -> ml_collections.ConfigDict:
    """Returns settings that the command line can change: one that is None has a type, too."""
    config, types = ml_collections.ConfigDict(), typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = _section(value)
        elif value is None:
            (kind,) = (t for t in typing.get_args(types[field.name]) if t is not type(None))
            value = ml_collections.config_dict.placeholder(kind)
        config[field.name] = value
    return config


def load(
    config: ml_collections.ConfigDict,
    path: str,
    workdir: str,
    safe_mode: bool = True,
    verbose: story.Verbose = True,
) -> Compression:
    """Builds the run that a configuration describes.

    Args:
        config: the result of the file's `get_config`, with overrides.
        path: the configuration file, for `get_model` and `get_task`.
        workdir: folder of the run's files.
        safe_mode: see `Compression`; the configuration file itself is always executed.
        verbose: see `Compression`.

    Returns:
        The `Compression`, whose inputs are checked.

    Raises:
        AmcError: a value is wrong, or the file lacks a function.
    """
    settings = section(Settings, {f.name: config[f.name] for f in dataclasses.fields(Settings)})
    bounds = {k: v for k, v in config.budget.to_dict().items() if v is not None}
    budget = Budget(**bounds) if bounds else None
    module = load_module(path)
    for name in ("get_model", "get_task"):
        if not callable(getattr(module, name, None)):
            raise AmcError(f"{path} must define {name}(config); see configs/mnist.py")
    # The seed determines the weights of a model that get_model builds, and its dropout.
    keras.utils.set_random_seed(settings.search.seed)
    model, task = module.get_model(config), module.get_task(config)
    apart = {"budget", "train_dense", "fold_residuals", "rehearse"}
    own = {name: value for name, value in config.to_dict().items() if name not in apart}
    return Compression(model, task, budget, workdir, settings, own, safe_mode, verbose)


def section(cls: type[Section], values: Mapping[str, Any] | ml_collections.ConfigDict) -> Section:
    """Makes the settings of a class, including nested ones, from a section's values.

    Raises:
        AmcError: a value is wrong.
    """
    given = dict(values.items())
    given.update({name: section(inner, values[name]) for name, inner in nested(cls).items()})
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise AmcError(f"configuration: {error}") from error


def load_module(path: str) -> ModuleType:
    """Executes a configuration file."""
    file = pathlib.Path(path)
    if not file.is_file():
        raise AmcError(f"there is no Python file {path}")
    spec = importlib.util.spec_from_file_location(f"amc_tf_experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise AmcError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Like a script, a configuration can import the modules beside it.
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
