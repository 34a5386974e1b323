"""The stages of a compression, from a trained model to checked TFLite files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.export.exporter import Exporter, export_tflite
from amc_tf.export.timing import keras_latency, timed
from amc_tf.graph.analysis import analyze
from amc_tf.graph.costs import macs, params
from amc_tf.graph.input_shapes import at_size
from amc_tf.graph.plan import PruningPlan
from amc_tf.pipeline.settings import Settings
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.verification import verify
from amc_tf.report.html import write_report
from amc_tf.runs import layout
from amc_tf.runs.model_files import refuse_code
from amc_tf.runs.provenance import command, versions
from amc_tf.runs.result import SparseResult
from amc_tf.runs.result_parts import (
    Bound,
    DenseNetwork,
    FinetunedNetwork,
    Measures,
    PolicyNetwork,
)
from amc_tf.runs.workdir import Workdir
from amc_tf.search.agents.ddpg.process import check_installed
from amc_tf.search.env.budget import Budget
from amc_tf.search.plan_search import search_in
from amc_tf.search.problem import analyzed, check, problem_of
from amc_tf.search.result import SearchResult
from amc_tf.sparsity.rounds import sparsify
from amc_tf.training.finetune import fine_tune
from amc_tf.training.task import Task


def _exclusive(stage: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a stage keep other processes out of the work directory while it runs."""

    @functools.wraps(stage)
    def locked(self: Compression) -> Any:
        with self.workdir.locked():
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
    ):
        self.task = task
        self.budget = budget
        self.settings = settings or Settings()
        self.graph = analyzed(model, task, self.settings.search)
        if safe_mode:
            refuse_code(self.graph.network)
        # An impossible budget is reported now, not after the dense model is trained.
        check(problem_of(self.graph, self.settings.search), budget, self.settings.search)
        task.check(model)
        self.workdir = Workdir(workdir, safe_mode)
        record = {
            **(config or {}),
            **dataclasses.asdict(self.settings),
            "budget": None if budget is None else budget.given,
        }
        with self.workdir.locked():
            self.workdir.claim(record)
            self.dense = self._trained(model) if self.settings.train_dense else model
            self.workdir.claim_model(self.dense)
        if self.dense is not model:
            self.graph = analyzed(self.dense, task, self.settings.search)

    def _trained(self, model: keras.Model) -> keras.Model:
        if not (self.workdir / layout.DENSE.name).exists():
            check_installed()  # now, as the search would fail only after the training
            with self._timed("train_dense"):
                keras.utils.set_random_seed(self.settings.search.seed)
                self.task.compiled(model, model)
                self.task.train_dense(model)
                self.workdir.save_model(layout.DENSE, model)
        # Read back, so that a resumed run and this one continue with the same model.
        return self.task.compiled(self.workdir.load_model(layout.DENSE), model)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        seconds = {stage: round(time.monotonic() - start, 2)}
        self.workdir.update_result(seconds=seconds, commands={stage: command()})

    def _measures(self, model: keras.Model) -> Measures:
        """Returns the accuracy on the test data, the MACs and the parameters of a model."""
        graph = analyze(model, input_shape=self.graph.input_shapes)
        self.task.compiled(model, self.dense)
        accuracy = self.task.score(model, self.task.test_data)
        return Measures(accuracy, macs(graph), params(graph))

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the policies whose networks are compared with the chosen one."""
        return tuple(
            policy
            for policy in self.settings.finetune.compare
            if (self.workdir / layout.plan_file(policy)).exists()
        )

    @property
    def _chosen(self) -> str:
        """Name of the policy whose network the search chose."""
        chosen = self.workdir.result.chosen
        if chosen is None:
            raise AmcError(
                f"{self.workdir / layout.RESULT} holds no search; run {layout.PRUNED.made_by} first"
            )
        return chosen

    @_exclusive
    def search(self) -> SearchResult:
        """Searches (or resumes) and rebuilds the best plans: `plan.json`, `pruned.keras`."""
        self.workdir.forget("policies", "pruned", "finetuned", "tflite")
        with self._timed("search"):
            found = search_in(
                self.workdir,
                self.dense,
                self.task,
                self.budget,
                self.settings.search,
                self.settings.latency,
            )
        few = [array[:4] for array in self.task.calibration_inputs(self.dense)]
        verify(self.dense, self.graph, found.plan, few)
        measured, policies = {}, {}
        for name, outcome in found.best.items():
            pruned = self._rebuilt(found, outcome.plan)
            self.workdir.save_model(layout.pruned_file(name), pruned)
            measured[name] = self._measures(pruned)
            policies[name] = PolicyNetwork(
                **vars(measured[name]), search_accuracy=outcome.accuracy, reward=outcome.reward
            )
        chosen = self.workdir.load_model(layout.pruned_file(found.chosen))
        self.workdir.save_model(layout.PRUNED, chosen)
        dense = self._measures(rebuild(self.dense, self.graph, None))  # not the user's own model
        dense_ms = None if found.measured is None else found.measured.dense_ms
        latency_ms = found.best[found.chosen].latency_ms
        reached: dict[str, Any] = {**measured[found.chosen].costs, "latency": latency_ms}
        before: dict[str, Any] = {**dense.costs, "latency": dense_ms}
        bounds = {
            kind: Bound(bound, reached[kind], before[kind]) for kind, bound in found.bounds.items()
        }
        self.workdir.update_result(
            dense=DenseNetwork(**vars(dense), search_accuracy=found.dense_accuracy),
            pruned=measured[found.chosen],
            budget=bounds,
            policies=policies,
            chosen=found.chosen,
            episodes=self.settings.search.episodes,
            seed=self.settings.search.seed,
            input_shapes=self.graph.input_shapes,
            versions=versions(),
        )
        return found

    def _rebuilt(self, found: SearchResult, plan: PruningPlan) -> keras.Model:
        return rebuild(self.dense, self.graph, plan, found.refitted(plan))

    @_exclusive
    def finetune(self) -> keras.Model:
        """Fine-tunes `pruned.keras` to `finetuned.keras`, and the compared networks likewise."""
        self.workdir.forget("finetuned", "tflite")
        with self._timed("finetune"):
            model = self.workdir.load_model(layout.PRUNED)
            fine_tune(model, self.dense, self.task, self.settings.finetune.seed)
            self.workdir.save_model(layout.FINETUNED, model)
            measures = self._measures(model)
            chosen = self._chosen
            compared = {chosen: measures.accuracy}
            for name in self.compared:
                if name == chosen:
                    continue
                other = self.workdir.load_model(layout.pruned_file(name))
                compared[name] = fine_tune(
                    other, self.dense, self.task, self.settings.finetune.seed
                )
                self.workdir.save_model(layout.finetuned_file(name), other)
            known = self.workdir.result.policies
            policies = {
                name: dataclasses.replace(known[name], finetuned_accuracy=accuracy)
                for name, accuracy in compared.items()
            }
            finetuned = FinetunedNetwork(**vars(measures))
            self.workdir.update_result(policies=policies, finetuned=finetuned)
        return model

    @_exclusive
    def export(self) -> dict[str, Any]:
        """Writes, checks and times `model_*.tflite`, beside the dense and compared models.

        Returns:
            The content of `result.json`.
        """
        settings = self.settings.export
        with self._timed("export"):
            model = at_size(self.workdir.load_model(layout.FINETUNED), self.graph.input_shapes)
            exported = {}
            exporter = Exporter(model, self.dense, self.task, settings)
            for format_name in settings.formats:
                name = layout.tflite_file(format_name)
                exported[name] = exporter.write(format_name, self.workdir / name)
            others = {"dense": self.dense}
            for name in self.compared:
                if name != self._chosen:
                    others[name] = self.workdir.load_model(layout.finetuned_file(name))
            for name, other in others.items():
                file = layout.compared_file(name)
                sized = at_size(other, self.graph.input_shapes)
                exported[file] = export_tflite(
                    sized, self.dense, self.task, "float32", self.workdir / file, settings
                )
            finetuned = self.workdir.result.finetuned
            if finetuned is None:
                finetuned = FinetunedNetwork(**vars(self._measures(model)))
            self.workdir.update_result(
                tflite=timed(exported, self.workdir.path, settings),
                finetuned=dataclasses.replace(
                    finetuned,
                    bytes=(self.workdir / layout.FINETUNED.name).stat().st_size,
                    latency=keras_latency(model, settings),
                ),
            )
        return self.workdir.update_result(versions=versions()).to_json()

    @_exclusive
    def sparsify(self) -> dict[str, Any]:
        """Prunes single weights of `finetuned.keras` if it exists, else of the dense model.

        The files are written to the folder `sparse`.

        Returns:
            The result of `amc_tf.sparsity.rounds.sparsify`.
        """
        model = self.dense
        if (self.workdir / layout.FINETUNED.name).exists():
            model = self.task.compiled(self.workdir.load_model(layout.FINETUNED), self.dense)
        with self._timed("sparsify"):
            found = sparsify(
                model,
                self.task,
                self.workdir / layout.SPARSE,
                self.settings.sparsity,
                self.settings.search,
                self.workdir.safe_mode,
            )
        self.workdir.update_result(sparse=SparseResult.from_json(found))
        return found

    @_exclusive
    def run(self) -> dict[str, Any]:
        """Runs all stages but `sparsify` and skips those whose files exist.

        Returns:
            The content of `result.json`.
        """
        before = self.workdir.result
        if not self._done("policies", layout.PRUNED.name, layout.PLAN):
            self.search()
        if not self._done("finetuned", layout.FINETUNED.name):
            self.finetune()
        tflite = [layout.tflite_file(name) for name in self.settings.export.formats]
        if not self._done("tflite", *tflite):
            self.export()
        result = self.workdir.result
        if result != before or not (self.workdir / layout.REPORT).exists():
            self.report()
        return result.to_json()

    def report(self) -> pathlib.Path:
        """Writes `report.html`, on all stages run so far, and returns its path."""
        return write_report([self.workdir.path])

    def _done(self, section: str, *names: str) -> bool:
        recorded = getattr(self.workdir.result, section)
        return bool(recorded) and all((self.workdir / name).exists() for name in names)


def compress(
    model: keras.Model,
    task: Task,
    budget: Budget | None,
    workdir: str | pathlib.Path,
    settings: Settings | None = None,
    safe_mode: bool = True,
) -> dict[str, Any]:
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

    Returns:
        The content of `result.json`.

    Raises:
        AmcError: an input cannot be used; raised before any work.
    """
    return Compression(model, task, budget, workdir, settings, safe_mode=safe_mode).run()
