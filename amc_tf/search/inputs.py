"""Fingerprints of the inputs of every stage: which stage depends on what."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from amc_tf.graph.keras_structure import uncompiled
from amc_tf.runs.model_files import fingerprint
from amc_tf.search.settings import SearchSettings
from amc_tf.training.fingerprint import of_code, of_data
from amc_tf.training.task import Task

# What each stage depends on beside its settings and the results of the stages before it. The
# search reads the dense model, whose weights `Workdir` compares.
_DEPENDS: Mapping[str, tuple[str, ...]] = {
    "train_dense": ("architecture", "weights", "train", "loss", "optimizer", "fit"),
    "search": ("architecture", "validation", "calibration", "calibration_size", "metric"),
    "finetune": ("train", "loss", "optimizer", "fine_tune"),
    "export": ("qat",),
    "measures": ("test",),
}
# Criteria of importance that read the training data and the loss.
BY_GRADIENTS = ("taylor",)


class Inputs:
    """The inputs of a run's stages, each fingerprinted once.

    Args:
        model: the model as it was given, compiled or not.
        task: its data and training code.
        settings: settings of the search.
    """

    def __init__(self, model: keras.Model, task: Task, settings: SearchSettings):
        self._model = model
        self._task = task
        self._settings = settings

    def of(self, *stages: str) -> dict[str, dict[str, Any]]:
        """Returns the fingerprints of the inputs of stages, by stage and by input.

        Args:
            stages: `train_dense`, `search`, `finetune`, `export` or `measures`.
        """
        return {stage: self._told(_DEPENDS[stage] + self._more(stage)) for stage in stages}

    def _more(self, stage: str) -> tuple[str, ...]:
        """Returns what a stage depends on by what the task or the settings say."""
        if stage != "search":
            return ()
        gradients = self._settings.importance in BY_GRADIENTS
        return (
            *(("train",) if gradients or self._task.calibration is None else ()),
            *(("loss",) if gradients or self._task.metric == "loss" else ()),
            *(("metrics",) if self._task.evaluate is None else ()),
        )

    def _told(self, names: tuple[str, ...]) -> dict[str, Any]:
        found = {name: _INPUTS[name](self) for name in names}
        # Fine-tuning is by the task's fit where it has no code of its own.
        return {{"fine_tune": "fit"}.get(name, name): value for name, value in found.items()}

    @functools.cached_property
    def _train(self) -> Any:
        return of_data(self._task.training_data)

    @functools.cached_property
    def _compiled(self) -> keras.Model:
        # It shares the layers, but compiling it leaves the user's model alone.
        return self._task.compiled(uncompiled(self._model), self._model)

    def _fit(self, code: Any) -> Any:
        if code is not None:
            return {"code": of_code(code)}
        names = ("epochs", "batch_size", "train_steps")
        return {name: getattr(self._task, name, None) for name in names}


_INPUTS: Mapping[str, Callable[[Inputs], Any]] = {
    "architecture": lambda self: architecture(self._model),
    "weights": lambda self: fingerprint(self._model),
    "train": lambda self: self._train,
    "validation": lambda self: of_data(self._task.validation),
    "test": lambda self: of_data(self._task.test),
    "calibration": lambda self: of_data(self._task.calibration),
    "calibration_size": lambda self: self._task.calibration_size,
    "metric": lambda self: of_code([self._task.metric, getattr(self._task, "mode", None)]),
    "metrics": lambda self: _metrics(self._compiled),
    "loss": lambda self: of_code(getattr(self._compiled, "loss", None)),
    "optimizer": lambda self: _optimizer(self._compiled),
    "fit": lambda self: self._fit(self._task.fit),
    "fine_tune": lambda self: self._fit(self._task.fine_tune or self._task.fit),
    "qat": lambda self: of_code(self._task.qat),
}


def architecture(model: keras.Model) -> str:
    """Returns a checksum of a model's layers, their settings and connections.

    Names of layers and tensors count only by their order, as Keras numbers them by the process.
    """
    try:
        config = model.get_config()
    except Exception:  # a layer of the user's that has no configuration
        config = [
            [type(layer).__qualname__, [list(w.shape) for w in layer.weights]]
            for layer in model.layers
        ]
    names: dict[str, str] = {}
    _collect(config, names)
    text = json.dumps(_renamed(config, names), sort_keys=True, default=of_code)
    return f"{zlib.crc32(text.encode()):08x}"


def _collect(config: Any, names: dict[str, str]) -> None:
    if isinstance(config, dict):
        if isinstance(config.get("name"), str):
            names.setdefault(config["name"], f"#{len(names)}")
        # The name of a dtype policy says what it is.
        config = [value for key, value in config.items() if key != "dtype"]
    if isinstance(config, (list, tuple)):
        for inner in config:
            _collect(inner, names)


def _renamed(config: Any, names: Mapping[str, str]) -> Any:
    if isinstance(config, Mapping):
        if config.get("class_name") == "__lambda__":
            return "__lambda__"  # its bytes hold the place in the file
        return {
            str(key): _renamed(value, names)
            for key, value in config.items()
            if key != "shared_object_id"
        }
    if isinstance(config, (list, tuple)):
        return [_renamed(inner, names) for inner in config]
    return names.get(config, config) if isinstance(config, str) else config


def _metrics(model: keras.Model) -> Any:
    try:
        config = model.get_compile_config() or {}
    except Exception:  # a lambda, or an object that has no configuration
        return None
    return of_code([config.get("metrics"), config.get("weighted_metrics")])


def _optimizer(model: keras.Model) -> Any:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    name, config = of_code(optimizer)
    return {"class": name, **(config or {})}
