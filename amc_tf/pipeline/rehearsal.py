"""A rehearsal: the whole way from a plan to checked files, once and small, before the search.

What fails at the end of the way would otherwise be seen only after hours of search and training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.export.exporter import Exporter
from amc_tf.export.rehearsal import tried
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.input_shapes import at_size
from amc_tf.graph.plan import PruningPlan
from amc_tf.pipeline.following import followed_features
from amc_tf.pipeline.recovery_stage import recovers
from amc_tf.pipeline.settings import Settings
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.verification import verify
from amc_tf.recovery.recovery import recover
from amc_tf.report.html import write_report
from amc_tf.runs import layout
from amc_tf.runs.result_parts import Exported
from amc_tf.runs.workdir import Workdir
from amc_tf.search.env.problem import Problem
from amc_tf.training.data import Data, bounded
from amc_tf.training.finetune import train_pruned
from amc_tf.training.metric import Metric
from amc_tf.training.one_step import one_step, optimizers_as_before
from amc_tf.training.task import Task

_SAMPLES = 8  # of calibration, and of each comparison of outputs


def converted(format_name: str) -> str:
    """Returns the name of the step that converts to a format."""
    return f"convert to {format_name}"


def rehearse(
    model: keras.Model,
    graph: ChannelGraph,
    task: Task,
    metric: Metric,
    problem: Problem[PruningPlan],
    settings: Settings,
    workdir: Workdir,
) -> dict[str, float]:
    """Does every step of a run once, and tells each.

    Args:
        model: the dense model, trained or not; it is not changed.
        graph: its analysis.
        task: the model's data and training code.
        metric: what the task's scores are.
        problem: the choices of the search.
        settings: the settings of all stages.
        workdir: the run's folder, in which a folder is made and removed again.

    Returns:
        The seconds of each step, by its name.

    Raises:
        AmcError: a step failed; the message names it, what went wrong and what to do.
    """
    path = workdir / layout.REHEARSAL
    steps = _Steps()
    try:
        folder = Workdir(path, workdir.safe_mode, model)
        few = [array[:_SAMPLES] for array in task.calibration_inputs(model)]
        with steps("rebuild a plan"):
            plan = problem.plan([int(counts[len(counts) // 2]) for counts in problem.choices])
            verify(model, graph, plan, few)
            small = rebuild(model, graph, plan)
        with steps("save and load it"):
            folder.save_model(layout.PRUNED, small)
            small = folder.load_model(layout.PRUNED)
        short = _short(task, few)
        with steps("score it"):
            short = _scored(short, task, short.compiled(small, model))
        with optimizers_as_before():
            _train(model, graph, plan, few, folder, small, task, settings, steps)
        folder.update_result(
            metric=metric, tflite=_exported(model, graph, folder, short, settings, few, steps)
        )
        with steps("write the report"):
            write_report([folder.path])
    finally:
        shutil.rmtree(path, ignore_errors=True)
    return steps.seconds


class _Steps:
    """The steps of a rehearsal: each is timed, and told if it fails.

    Attributes:
        seconds: the seconds of each step that is done.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            known = isinstance(error, AmcError)
            said = (str(error).strip() or "no message") if known else _line(error)
            raise AmcError(
                f"the rehearsal failed at {name!r}: {said}; nothing is lost, as no work was done "
                "yet: mend it and run again"
            ) from error
        self.seconds[name] = round(time.monotonic() - start, 2)
        seconds = self.seconds[name]
        story.tell("rehearsal", f"  {name}: {seconds:.1f} s", step=name, seconds=seconds)


def _line(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text}"


def _short(task: Task, calibration: list[Any]) -> Task:
    """Returns the task with a batch of each data, and without quantisation-aware training."""
    return dataclasses.replace(
        task,
        train=bounded("train", task.train, 1, task.batch_size),
        validation=_few(task, task.validation),
        test=None if task.test is None else _few(task, task.test),
        train_steps=None,
        validation_steps=None,
        test_steps=None,
        calibration=calibration,
        qat=None if task.qat is None else lambda model: None,
    )


def _train(
    model: keras.Model,
    graph: ChannelGraph,
    plan: PruningPlan,
    few: list[Any],
    folder: Workdir,
    small: keras.Model,
    task: Task,
    settings: Settings,
    steps: _Steps,
) -> None:
    """Takes one step of every training, on a model of its own.

    Code that can train only one model (by an optimizer made once) fails here if it is to train
    several.
    """
    apart = settings.train_dense and task.fine_tune is not None
    if recovers(settings.recovery, task):
        with steps("one step of recovery"):
            once = dataclasses.replace(settings.recovery, views=1)
            recover(small, graph, plan, few, few, task.twin(model), once)
    if not task.trains:
        return
    with steps("one step of training"):
        _one_step(small, model, graph, plan, task, settings)
        if settings.finetune.compare or (settings.train_dense and not apart):
            other = folder.load_model(layout.PRUNED)
            _one_step(task.compiled(other, model), model, graph, plan, task, settings)
    if apart:
        with steps("one step of training the dense model"):
            one_step(task.compiled(rebuild(model, graph, None), model), task.train_dense)


def _one_step(
    small: keras.Model,
    model: keras.Model,
    graph: ChannelGraph,
    plan: PruningPlan,
    task: Task,
    settings: Settings,
) -> None:
    """Takes one step of fine-tuning, which may follow the dense network."""
    followed = followed_features(graph, plan, task, settings.finetune)

    def once(network: keras.Model) -> None:
        one_step(network, task.train_pruned)

    train_pruned(small, model, task, settings.finetune, followed, once)


def _scored(short: Task, task: Task, model: keras.Model) -> Task:
    """Scores a model; returns the task on whose data that can be done.

    On few samples a score may be undefined (an AUC of one class): then all data is needed.
    """
    try:
        short.score(model, short.test_data)
    except AmcError:
        short = dataclasses.replace(short, validation=task.validation, test=task.test)
        short.score(model, short.test_data)
    return short


def _few(task: Task, data: Data) -> Data:
    """Returns a batch in the form of the data, which the user's evaluate may rely on."""
    if isinstance(data, tf.data.Dataset):
        return data.take(1)
    if isinstance(data, list):
        return data[:1]
    return task.sample(data, task.batch_size) if isinstance(data, tuple) else data


def _exported(
    model: keras.Model,
    graph: ChannelGraph,
    folder: Workdir,
    task: Task,
    settings: Settings,
    inputs: list[Any],
    steps: _Steps,
) -> dict[str, Exported]:
    """Converts the small model to every format, runs the files, and scores them."""
    export = dataclasses.replace(
        settings.export, score_samples=0, bias_samples=0, error_samples=_SAMPLES, qat_epochs=0
    )
    small = at_size(folder.load_model(layout.PRUNED), graph.input_shapes)
    exporter = Exporter(small, model, task, export)
    found = {}
    for format_name in export.formats:
        name = layout.tflite_file(format_name)
        with steps(converted(format_name)):
            attempt = tried(small, inputs, format_name, export)
            if attempt.error is not None:
                raise AmcError(attempt.error)
        with steps(f"check the {format_name} file"):
            found[name] = exporter.write(format_name, folder / name)
    return found
