"""What the user provides: data, and the code that trains and scores the model."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from amc_tf import story
from amc_tf.errors import AmcError, choice
from amc_tf.graph.keras_structure import uncompiled
from amc_tf.training import directions
from amc_tf.training.by_keras import evaluate_by_keras, fit_by_keras
from amc_tf.training.checks import Check, check_batches, check_names, tell_scales
from amc_tf.training.compile_settings import CompileSettings
from amc_tf.training.data import Data, all_inputs, bounded, for_keras, inputs_of
from amc_tf.training.first_state import first_state_on_error
from amc_tf.training.forms import Batches, batches_of, present
from amc_tf.training.metric import MODES, Metric
from amc_tf.training.sampling import drawn
from amc_tf.training.time_limit import within

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The user's data and training code. Everything but the data has a default.

    Data has any form that `Model.fit` takes, except generators, which can be read only once:
    `(x, y)` or `(x, y, sample_weight)` as arrays or structures of arrays, a batched
    `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader`, or a list of batches.

    Attributes:
        train: training data. The search never measures its reward on it. None if there is none:
            then `calibration` is needed, and pruned networks are trained on that to give what the
            dense network gives (see `amc_tf.recovery`), unless `fine_tune` or `fit` is given.
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
        evaluate: `evaluate(model, data) -> float`, a finite number, of which more is
            better unless `mode` or the name `metric` says otherwise. Default:
            `model.evaluate(data)[metric]`.
        evaluate_timeout: seconds that one evaluation may take; a longer one is an
            error. Default: None, no limit, because only the user knows how long it
            may take, and an interrupted search loses nothing. With a limit, the
            evaluation runs in a thread of its own, which is abandoned if it hangs.
        metric: name under which the compiled model reports the number by which networks
            are compared: a metric of `compile`, or `loss`. With `evaluate`, a name for what
            it returns.
        mode: `max` if more of the metric is better, `min` if less is. Default: `auto`,
            which knows the metrics and losses of Keras, and asks about others.
        epochs: number of epochs of the default fit.
        batch_size: batch size for arrays, in the default fit and evaluate.
        calibration: inputs for least-squares refit and int8 calibration, with labels
            or without: an array, a list or dict of arrays for several inputs, or
            batches as above; all of them are used. Default: inputs drawn from `train`.
        calibration_size: number of inputs that are drawn from `train`.
        train_steps: number of batches in an epoch of `train`, for data that repeats
            without end (`steps_per_epoch` of `Model.fit`). Default: all.
        validation_steps: number of batches of `validation` that are read. Default: all.
        test_steps: number of batches of `test` that are read. Default: all.
        keep_bytes: size up to which batches of validation data that are not in memory
            (a `tf.data.Dataset`, a `PyDataset`) are kept there, so that the search reads
            them once.
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
    mode: str = "auto"
    epochs: int = 1
    batch_size: int = 128
    calibration: Any = None
    calibration_size: int = 512
    train_steps: int | None = None
    validation_steps: int | None = None
    test_steps: int | None = None
    keep_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        choice("mode", self.mode, ("auto", *MODES))
        if self.train is None and self.calibration is None:
            raise AmcError(
                "there are no training data, and so no inputs to calibrate with; give "
                "Task(calibration=...), unlabelled inputs, or Task(train=...)"
            )
        for split in ("train", "validation", "test"):
            steps = getattr(self, f"{split}_steps")
            if steps is None:
                continue
            if not isinstance(steps, int) or steps < 1:
                raise AmcError(f"{split}_steps must be a whole number from 1, received {steps!r}")
            if split != "train":  # in an epoch, fit goes on where the last one ended
                data = bounded(split, getattr(self, split), steps, self.batch_size)
                object.__setattr__(self, split, data)

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

    def twin(self, model: keras.Model) -> keras.Model:
        """Compiles a model of the same layers as `model` alike, and leaves that one alone.

        Raises:
            AmcError: see `compiled`.
        """
        return self.compiled(uncompiled(model), model)

    def train_dense(self, model: keras.Model) -> None:
        """Trains a compiled model in place with the user's fit; if it fails, undoes that."""
        with first_state_on_error(model):
            (self.fit or self._default_fit)(model)

    @property
    def trains(self) -> bool:
        """Whether there is anything to fine-tune a pruned model with: data, or the user's code."""
        return any(given is not None for given in (self.train, self.fit, self.fine_tune))

    def train_pruned(self, model: keras.Model) -> None:
        """Fine-tunes a compiled pruned model in place with the user's code."""
        (self.fine_tune or self.fit or self._default_fit)(model)

    def _default_fit(self, model: keras.Model) -> None:
        fit_by_keras(
            model, self._of_training, self.batch_size, self.train_steps, epochs=self.epochs
        )

    @property
    def _of_training(self) -> Data:
        if self.train is None:
            raise AmcError("there are no training data; give Task(train=...), or code that trains")
        return self.train

    def score(self, model: keras.Model, data: Data) -> float:
        """Returns the value of the metric of a compiled model on `data`.

        Raises:
            AmcError: evaluate raised an error or did not end in time; the metric is
                not reported, or its value is not a finite number.
        """
        value = within(
            self.evaluate_timeout,
            lambda: self._evaluated(model, data),
            "evaluate (Task(evaluate_timeout=...))",
        )
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise AmcError(
                f"evaluate must return a number, received {value!r} for {self.metric!r}"
            ) from None
        if not math.isfinite(value):
            raise AmcError(
                f"evaluate returned {value} for {self.metric!r}; expected a finite number"
            )
        return value

    def metric_of(self, model: keras.Model) -> Metric:
        """Returns what `metric` is: which way is better, and how it is written.

        Args:
            model: the dense model, or one that was compiled and evaluated like it. A model
                that was not evaluated yet is, on one batch, without being changed.

        Raises:
            AmcError: the metric is not reported, or its direction cannot be known.
        """
        data = "validation" if self.test is None else "test"
        if self.evaluate is not None:
            kind = directions.named(self.metric)
        else:
            made = directions.is_made(model, self.metric)
            kind = directions.reported(model if made else self._probe(model), self.metric)
        if kind is not None and self.mode in ("auto", kind.mode):
            known = Metric(self.metric, **kind._asdict(), data=data)
            # What evaluate counts as a sample is not known.
            return known if self.evaluate is None else dataclasses.replace(known, per_sample=False)
        if self.mode == "auto":
            raise AmcError(
                f"it is not known whether more of the metric {self.metric!r} is better; give "
                'Task(mode="max") if it is, or Task(mode="min") if less is'
            )
        if kind is not None and self.evaluate is None:
            _LOG.warning(
                "Task(mode=%r) turns round the metric %r, of which Keras' own is better the other "
                "way",
                self.mode,
                self.metric,
            )
        # What the user turns round is not what goes by that name.
        title = "score" if kind is not None else self.metric
        return Metric(self.metric, self.mode, title, False, False, False, data)

    def prepared(self, data: Data) -> Data:
        """Returns `data` in the form that is fastest to score many times.

        Arrays become batches, small ones once for all, because Keras would copy them all
        at every evaluation. The user's own evaluate gets the data unchanged, and an iterator
        serves the one evaluation that it is given to.
        """
        if self.evaluate is not None or isinstance(data, Iterator):
            return data
        return for_keras("evaluation", data, self.batch_size)

    def _evaluated(self, model: keras.Model, data: Data) -> Any:
        if self.evaluate is None:
            return evaluate_by_keras(model, self.prepared(data), self.metric)
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

    @property
    def test_data(self) -> Data:
        """The test data; the validation data if there is none."""
        return self.validation if self.test is None else self.test

    @property
    def training_data(self) -> Data:
        """One epoch of the training data, to be read but not to be trained on.

        Raises:
            AmcError: there are none.
        """
        return bounded("train", self._of_training, self.train_steps, self.batch_size)

    def calibration_inputs(self, model: keras.Model) -> list[np.ndarray]:
        """Returns unlabelled inputs, one array for each model input."""
        if self.calibration is not None:
            return all_inputs("calibration", self.calibration, model)
        (x, _, _), total = drawn(self._batches("train"), self.calibration_size)
        inputs = [np.asarray(a) for a in inputs_of(x, model)]
        count = f"{len(inputs[0]):,} of {total:,} training samples"
        story.mention("calibration", f"calibration: {count}, drawn over all of them")
        return inputs

    def sample(self, data: Data, count: int) -> tuple[Any, ...]:
        """Returns `(x, y)` or `(x, y, sample_weight)` of at most `count` samples.

        They are drawn over a whole pass, and the same data gives the same samples.
        """
        return present(drawn(batches_of("sampled", data, self.batch_size), count)[0])

    def sample_inputs(self, data: Data, model: keras.Model, count: int) -> list[np.ndarray]:
        """Returns the inputs of `sample`, one array for each model input."""
        return [np.asarray(a) for a in inputs_of(self.sample(data, count)[0], model)]

    def check(self, model: keras.Model) -> None:
        """Checks that the data fits the model, in one pass over each split, before any work.

        Checks first that TensorFlow takes the names of its layers.

        Raises:
            AmcError: a name is refused; data has no form that can be read, does not end, is empty
                or of the wrong shape; labels are out of range; or values are not finite, or so
                large in one sample that float32 cannot hold their products.
        """
        check_names(model)
        probe = None
        if self.evaluate is None:
            probe = self.twin(model)
        checks = {}
        for split in ("train", "validation", "test"):
            if split != "validation" and getattr(self, split) is None:
                continue
            checks[split] = Check(split, model, probe)
            check_batches(self._batches(split), checks[split])
        if self.calibration is not None:
            checks["calibration"] = Check("calibration", model)
            checks["calibration"].see(self.calibration_inputs(model))
            checks["calibration"].finish()
        tell_scales(checks)
        if probe is not None:
            self._try(probe)
        self.metric_of(model if probe is None else probe)

    def _probe(self, model: keras.Model) -> keras.Model:
        """Returns a model like `model` that is compiled and was evaluated on one batch."""
        probe = self.twin(model)
        self.score(probe, self._first_batch())
        return probe

    def _try(self, probe: keras.Model) -> None:
        """Scores a model on one batch, to see that the labels fit and the metric is reported."""
        try:
            self.score(probe, self._first_batch())
        except AmcError:
            raise
        except Exception as error:
            raise AmcError(
                "the model cannot be evaluated on the validation data with the loss and metrics "
                f"that it is compiled with ({_reason(error)}); give data and labels as in its "
                "training"
            ) from error

    def _first_batch(self) -> tuple[Any, ...]:
        return present(next(iter(self._batches("validation"))))

    def _batches(self, split: str) -> Batches:
        if split == "train":
            return batches_of(split, self._of_training, self.batch_size, self.train_steps)
        return batches_of(split, getattr(self, split), self.batch_size)


def _reason(error: Exception) -> str:
    """Returns the first line of an error that says something; TensorFlow's begin with traces."""
    traces = ("Graph execution error", "Detected at node", "<stack traces", "File ")
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(traces)]
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
