"""The stages of a compression, from a trained model to checked TFLite files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.graph.plan import PruningPlan
from amc_tf.pipeline.dense_stage import claimed
from amc_tf.pipeline.export_stage import STAGE as EXPORT
from amc_tf.pipeline.export_stage import export
from amc_tf.pipeline.finetune_stage import STAGE as FINETUNE
from amc_tf.pipeline.finetune_stage import finetune
from amc_tf.pipeline.folding import of_dense, searched
from amc_tf.pipeline.opening import tell_opening
from amc_tf.pipeline.rehearsal import converted, rehearse
from amc_tf.pipeline.result import CompressionResult, result_of
from amc_tf.pipeline.run import Run
from amc_tf.pipeline.search_stage import STAGE as SEARCH
from amc_tf.pipeline.search_stage import search
from amc_tf.pipeline.settings import Settings
from amc_tf.pipeline.sparsify_stage import sparsify
from amc_tf.pruning.verification import check_finite
from amc_tf.report.html import write_report
from amc_tf.runs import layout
from amc_tf.runs.model_files import refuse_code
from amc_tf.runs.workdir import Workdir
from amc_tf.search.agents.ddpg.process import check_installed
from amc_tf.search.env.budget import Budget
from amc_tf.search.env.problem import Problem
from amc_tf.search.inputs import Inputs
from amc_tf.search.kept_calibration import with_kept_calibration
from amc_tf.search.kept_plan import check_plan
from amc_tf.search.open_choices import as_begun
from amc_tf.search.problem import analyzed, check, check_gradients, problem_of
from amc_tf.search.result import SearchResult
from amc_tf.training.finetune import DENSE_LONGER
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def _telling(verbose: story.Verbose, workdir: pathlib.Path) -> Iterator[None]:
    """Returns a context in which a run tells its story; an interruption says how to go on."""
    with story.told(verbose):
        try:
            yield
        except KeyboardInterrupt as stopped:
            what = f"what is done is kept in {workdir}; the same call goes on from there"
            raise KeyboardInterrupt(*(stopped.args or (what,))) from None


def _exclusive(stage: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a stage keep other processes out of the work directory while it runs."""

    @functools.wraps(stage)
    def locked(self: Compression) -> Any:
        with _telling(self._verbose, self.workdir.path), self.workdir.locked():
            check_plan(self.workdir)
            return stage(self)

    return locked


