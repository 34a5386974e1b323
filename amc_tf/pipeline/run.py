"""What the stages of a run share: the model, the task, the settings and the work directory."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import keras

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.graph.analysis import analyze
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import macs, params
from amc_tf.pipeline.settings import Settings
from amc_tf.runs import layout
from amc_tf.runs.provenance import command
from amc_tf.runs.result_parts import Measures
from amc_tf.runs.workdir import Workdir
from amc_tf.search.env.budget import Budget
from amc_tf.search.inputs import Inputs
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run of the stages in one work directory.

    Attributes:
        dense: the trained model.
        graph: the network that is searched, analysed: the dense model, or the same with its
            residuals folded.
        task: the model's data and training code.
        metric: what the task's scores are.
        budget: the bounds on costs; None with a reward that prices the cost.
        settings: settings of all stages.
        workdir: the run's files.
        inputs: fingerprints of what the stages depend on.
    """

    dense: keras.Model
    graph: ChannelGraph
    task: Task
    metric: Metric
    budget: Budget | None
    settings: Settings
    workdir: Workdir
    inputs: Inputs

    @property
    def searched(self) -> keras.Model:
        """The network that is searched, compiled as the dense model is."""
        return self.graph.network.model

    def analyzed(self, model: keras.Model) -> ChannelGraph:
        """Analyses a network that was made of the searched one, as that was analysed."""
        return analyze(
            model,
            input_shape=self.graph.input_shapes,
            allow_approximate=self.graph.allow_approximate,
        )

    def measures(self, model: keras.Model) -> Measures:
        """Returns the score on the test data, the MACs and the parameters of a model."""
        graph = self.analyzed(model)
        self.task.compiled(model, self.dense)
        score = self.task.score(model, self.task.test_data)
        return Measures(score, macs(graph), params(graph))

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the policies whose networks are compared with the chosen one."""
        return tuple(
            policy
            for policy in self.settings.finetune.compare
            if (self.workdir / layout.plan_file(policy)).exists()
        )

    @property
    def chosen(self) -> str:
        """Name of the policy whose network the search chose.

        Raises:
            AmcError: no search has ended in the work directory.
        """
        chosen = self.workdir.result.chosen
        if chosen is None:
            raise AmcError(
                f"{self.workdir / layout.RESULT} holds no search; run {layout.PRUNED.made_by} first"
            )
        return chosen


# What each stage is for, as a run tells it.
_PURPOSES = {
    "train_dense": "trains the dense network by your code",
    "search": "finds how many channels each group keeps; scores plans without training them",
    "finetune": "gives the pruned networks their accuracy back",
    "export": "writes, checks and times TFLite files",
    "sparsify": "sets single weights to zero",
}


@contextlib.contextmanager
def timed(workdir: Workdir, stage: str) -> Iterator[None]:
    """Returns a context that tells a stage, and records its seconds and command if it succeeds."""
    start = time.monotonic()
    story.tell("stage", f"{stage}: {_PURPOSES[stage]}", stage=stage)
    yield
    seconds = round(time.monotonic() - start, 2)
    workdir.update_result(seconds={stage: seconds}, commands={stage: command()})
    story.tell("done", f"  done in {_duration(seconds)}", stage=stage, seconds=seconds)


def _duration(seconds: float) -> str:
    """Writes seconds for a reader: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"
