"""A rehearsal: the whole way from a plan to checked files, once and small, before the search.

What fails at the end of the way would otherwise be seen only after hours of search and training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator

import keras
from tqdm import tqdm

from amc_tf.errors import AmcError
from amc_tf.export.exporter import Exporter
from amc_tf.export.rehearsal import tried
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pipeline.settings import Settings
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.verification import verify
from amc_tf.report.html import write_report
from amc_tf.runs import layout
from amc_tf.runs.result_parts import Measures
from amc_tf.runs.workdir import Workdir
from amc_tf.search.env.problem import Problem
from amc_tf.training.one_step import one_step
from amc_tf.training.task import Task

_SAMPLES = 8  # of calibration, and of each comparison of outputs


class Rehearsal:
    """A rehearsal of one run.

    Args:
        model: the dense model, trained or not; it is not changed.
        graph: its analysis.
        task: the model's data and training code.
        problem: the choices of the search.
        settings: the settings of all stages.
        workdir: the run's folder, in which a folder is made and removed.
    """

    def __init__(
        self,
        model: keras.Model,
        graph: ChannelGraph,
        task: Task,
        problem: Problem[PruningPlan],
        settings: Settings,
        workdir: Workdir,
    ):
        self._model = model
        self._graph = graph
        self._task = task
        self._problem = problem
        self._settings = settings
        self._workdir = workdir
        self._seconds: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Does every step, with a line for each.

        Returns:
            The seconds of each step, by its name.

        Raises:
            AmcError: a step failed; the message names it, what went wrong and what to do.
        """
        folder = self._workdir / layout.REHEARSAL
        try:
            self._steps(Workdir(folder, self._workdir.safe_mode))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self._seconds

    def _steps(self, folder: Workdir) -> None:
        task = self._task
        with self._step("rebuild a plan"):
            plan = self._problem.plan([int(c[len(c) // 2]) for c in self._problem.choices])
            few = [array[:_SAMPLES] for array in task.calibration_inputs(self._model)]
            verify(self._model, self._graph, plan, few)
            small = rebuild(self._model, self._graph, plan)
        with self._step("save and load it"):
            folder.save_model(layout.PRUNED, small)
            small = folder.load_model(layout.PRUNED)
        small_task = dataclasses.replace(
            task,
            train=task.few("train"),
            validation=task.few("validation"),
            test=None if task.test is None else task.few("test"),
            calibration=few,
            qat=None if task.qat is None else lambda model: None,
        )
        with self._step("score it"):
            score = small_task.score(task.compiled(small, self._model), small_task.test_data)
        with self._step("one step of training"):
            one_step(small, task.train_pruned)
        if self._settings.train_dense and task.fine_tune is not None:
            with self._step("one step of training the dense model"):
                one_step(task.compiled(rebuild(self._model, self._graph, None), self._model), task.train_dense)
        export = dataclasses.replace(
            self._settings.export, score_samples=0, bias_samples=_SAMPLES, qat_epochs=1
        )
        exporter = Exporter(folder.load_model(layout.PRUNED), self._model, small_task, export)
        exported = {}
        for format_name in export.formats:
            with self._step(f"convert to {format_name} and run"):
                tried(...)
            with self._step(f"check the {format_name} file"):
                path = folder / layout.tflite_file(format_name)
                exported[path.name] = exporter.write(format_name, path)
        with self._step("report"):
            folder.update_result(tflite=exported)
            write_report([folder.path])
