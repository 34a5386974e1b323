"""A recipe of fine-tuning: what the field does to pruned networks, in one function of a model."""

from __future__ import annotations

import dataclasses
import pathlib
import random
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError, number, whole
from amc_tf.recipes.batch_norms import reestimate
from amc_tf.training.compile_settings import CompileSettings
from amc_tf.training.data import Data
from amc_tf.training.distillation import Distillation
from amc_tf.training.fingerprint import of_data
from amc_tf.training.forms import batches_of
from amc_tf.training.optimizer_settings import OptimizerSettings

_WHOLE = {"epochs": 1, "batch_size": 1, "norm_batches": 0}
# Steps over which the average of the weights of a short training reaches back, at most, as a share
# of all steps: a longer one would hold the weights of the beginning.
_AVERAGED = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """A function of a compiled model, which it trains in place; for `Task(fine_tune=...)`.

    The loss, the metrics and the kind of optimizer are those that the model is compiled with. Each
    part can be left out.

    Attributes:
        train: training data, as in `Task`.
        epochs: passes over them.
        rate: largest learning rate; None for the one that the model is compiled with.
        warm_up: share of the steps in which the learning rate rises from 0; it then falls by a
            cosine to 0. None for the constant rate, or the schedule, of the compiled optimizer.
        average: decay of a moving average of the weights, which is kept in the end (the
            optimizer's `ema_momentum`), less in a short training; None for the last weights.
        augment: a layer of Keras, or a function of a batch of inputs, that makes each pass another:
            `keras.Sequential([keras.layers.RandomFlip("horizontal"), ...])`.
        norm_batches: batches from which the statistics of batch norms are estimated anew in the
            end, as those of the training belong to other weights; 0 for none.
        distillation: what is followed of the dense network; None for nothing. With it, losses of
            Keras lose their label smoothing, as the dense network's outputs are smooth.
        batch_size: batch size for arrays.
        steps: number of batches of an epoch, where data goes on where the last one ended; None
            for a pass over all.
        optimizer: an optimizer of which the kind and settings are taken; None for the compiled one.
        backup: folder for a checkpoint of each epoch, from which an interrupted call goes on; it
            serves one network.
    """

    train: Data
    epochs: int = 30
    rate: float | None = None
    warm_up: float | None = 0.05
    average: float | None = 0.999
    augment: Callable[[Any], Any] | None = None
    norm_batches: int = 100
    distillation: Distillation | None = None
    batch_size: int = 128
    steps: int | None = None
    optimizer: keras.optimizers.Optimizer | None = None
    backup: str | pathlib.Path | None = None

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        if callable(self.rate):
            raise AmcError(
                f"expected a rate as a number, received {type(self.rate).__name__}; compile the "
                "model with that schedule, and keep it by warm_up=None"
            )
        if self.rate is not None and not number("a rate", self.rate) > 0:
            raise AmcError(f"expected a rate above 0, received {self.rate!r}")
        for name in ("warm_up", "average"):
            value = getattr(self, name)
            if value is not None and not 0 <= number(name, value) < 1:
                raise AmcError(f"expected {name} in [0, 1), or None, received {value!r}")
        if self.steps is not None:
            object.__setattr__(self, "steps", whole("steps", self.steps, 1))
        batches_of("train", self.train, self.batch_size, self.steps)  # raises for other forms

    def __call__(self, model: keras.Model) -> keras.callbacks.History:
        """Trains a compiled model in place; returns what `Model.fit` returns.

        Raises:
            AmcError: the learning rate is not known, or the settings that the model is compiled
                with cannot be changed.
        """
        data, steps = self._data()
        settings = CompileSettings.of(model)
        if settings.own is not None:
            raise AmcError(
                f"{type(model).__name__} has a get_compile_config of its own, so that its "
                "optimizer cannot be replaced; give fine_tune=..., your own function"
            )
        arguments = dict(settings.arguments)
        if self.distillation is not None:
            arguments["loss"] = keras.tree.map_structure(_unsmoothed, arguments.get("loss"))
        optimizer = self._optimizer(model, self.epochs * steps)
        CompileSettings(arguments, optimizer).apply(model)
        callbacks = []
        if self.backup is not None:
            callbacks.append(keras.callbacks.BackupAndRestore(str(self.backup)))
        history = model.fit(
            data,
            epochs=self.epochs,
            steps_per_epoch=self.steps,
            callbacks=callbacks,
            shuffle=isinstance(data, _Augmented),  # the order of its batches
            verbose=2,
        )
        reestimate(model, (batch[0] for batch in _batches(data)), self.norm_batches)
        return history

    def get_config(self) -> dict[str, Any]:
        """Returns what a run that is resumed must have in common with the first one."""
        apart = ("train", "backup")
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        told = {name: value for name, value in told.items() if name not in apart}
        if isinstance(self.augment, keras.Layer):
            told["augment"] = _of_layers(keras.saving.serialize_keras_object(self.augment))
        if self.distillation is not None:
            told["distillation"] = dataclasses.asdict(self.distillation)
        return {**told, "train": of_data(self.train)}

    def _optimizer(self, model: keras.Model, steps: int) -> OptimizerSettings:
        found = OptimizerSettings.of(self.optimizer or model.optimizer, model)
        inner = found.inner or found  # of the optimizer that is wrapped for mixed precision
        config = dict(inner.config)
        rate = self.rate if self.rate is not None else config["learning_rate"]
        if self.warm_up is not None:
            if not isinstance(rate, (int, float)):
                raise AmcError(
                    f"the model is compiled with the schedule {type(rate).__name__}, which tells "
                    "no largest learning rate; give the recipe one (rate=0.01), or keep the "
                    "schedule (warm_up=None)"
                )
            warm = round(self.warm_up * steps)
            rate = keras.optimizers.schedules.CosineDecay(
                0.0 if warm else rate,
                max(1, steps - warm),
                warmup_target=rate if warm else None,
                warmup_steps=warm,
            )
        config["learning_rate"] = rate
        if self.average is not None:
            reach = max(1.0, _AVERAGED * steps)
            config |= {"use_ema": True, "ema_momentum": min(self.average, 1 - 1 / reach)}
        inner = dataclasses.replace(inner, config=config)
        return inner if found.inner is None else dataclasses.replace(found, inner=inner)

    def _data(self) -> tuple[Any, int]:
        """Returns training data for `Model.fit`, and the number of batches of an epoch.

        With `steps`, the data goes on in an epoch where the last one ended.
        """
        batches = batches_of("train", self.train, self.batch_size, self.steps)
        steps = self.steps or batches.steps or sum(1 for _ in batches)
        if not steps:
            raise AmcError("train data is empty")
        if isinstance(self.train, keras.utils.PyDataset):
            return _Augmented(self.train, self.augment, self.train.num_batches or steps), steps
        if isinstance(self.train, tf.data.Dataset):
            data = self.train
        else:
            whole_pass = batches_of("train", self.train, self.batch_size)
            # Python's generator, so that keras.utils.set_random_seed repeats the order.
            data = whole_pass.dataset(np.random.default_rng(random.getrandbits(64)))
        if self.steps is not None:
            data = data.repeat()
        if self.augment is not None:
            data = data.map(lambda x, *rest: (self.augment(x), *rest))
        return data.prefetch(2), steps