class Compression:
    """One run in one work directory; each stage can be called alone, in order.

    Args:
        model: the Keras model, trained unless `settings.train_dense` is set.
        task: the model's data and training code.
        budget: the bounds on costs; None with a reward that prices the cost.
        workdir: folder of the run's files.
        settings: settings of all stages.
        config: additional entries of `config.json`, of the caller's own configuration.
        safe_mode: whether models that hold Python code are refused (see
            `amc_tf.load_model`), as later stages load the run's files.
        verbose: what is told on the standard output: True for sentences and progress bars,
            `"json"` for one JSON object a line, False for warnings alone.

    Raises:
        AmcError: the model, the data or the budget cannot be used, or the
            work directory belongs to another run or is in use. No work is
            lost then.
    """

    def __init__(
        self,
        model: keras.Model,
        task: Task,
        budget: Budget | None,
        workdir: str | pathlib.Path,
        settings: Settings | None = None,
        config: Mapping[str, Any] | None = None,
        safe_mode: bool = True,
        verbose: story.Verbose = True,
    ):
        self.task = task
        self.budget = budget
        given = settings or Settings()
        self.settings = dataclasses.replace(given, search=as_begun(given.search, workdir))
        self._verbose = verbose
        with _telling(verbose, pathlib.Path(workdir)):
            self._start(model, workdir, config, safe_mode)

    def _start(
        self,
        model: keras.Model,
        workdir: str | pathlib.Path,
        config: Mapping[str, Any] | None,
        safe_mode: bool,
    ) -> None:
        """Checks all inputs, claims the work directory, and trains the dense model if asked for."""
        task, budget = self.task, self.budget
        _check_training(task, self.settings)
        given = analyzed(model, task, self.settings.search)
        if safe_mode:
            refuse_code(given.network)
        task.check(model)
        check_gradients(model, task, self.settings.search)
        if not self.settings.train_dense:
            check_finite(given.network, task)
        self.graph = given
        if self.settings.fold_residuals:
            self.graph = searched(model, task, self.settings)
        self.metric, search = task.metric_of(model), self.settings.search
        # An impossible budget is told now, not after the dense model is trained.
        self._bounds = of_dense(budget, given, self.settings)
        problem = problem_of(self.graph, search, self._bounds)
        check(problem, self._bounds, search, self.metric)
        self.workdir = Workdir(workdir, safe_mode, model)
        record = {
            **(config or {}),
            **{k: v for k, v in dataclasses.asdict(self.settings).items() if k != "rehearse"},
            "budget": None if budget is None else budget.given,
        }
        self._inputs = Inputs(model, task, self.settings.search)
        trains = task.trains
        tell_opening(self.graph, problem, self._bounds, self.workdir, search, trains)
        with self.workdir.locked():

            def before_work() -> None:
                if self.settings.rehearse and not self._rehearsed:
                    self._rehearse(problem)

            self.dense = claimed(model, task, self.workdir, self._inputs, record, before_work)
            self.task = with_kept_calibration(task, self.dense, self.workdir)
        if self.settings.fold_residuals or self.dense is not model:
            self.graph = searched(self.dense, self.task, self.settings, final=True)

    @property
    def _rehearsed(self) -> bool:
        result, formats = self.workdir.result, self.settings.export.formats
        done = bool(result.rehearsal) and all(converted(n) in result.rehearsal for n in formats)
        return done or bool(result.policies or result.tflite)

    def _rehearse(self, problem: Problem[PruningPlan]) -> None:
        check_installed()
        story.tell("stage", "rehearsal: walks the whole way once, before time is spent on it")
        model = self.graph.network.model
        steps = rehearse(
            model, self.graph, self.task, self.metric, problem, self.settings, self.workdir
        )
        self.workdir.update_result(rehearsal=steps)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the policies whose networks are compared with the chosen one."""
        return self._run.compared

    @property
    def _run(self) -> Run:
        return Run(
            self.dense,
            self.graph,
            self.task,
            self.metric,
            self._bounds,
            self.settings,
            self.workdir,
            self._inputs,
        )

    @_exclusive
    def search(self) -> SearchResult:
        """Searches (or resumes) and rebuilds the best plans: `plan.json`, `pruned.keras`."""
        return search(self._run)

    @_exclusive
    def finetune(self) -> keras.Model:
        """Fine-tunes `pruned.keras` to `finetuned.keras`, and the compared networks likewise.

        Raises:
            AmcError: no search has ended in the work directory; raised before any work.
        """
        return finetune(self._run)

    @_exclusive
    def export(self) -> CompressionResult:
        """Writes, checks and times `model_*.tflite`, beside the dense and compared models."""
        export(self._run)
        return result_of(self.workdir)

    @_exclusive
    def sparsify(self) -> dict[str, Any]:
        """Prunes single weights of `finetuned.keras` if it exists, else of the dense model.

        The files are written to the folder `sparse`.

        Returns:
            The result of `amc_tf.sparsity.rounds.sparsify`.
        """
        return sparsify(self._run)

    @_exclusive
    def run(self) -> CompressionResult:
        """Runs all stages but `sparsify` and skips those whose files exist."""
        before, run = self.workdir.result, self._run
        if not self._done(SEARCH, "policies", layout.PRUNED.name, layout.PLAN):
            search(run)
        if not self._done(FINETUNE, "finetuned", layout.FINETUNED.name):
            finetune(run, again=False)
        tflite = [layout.tflite_file(name) for name in self.settings.export.formats]
        if not self._done(EXPORT, "tflite", *tflite):
            export(run)
        if self.workdir.result != before or self.workdir.damaged("report", [layout.REPORT]):
            self.report()
        return self.tell_result()

    def tell_result(self) -> CompressionResult:
        """Tells the closing tables and where the report is, and returns the result."""
        result = result_of(self.workdir)
        with story.told(self._verbose):
            paths = {"workdir": str(result.workdir), "report": str(result.report)}
            story.tell("result", f"\n{result}", **paths)
        return result

    def report(self) -> pathlib.Path:
        """Writes `report.html`, on all stages run so far, and returns its path."""
        path = write_report([self.workdir.path])
        if self.workdir.result.products:  # not of an earlier version
            self.workdir.record("report", [layout.REPORT])
        return path

    def _done(self, stage: str, section: str, *names: str) -> bool:
        """Returns whether a stage has ended and its files are as it wrote them."""
        if not getattr(self.workdir.result, section):
            return False
        damaged = self.workdir.damaged(stage, names)
        if damaged:
            _LOG.warning(
                "%s: missing or damaged in %s, so that this stage runs again: %s",
                stage,
                self.workdir.path,
                ", ".join(damaged),
            )
        else:
            story.tell("kept", f"{stage}: done before", stage=stage)
        return not damaged


def _check_training(task: Task, settings: Settings) -> None:
    """Checks that there is what the stages train with."""
    if task.qat is not None and settings.export.qat_distill:
        raise AmcError(
            "expected either Task(qat=...), which trains as it likes, or "
            "ExportSettings(qat_distill=...), received both; leave one out"
        )
    if task.train is not None:
        return
    if settings.train_dense and task.fit is None:
        raise AmcError(
            "the model is to be trained first (train_dense), but there are no training data; give "
            "Task(train=...) or Task(fit=...)"
        )
    if "int8_qat" in settings.export.formats and task.qat is None:
        raise AmcError(
            "the format int8_qat needs training data; give Task(train=...) or Task(qat=...), or "
            "leave the format out: int8 is calibrated without labels"
        )
    if not task.trains and DENSE_LONGER in settings.finetune.compare:
        _LOG.warning(
            "%r is not compared: there is nothing to train the dense network with", DENSE_LONGER
        )
    if not task.trains and settings.recovery.when == "never":
        _LOG.warning(
            "there is nothing to train pruned networks with, and no recovery either: what the "
            "search leaves is what is exported"
        )


def compress(
    model: keras.Model,
    task: Task,
    budget: Budget | None,
    workdir: str | pathlib.Path,
    settings: Settings | None = None,
    safe_mode: bool = True,
    verbose: story.Verbose = True,
) -> CompressionResult:
    """Compresses a model: searches, rebuilds, fine-tunes, exports and checks.

    After an interruption, the same call resumes.

    Args:
        model: a trained Functional or Sequential Keras model; it is not changed.
        task: the model's data and training code.
        budget: see `Compression`; for example `Budget(macs=0.5)`.
        workdir: folder for the run's files: `finetuned.keras`, `model_float32.tflite`,
            `model_int8.tflite`, `result.json`, `report.html` and the files that stages need.
        settings: see `Settings`.
        safe_mode: see `Compression`.
        verbose: see `Compression`.

    Returns:
        The numbers of `result.json`, the files and the small network.

    Raises:
        AmcError: an input cannot be used; raised before any work.
    """
    return Compression(
        model, task, budget, workdir, settings, safe_mode=safe_mode, verbose=verbose
    ).run()
