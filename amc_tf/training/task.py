"""What the user provides: data, and the code that trains and scores the model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.training.compile_settings import CompileSettings
from amc_tf.training.data import (
    Data,
    check_batch,
    check_shape,
    evenly_spaced,
    in_batches,
    inputs_of,
    x_and_y,
)
from amc_tf.training.first_state import first_state_on_error
from amc_tf.training.time_limit import within


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The user's data and training code. Everything but the data has a default.

    Attributes:
        train: training data: `(x, y)` arrays or a batched `tf.data.Dataset` of pairs.
            The search never measures its reward on it.
        validation: data held out of training, on which the search measures its reward.
        test: data that plays no part in any choice; only reports use it. Default:
            `validation`.
        compile: `compile(model)` prepares a model for fit and evaluate. Default:
            the dense model's compile settings.
        fit: `fit(model)` trains a compiled model in place. Default: `model.fit`
            on `train` for `epochs`.
        fine_tune: `fine_tune(model)` for pruned models. Default: `fit`.
        qat: `qat(model)` trains a Keras 2 model (tf_keras) with emulated int8
            rounding in place, for the format int8_qat. Default: the compiled
            model's loss and optimizer on `train` (see `amc_tf.export.qat.training`).
        evaluate: `evaluate(model, data) -> float`, higher is better, at most 1.
            Default: `model.evaluate(data)[metric]`.
        evaluate_timeout: seconds that one evaluation may take; a longer one is an
            error. Default: None, no limit, because only the user knows how long it
            may take, and an interrupted search loses nothing. With a limit, the
            evaluation runs in a thread of its own, which is abandoned if it hangs.
        metric: name under which the compiled model reports its accuracy.
        epochs: number of epochs of the default fit.
        batch_size: batch size for arrays, in the default fit and evaluate.
        calibration: unlabelled inputs (array, or a list for several inputs) for
            least-squares refit and int8 calibration; all of them are used. Default:
            inputs drawn from `train`.
        calibration_size: number of inputs that are drawn from `train`.
    """

    train: Data
    validation: Data
    test: Data = None
    compile: Callable[[keras.Model], Any] | None = None
    fit: Callable[[keras.Model], Any] | None = None
    fine_tune: Callable[[keras.Model], Any] | None = None
    qat: Callable[[Any], Any] | None = None
    evaluate: Callable[[keras.Model, Data], float] | None = None
    evaluate_timeout: float | None = None
    metric: str = "accuracy"
    epochs: int = 1
    batch_size: int = 128
    calibration: Any = None
    calibration_size: int = 512

    def compiled(self, model: keras.Model, dense: keras.Model) -> keras.Model:
        """Compiles `model` with the user's compile, or as `dense` was compiled; returns it."""
        if self.compile is not None:
            self.compile(model)
        elif dense.compiled:
            CompileSettings.of(dense).apply(model)
        if not model.compiled and self.evaluate is None:
            raise AmcError(
                "the model is not compiled and Task(compile=...) was not given; pass a function "
                "that calls model.compile(optimizer, loss, metrics=[...])"
            )
        return model

    def train_dense(self, model: keras.Model) -> None:
        """Trains a compiled model in place with the user's fit; if it fails, undoes that."""
        with first_state_on_error(model):
            (self.fit or self._default_fit)(model)

    def train_pruned(self, model: keras.Model) -> None:
        """Fine-tunes a compiled pruned model in place with the user's code."""
        (self.fine_tune or self.fit or self._default_fit)(model)

    def _default_fit(self, model: keras.Model) -> None:
        x, y = self.train if isinstance(self.train, tuple) else (self.train, None)
        batch_size = self.batch_size if isinstance(self.train, tuple) else None
        model.fit(x, y, batch_size=batch_size, epochs=self.epochs, verbose=2)

    def score(self, model: keras.Model, data: Data) -> float:
        """Returns the accuracy of a compiled model on `data`.

        Raises:
            AmcError: evaluate raised an error or did not end in time; the metric is
                not reported, or its value is not a finite number of at most 1.
        """
        value = within(
            self.evaluate_timeout,
            lambda: self._evaluated(model, data),
            "evaluate (Task(evaluate_timeout=...))",
        )
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise AmcError(f"evaluate must return a number, received {value!r}") from None
        if not math.isfinite(value) or value > 1:
            raise AmcError(
                f"evaluate returned {value} for {self.metric!r}; expected a finite number of at "
                "most 1, higher being better (an accuracy as a fraction, for instance)"
            )
        return value

    def prepared(self, data: Data) -> Data:
        """Returns `data` in the form that is fastest to score many times.

        Arrays are batched once and cached, because Keras would make a new
        pipeline of them at every evaluation, which costs more than a small
        network. The user's own evaluate gets the data unchanged.
        """
        if self.evaluate is not None or not isinstance(data, tuple):
            return data
        x, *rest = data
        x = tuple(x) if isinstance(x, list) else x  # a list would be stacked into one tensor
        return tf.data.Dataset.from_tensor_slices((x, *rest)).batch(self.batch_size).cache()

    def _evaluated(self, model: keras.Model, data: Data) -> Any:
        if self.evaluate is None:
            return self._default_evaluate(model, data)
        try:
            return self.evaluate(model, data)
        except AmcError:
            raise
        except Exception as error:
            said = (str(error).strip() or "no message").splitlines()[0]
            raise AmcError(
                f"evaluate raised {type(error).__name__}: {said}; mend it, and the same call "
                "resumes"
            ) from error

    def _default_evaluate(self, model: keras.Model, data: Data) -> float:
        logs = model.evaluate(self.prepared(data), verbose=0, return_dict=True)
        if self.metric not in logs:
            raise AmcError(
                f"the model does not report the metric {self.metric!r}; it reports "
                f"{', '.join(map(repr, logs))}: name one of these, or add it in compile(metrics=)"
            )
        return logs[self.metric]

    @property
    def test_data(self) -> Data:
        """The test data; the validation data if there is none."""
        return self.validation if self.test is None else self.test

    def calibration_inputs(self, model: keras.Model) -> list[np.ndarray]:
        """Returns unlabelled inputs, one array for each model input."""
        if self.calibration is None:
            return self.sample_inputs(self.train, model, self.calibration_size)
        return [np.asarray(a) for a in inputs_of(self.calibration, model)]

    def sample_inputs(self, data: Data, model: keras.Model, count: int) -> list[np.ndarray]:
        """Returns at most `count` inputs from `data`, one array for each model input."""
        if isinstance(data, tuple):
            arrays = inputs_of(data[0], model)
            chosen = evenly_spaced(len(arrays[0]), count)
            return [np.asarray(a)[chosen] for a in arrays]
        parts: list[list[np.ndarray]] = []
        for element in data:
            parts.append([np.asarray(a) for a in inputs_of(x_and_y(element)[0], model)])
            if sum(len(p[0]) for p in parts) >= count:
                break
        return [np.concatenate(a)[:count] for a in zip(*parts, strict=True)]

    def check(self, model: keras.Model) -> None:
        """Checks that the data fits the model, before any work is done.

        Raises:
            AmcError: a split is empty or of the wrong shape, labels are out of
                range, or inputs are not finite.
        """
        for split in ("train", "validation", "test"):
            data = getattr(self, split)
            if data is None and split == "test":
                continue
            for i, (x, y) in enumerate(in_batches(split, data)):
                check_batch(split, x, y, model)
                if i == 8:  # enough to detect a wrong pipeline without reading all data
                    break
        for array, tensor in zip(self.calibration_inputs(model), model.inputs, strict=True):
            check_shape("calibration", array, tensor)
        if self.evaluate is None:
            # One batch is really evaluated, to see that the metric is reported. The probe shares
            # the layers, but compiling it leaves the compile settings of the user's model alone.
            probe = self.compiled(keras.Model(model.inputs, model.outputs), model)
            self.score(probe, self._first_batch())

    def _first_batch(self) -> Data:
        if not isinstance(self.validation, tuple):
            return self.validation.take(1)
        return keras.tree.map_structure(lambda a: a[: self.batch_size], self.validation)