def distill(train: Data, epochs: int = 30, share: float = 0.5, **settings: Any) -> Recipe:
    """Returns a recipe whose loss follows the dense network.

        task = amc_tf.Task(train, validation, fine_tune=amc_tf.distill(train, epochs=40))

    Args:
        train: training data, as in `Task`.
        epochs: passes over them.
        share: share of the loss in which the dense network takes the place of the labels.
        **settings: others of a `Recipe`, and of its `Distillation`: `temperature`, `features`.
    """
    own = {f.name for f in dataclasses.fields(Distillation)} & set(settings)
    followed = Distillation(share, **{name: settings.pop(name) for name in own})
    return Recipe(train, epochs, distillation=followed, **settings)


class _Augmented(keras.utils.PyDataset):
    """The user's dataset, whose epochs end as it says."""

    def __init__(self, data: keras.utils.PyDataset, augment: Any, steps: int):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._of = data
        self._augment = augment
        self._steps = steps

    @property
    def num_batches(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Any:
        x, *rest = self._of[index]
        return (x if self._augment is None else self._augment(x), *rest)

    def on_epoch_begin(self) -> None:
        self._of.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._of.on_epoch_end()


def _batches(data: Any) -> Iterable[Any]:
    if isinstance(data, _Augmented):  # which has no end to iterate to
        return (data[index] for index in range(data.num_batches))
    return data


def _of_layers(told: Any) -> Any:
    """Returns layers as they were written, whether they have been used or not."""
    if isinstance(told, Mapping):
        apart = ("build_config", "build_input_shape", "shared_object_id")
        return {
            key: re.sub(r"_\d+$", "", value)
            if key == "name" and isinstance(value, str)
            else _of_layers(value)
            for key, value in told.items()
            if key not in apart
        }
    if isinstance(told, (list, tuple)):
        return [
            _of_layers(part)
            for part in told
            if not isinstance(part, Mapping) or part.get("class_name") != "InputLayer"
        ]
    return told


def _unsmoothed(loss: Any) -> Any:
    """Returns a loss without label smoothing."""
    if not isinstance(loss, keras.losses.Loss):
        return loss
    config = loss.get_config()
    if not config.get("label_smoothing"):
        return loss
    return type(loss).from_config({**config, "label_smoothing": 0.0})
