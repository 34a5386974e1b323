"""Configuration files: one experiment each, as a Python program.

A configuration file defines

* `get_config()`: a `ConfigDict`, usually `amc_tf.default_config()` with changes;
* `get_model(config)`: the Keras model;
* `get_task(config)`: the `amc_tf.Task`.

It is code and is executed: run only files you trust.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
import sys
from types import ModuleType
from typing import Any

import keras
import ml_collections

from amc_tf.errors import AmcError
from amc_tf.export.settings import ExportSettings
from amc_tf.graph.constraints import Constraints
from amc_tf.latency.settings import LatencySettings
from amc_tf.pipeline.compression import Compression
from amc_tf.pipeline.settings import Settings
from amc_tf.search.agents.ddpg.settings import DdpgSettings
from amc_tf.search.env.budget import Budget
from amc_tf.search.settings import SearchSettings
from amc_tf.sparsity.settings import SparsitySettings
from amc_tf.training.finetune import FineTuneSettings


def default_config() -> ml_collections.ConfigDict:
    """Every setting with its default: `budget`, `train_dense`, `search`, `finetune`, `export`.

    The sections are locked, so that a misspelt setting is an error that names
    the nearest one; beside them an experiment adds keys of its own as it likes.
    What each means is told at the class of its section (`amc_tf.Settings`).

    Constraints of single layers are pairs, so that the command line takes them too:

        config.search.importance = "taylor"
        config.search.constraints.freeze = ("stem",)
        config.search.constraints.min_preserve = (("block_1*", 0.5), ("head", 0.8))
        config.search.constraints.rounding = (("block_*", 16),)

        --config.search.constraints.min_preserve='(("block_1*", 0.5), ("head", 0.8))'
    """
    config = ml_collections.ConfigDict(dataclasses.asdict(Settings()))
    config.budget = ml_collections.ConfigDict(
        {
            field.name: ml_collections.config_dict.placeholder(float)
            for field in dataclasses.fields(Budget)
        }
    )
    for section in ("budget", "search", "finetune", "export", "latency", "sparsity"):
        config[section].lock()
    return config


def load(
    config: ml_collections.ConfigDict, path: str, workdir: str, safe_mode: bool = True
) -> Compression:
    """Builds the run that a configuration describes.

    Args:
        config: what `get_config` of the file returned, with overrides.
        path: the configuration file, for `get_model` and `get_task`.
        workdir: folder of the run's files.
        safe_mode: see `Compression`; the configuration file itself is executed anyway.

    Returns:
        The `Compression`, its inputs checked.

    Raises:
        AmcError: a value is wrong, or the file lacks a function.
    """
    settings = Settings(
        train_dense=config.train_dense,
        search=section(SearchSettings, config.search, ddpg=DdpgSettings, constraints=Constraints),
        finetune=section(FineTuneSettings, config.finetune),
        export=section(ExportSettings, config.export),
        latency=section(LatencySettings, config.latency),
        sparsity=section(SparsitySettings, config.sparsity),
    )
    bounds = {k: v for k, v in config.budget.to_dict().items() if v is not None}
    budget = Budget(**bounds) if bounds else None
    module = load_module(path)
    for name in ("get_model", "get_task"):
        if not callable(getattr(module, name, None)):
            raise AmcError(f"{path} must define {name}(config); see configs/mnist.py")
    # The weights of a model built by get_model, and its dropout, follow the seed.
    keras.utils.set_random_seed(settings.search.seed)
    model, task = module.get_model(config), module.get_task(config)
    own = {k: v for k, v in config.to_dict().items() if k not in {"budget", "train_dense"}}
    return Compression(model, task, budget, workdir, settings, own, safe_mode)


def section(cls: type, values: ml_collections.ConfigDict, **nested: type) -> Any:
    """The settings class of a section, made of its values; `nested` names classes within.

    Raises:
        AmcError: a value is wrong.
    """
    given = dict(values.items())
    given.update({name: section(inner, values[name]) for name, inner in nested.items()})
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise AmcError(f"configuration: {error}") from error


def load_module(path: str) -> ModuleType:
    """Executes a configuration file."""
    file = pathlib.Path(path)
    spec = importlib.util.spec_from_file_location(f"amc_tf_experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise AmcError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # As a script does, a configuration finds the modules that lie beside it.
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
