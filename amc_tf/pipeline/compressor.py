"""Compression as a `fit` with the arguments of `Model.fit`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np

from amc_tf import files, story
from amc_tf.errors import AmcError
from amc_tf.pipeline.compression import Compression
from amc_tf.pipeline.result import CompressionResult
from amc_tf.pipeline.settings import Settings
from amc_tf.runs import identity, layout
from amc_tf.search.env.budget import Budget
from amc_tf.training.compile_settings import CompileSettings
from amc_tf.training.data import in_batches
from amc_tf.training.fit_arguments import FitArguments
from amc_tf.training.task import Task

# Fields of a task that the call of fit sets.
_OF_FIT = ("train", "validation", "fit", "fine_tune", "epochs")


class Compressor:
    """A wrapper of a compiled model whose `fit` trains the model and makes it small.

        model = amc_tf.Compressor(model, amc_tf.Budget(macs=0.5), workdir="runs/mine")
        model.fit(x, y, epochs=10, validation_split=0.2, callbacks=[...])
        model.evaluate(x_test, y_test)  # the small model
        model.save("small.keras")

    `fit` trains the model, searches, rebuilds it smaller, fine-tunes it by another
    `fit` with the same arguments, and exports it. The search's reward is computed on
    the validation data. All other attributes of a Compressor (evaluate, predict, save,
    compile) are the model's; to set one, set it on `.model`.

    After an interruption, the same script resumes, if it begins with the same weights: call
    `keras.utils.set_random_seed` before the model is built. Callbacks run in both trainings, so
    a file that they write holds the small model in the end; the dense one stays in the
    work directory.

    Args:
        model: a Functional or Sequential Keras model, compiled before `fit`.
        budget: the bounds on costs, such as `Budget(macs=0.5)`; None with a reward that
            prices the cost.
        workdir: folder of the run's files, as in `amc_tf.compress`.
        settings: settings of all stages; `train_dense` is ignored.
        trained: whether the model is trained already, so that `fit` only fine-tunes the
            small one.
        verbose: what is told, as in `amc_tf.compress`; the `verbose` of `fit` is of the trainings.
        **task: other fields of `amc_tf.Task`: `test` (default: the validation data),
            `metric` (default: `accuracy`), `compile`, `calibration` and so on.

    Attributes:
        model: the given Keras model; after `fit`, the small one, fine-tuned and compiled
            in the same way. Nested models are inlined in it. It is of the same class, with
            a `train_step` of the user's own for example; the files are plain Keras models.
        result: the numbers and files of the run; None before `fit`.
    """

    # No others, so that an attribute meant for the model is not set here by mistake.
    __slots__ = ("_budget", "_settings", "_task", "_verbose", "_workdir", "model", "result")

    def __init__(
        self,
        model: keras.Model,
        budget: Budget | None,
        workdir: str | pathlib.Path,
        settings: Settings | None = None,
        *,
        trained: bool = False,
        verbose: story.Verbose = True,
        **task: Any,
    ):
        fields = {field.name for field in dataclasses.fields(Task)}.difference(_OF_FIT)
        for name in task:
            if name not in fields:
                raise AmcError(
                    f"unknown argument {name!r}; beside what fit is given, a task takes "
                    f"{', '.join(sorted(fields))}"
                )
        self.model: keras.Model = model
        self.result: CompressionResult | None = None
        self._budget = budget
        self._workdir = workdir
        self._settings = dataclasses.replace(settings or Settings(), train_dense=not trained)
        self._task = task
        self._verbose = verbose

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in self.__slots__:
            raise AttributeError(f"a Compressor has no attribute {name!r}")
        return getattr(self.model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model."""
        return self.model(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains, compresses, fine-tunes and exports the model.

        The arguments are those of `Model.fit`.

        Data has any form that `Model.fit` takes, except generators, which can be read once.
        Class weights are used in training, but not in quantisation-aware training.

        Returns:
            The history of the fine-tuning, from the file `history.json` if an earlier
            call did it.

        Raises:
            AmcError: there are no validation data (`validation_data` or
                `validation_split`), the model is not compiled, or `amc_tf.compress`
                refuses an input; raised before any work. Also if the model was
                compressed already.
            TypeError: `Model.fit` has no such argument.
            Exception: whatever the training raises; the model then has its first weights and
                learning rate, so that the same call can be made again.
        """
        if self.result is not None:
            raise AmcError(
                "this model was compressed by an earlier fit; train it further with "
                ".model.fit(...), or make the Compressor only before the last fit"
            )
        arguments = FitArguments(args, kwargs)
        self._check(arguments)
        task = self._task_of(arguments)
        run = Compression(
            self.model,
            task,
            self._budget,
            self._workdir,
            self._settings,
            config={identity.FIT: arguments.record},
            verbose=self._verbose,
        )
        self.result = run.run()
        small = run.workdir.load_model(dataclasses.replace(layout.FINETUNED, made_by="fit"))
        self.model = task.compiled(small, run.dense)
        return self._history(run)

    def _check(self, arguments: FitArguments) -> None:
        if not isinstance(self.model, keras.Model):
            return  # the analysis raises an error with the remedy
        if not self.model.compiled and "compile" not in self._task:
            raise AmcError(
                "the model is not compiled; call model.compile(optimizer, loss, metrics=[...]) "
                "before fit"
            )
        checkpoints = [
            c for c in arguments.callbacks if isinstance(c, keras.callbacks.ModelCheckpoint)
        ]
        if checkpoints and self._settings.finetune.compare:
            raise AmcError(
                "networks compared in fine-tuning would overwrite the file of ModelCheckpoint; "
                "leave FineTuneSettings(compare=...) empty, or remove the callback"
            )
        if isinstance(self.model, keras.Sequential) and not self.model.built:
            self.model.build(_shape(arguments.train))  # as fit would

    def _task_of(self, arguments: FitArguments) -> Task:
        path = pathlib.Path(self._workdir).expanduser() / layout.HISTORY

        def fine_tune(model: keras.Model) -> None:
            _write(path, arguments.fit(model))  # the stage keeps that of the chosen network

        fields: dict[str, Any] = {
            "batch_size": arguments.given.get("batch_size") or Task.batch_size,
            **self._task,
        }
        if "compile" not in fields:
            # Read now, as callbacks may lower the learning rate while the dense model is trained.
            fields["compile"] = CompileSettings.of(self.model).apply
        return Task(
            train=arguments.train,
            validation=arguments.validation,
            fit=arguments.fit,
            fine_tune=fine_tune,
            **fields,
        )

    def _history(self, run: Compression) -> keras.callbacks.History:
        kept = run.workdir.read_json(layout.HISTORY, {"epoch": [], "history": {}})
        history = keras.callbacks.History()
        history.set_model(self.model)
        history.epoch, history.history = kept["epoch"], kept["history"]
        return history


def _write(path: pathlib.Path, history: keras.callbacks.History) -> None:
    values = {name: np.asarray(v, float).tolist() for name, v in history.history.items()}
    files.write_json(path, {"epoch": list(history.epoch), "history": values})


def _shape(data: Any) -> tuple[int | None, ...]:
    """Returns the input shape of a Sequential model, from its data."""
    x, _ = next(in_batches("train", data))
    return (None, *np.shape(x)[1:])
