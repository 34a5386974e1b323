"""Fingerprints of the inputs of every stage: which stage depends on what."""

from __future__ import annotations

import functools
import json
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from amc_tf import files
from amc_tf.graph.own_classes import own_parts
from amc_tf.pruning.importance.criteria import BY_GRADIENTS, elimination
from amc_tf.runs.model_files import fingerprint
from amc_tf.search.env.rewards import DIVERGENCE
from amc_tf.search.settings import SearchSettings
from amc_tf.training.divergence import divergence
from amc_tf.training.fingerprint import of_code, of_data, of_methods
from amc_tf.training.task import Task

# What each stage depends on beside its settings and the results of the stages before it. The
# search reads the dense model, whose weights `Workdir` compares.
_DEPENDS: Mapping[str, tuple[str, ...]] = {
    "train_dense": ("architecture", "weights", "train", "loss", "optimizer", "fit"),
    "search": ("architecture", "validation", "calibration", "calibration_size", "metric"),
    "finetune": ("train", "loss", "optimizer", "fine_tune"),
    "export": ("qat",),
    "measures": ("test", "evaluate"),
}
# Methods of a model's class on which its scores depend, and on which its loss does.
_SCORING = (
    "compute_metrics",
    "evaluate",
    "get_metrics_result",
    "make_test_function",
    "metrics",
    "predict",
    "predict_step",
    "test_step",
)
_LOSS = ("compute_loss",)


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
        gradients = not self._settings.criteria.isdisjoint(BY_GRADIENTS)
        by_loss = self._task.metric == "loss" or self._task.metric.endswith("_loss")
        compares = (
            self._settings.reward == DIVERGENCE or elimination.__name__ in self._settings.criteria
        )
        return (
            *(("train",) if gradients or self._task.calibration is None else ()),
            *(("loss",) if gradients or by_loss else ()),
            *(("metrics",) if self._task.evaluate is None else ()),
            *(("divergence",) if compares else ()),
        )

    def _told(self, names: tuple[str, ...]) -> dict[str, Any]:
        found = {name: _INPUTS[name](self) for name in names}
        # Fine-tuning is by the task's fit where it has no code of its own.
        return {{"fine_tune": "fit"}.get(name, name): value for name, value in found.items()}

    @functools.cached_property
    def _train(self) -> Any:
        return None if self._task.train is None else of_data(self._task.training_data)

    @functools.cached_property
    def _compiled(self) -> keras.Model:
        return self._task.twin(self._model)

    def _fit(self, code: Any) -> Any:
        own = of_methods(type(self._model))  # a train_step, for example
        more = {"class": files.checksum(own)} if own else {}
        if code is not None:
            return {"code": of_code(code), **more}
        names = ("epochs", "batch_size", "train_steps")
        return {**{name: getattr(self._task, name, None) for name in names}, **more}


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
    "loss": lambda self: _loss(self._compiled),
    # What the loss says that the outputs are decides how they are compared.
    "divergence": lambda self: divergence(self._compiled).name,
    "optimizer": lambda self: _optimizer(self._compiled),
    "fit": lambda self: self._fit(self._task.fit),
    "fine_tune": lambda self: self._fit(self._task.fine_tune or self._task.fit),
    "qat": lambda self: of_code(self._task.qat),
    "evaluate": lambda self: of_code(self._task.evaluate),
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
    own = own_code(model)
    if own:  # what a layer of the user's computes is not in its configuration
        text += json.dumps(own, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def own_code(model: keras.Model) -> dict[str, Any]:
    """Returns the code of the user's layers and functions that a model is made of, by name."""
    told = {
        name: of_code(part) if isinstance(part, types.FunctionType) else of_methods(part)
        for name, part in own_parts(model).items()
    }
    return {name: code for name, code in told.items() if code}


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
        told = of_code([config.get("metrics"), config.get("weighted_metrics")])
    except Exception:  # a lambda, or an object that has no configuration
        told = None
    # The configuration names the user's functions and classes, but does not hold their code.
    given = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    parts = keras.tree.flatten([given.get("metrics"), given.get("weighted_metrics")])
    own = [code for code in map(_own_code, parts) if code]
    steps = of_methods(type(model), _SCORING)
    return [told, own, steps] if own or steps else told


def _loss(model: keras.Model) -> Any:
    told = of_code(getattr(model, "loss", None))
    given = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    weights, steps = of_code(given.get("loss_weights")), of_methods(type(model), _LOSS)
    return [told, weights, steps] if weights or steps else told


def _own_code(part: Any) -> Any:
    """Returns the code of a function or metric of the user's; None of one of Keras."""
    function = getattr(part, "_fn", part)  # within a MeanMetricWrapper
    if isinstance(function, types.FunctionType):
        return None if function.__module__.split(".")[0] == "keras" else of_code(function)
    return of_methods(type(part)) or None


def _optimizer(model: keras.Model) -> Any:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return None
    rate = vars(optimizer).get("_learning_rate")
    own = callable(rate) and type(rate).__module__.split(".")[0] != "keras"
    bare = optimizer
    if own:  # a schedule of the user's need not have a configuration
        bare = object.__new__(type(optimizer))
        vars(bare).update(vars(optimizer), _learning_rate=None)
    name, config, *code = of_code(bare)
    told = {"class": name, **(config or {})}
    if code:
        told["code"] = code
    if own:
        told["schedule"] = of_code(rate)
    left = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    if left is not None:
        told["exclude_from_weight_decay"] = left.pattern
    excluded = getattr(optimizer, "_exclude_from_weight_decay", None)
    if excluded:
        places = [i for i, v in enumerate(model.variables) if optimizer._var_key(v) in excluded]
        told["excluded from weight decay"] = places
    return told
