"""The schema of `result.json`, of a run, a standalone export or fine-grained pruning.

Each of these is a frozen dataclass whose fields are the keys of the file. A field that no stage has
set yet is None or empty, and is left out of the file. `format` is the number of the schema. Files
without it come from earlier versions, which wrote the keys of format 1; there, scores were called
accuracies (see `former_keys`). Unknown keys at the top level of the file are kept when it is
written again; unknown keys within its sections are not.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.runs import layout
from amc_tf.runs.choice import Choice
from amc_tf.runs.json_types import mismatch
from amc_tf.runs.products import Product
from amc_tf.runs.result_parts import (
    Bound,
    DenseNetwork,
    Exported,
    FinetunedNetwork,
    Measures,
    Part,
    PolicyNetwork,
    Recovery,
    Scored,
    SparseRound,
    in_json,
    record,
)
from amc_tf.training.metric import Metric
from amc_tf.training.uncertainty import Uncertainty

FORMAT = 2
# What the readers of parts raise for parts of other types.
_DAMAGE = (AttributeError, KeyError, TypeError, ValueError)

Kind = TypeVar("Kind", bound="Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(Part):
    """The content of a `result.json`.

    Attributes:
        others: entries of the file whose keys this version does not know.
    """

    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the file, as far as it is known."""
        content = {name: in_json(value) for name, value in vars(self).items() if name != "others"}
        known = {name: value for name, value in content.items() if value not in (None, {}, [])}
        return {"format": FORMAT, **known, **self.others}

    @classmethod
    def from_json(cls: type[Kind], content: Mapping[str, Any]) -> Kind:
        """Reads the output of `to_json`, of this version or an earlier one.

        Raises:
            AmcError: the content is of a newer format, or a key is missing.
        """
        raise NotImplementedError

    @classmethod
    def _of(cls: type[Kind], content: Mapping[str, Any], **readers: Callable[[Any], Any]) -> Kind:
        """Makes the object; sections that have a reader are read by it."""
        number = content.get("format", 0)
        if number not in range(FORMAT + 1):
            raise AmcError(
                f"the format {number!r} is that of another version of amc_tf; this one reads "
                f"formats up to {FORMAT}: use the version that wrote it, or a newer one"
            )
        names = {field.name for field in dataclasses.fields(cls)} - {"others"}
        known = {
            name: readers[name](value) if name in readers else value
            for name, value in content.items()
            if name in names
        }
        left = {k: v for k, v in content.items() if k not in names and k != "format"}
        return record(cls, {**known, "others": left})

    @classmethod
    def read(cls: type[Kind], folder: pathlib.Path) -> Kind:
        """Reads the result of a folder; it is empty if there is no file yet.

        Raises:
            AmcError: the file is damaged, of a newer format, or not a result of this kind.
        """
        path = folder / layout.RESULT
        content = files.read_json(path, {})
        try:
            wrong = mismatch(content, Mapping[str, Any])
            if wrong:
                raise AmcError(wrong)
            return cls.from_json(content)
        except AmcError as error:
            raise AmcError(f"{path} cannot be read: {error}") from None
        except _DAMAGE as error:
            raise AmcError(
                f"{path} is damaged ({type(error).__name__}: {error}); restore it or delete it, "
                "and run again"
            ) from None

    def write(self, folder: pathlib.Path) -> None:
        """Writes the result of a folder, completely or not at all.

        Raises:
            AmcError: the file cannot be written.
        """
        files.write_json(folder / layout.RESULT, self.to_json())


@dataclasses.dataclass(frozen=True)
class SparseResult(Result):
    """The result of fine-grained pruning, in its own folder and as a section of a run's result.

    Attributes:
        dense: score of the model before the first round.
        rounds: completed rounds.
        metric: what the scores are; None, and an accuracy, in files of earlier versions.
    """

    dense: Scored | None = None
    rounds: tuple[SparseRound, ...] = ()
    metric: Metric | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SparseResult:
        """Reads the output of `to_json`."""
        return cls._of(
            content,
            metric=_metric,
            dense=Scored.from_json,
            rounds=lambda rounds: tuple(map(SparseRound.from_json, rounds)),
        )


@dataclasses.dataclass(frozen=True)
class ExportResult(Result):
    """The result of an export that is not part of a run.

    Attributes:
        keras: score of the Keras model.
        tflite: exported files, by name.
        metric: what the scores are; None, and an accuracy, in files of earlier versions.
    """

    keras: Scored | None = None
    tflite: Mapping[str, Exported] = dataclasses.field(default_factory=dict)
    metric: Metric | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ExportResult:
        """Reads the output of `to_json`."""
        return cls._of(content, metric=_metric, keras=Scored.from_json, tflite=_each(Exported))


@dataclasses.dataclass(frozen=True)
class RunResult(Result):
    """The result of a run.

    Attributes:
        seconds: time of each completed stage, in seconds.
        commands: command line of each completed stage.
        metric: what the scores are; None, and an accuracy, in files of earlier versions.
        uncertainty: how uncertain they are; None, and unknown, in files of earlier versions.
        dense: the network before pruning.
        pruned: the chosen network before fine-tuning.
        budget: bounds by the name of the cost, empty for a reward that prices the cost; None
            before the search.
        policies: best network of each policy.
        chosen: name of the policy whose network is fine-tuned and exported.
        choice: how it was chosen; None in files of earlier versions.
        reward: the reward that guided the search, which may be another than that of the settings;
            None in files of earlier versions.
        episodes: number of the agent's episodes.
        seed: the search's seed.
        input_shapes: shape of each input for which MACs were counted, without the batch axis.
        versions: versions of Python and of packages.
        recoveries: trainings without labels, by the policy whose network was trained.
        finetuned: the chosen network after fine-tuning.
        tflite: exported files by name, including those for comparison.
        sparse: result of fine-grained pruning.
        products: files that each stage made, by the stage and their names.
        rehearsal: seconds of each step of the rehearsal.
    """

    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    commands: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metric: Metric | None = None
    uncertainty: Uncertainty | None = None
    dense: DenseNetwork | None = None
    pruned: Measures | None = None
    budget: Mapping[str, Bound] | None = None
    policies: Mapping[str, PolicyNetwork] = dataclasses.field(default_factory=dict)
    chosen: str | None = None
    choice: Choice | None = None
    reward: str | None = None
    episodes: int | None = None
    seed: int | None = None
    input_shapes: Sequence[Sequence[int]] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    recoveries: Mapping[str, Recovery] = dataclasses.field(default_factory=dict)
    finetuned: FinetunedNetwork | None = None
    tflite: Mapping[str, Exported] = dataclasses.field(default_factory=dict)
    sparse: SparseResult | None = None
    products: Mapping[str, Mapping[str, Product]] = dataclasses.field(default_factory=dict)
    rehearsal: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the file; `budget` is null for a search without a budget."""
        return {**super().to_json(), **({"budget": None} if self.budget == {} else {})}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunResult:
        """Reads the output of `to_json`, of this version or an earlier one.

        The file in the folder of fine-grained pruning is read as a run of that alone.
        """
        if "rounds" in content:
            return cls(sparse=SparseResult.from_json(content))
        return cls._of(
            content,
            metric=_metric,
            uncertainty=lambda part: record(Uncertainty, part),
            dense=DenseNetwork.from_json,
            pruned=Measures.from_json,
            budget=lambda bounds: _each(Bound)(bounds or {}),
            policies=_each(PolicyNetwork),
            choice=Choice.from_json,
            input_shapes=lambda shapes: tuple(map(tuple, shapes)),
            recoveries=_each(Recovery),
            finetuned=FinetunedNetwork.from_json,
            tflite=_each(Exported),
            sparse=SparseResult.from_json,
            products=lambda stages: {stage: _each(Product)(made) for stage, made in stages.items()},
        )

    def updated(self, **sections: Any) -> RunResult:
        """Returns the result after a stage: mappings gain entries, other sections are replaced."""
        merged = {
            name: {**getattr(self, name), **value}
            if isinstance(value, dict) and getattr(self, name)
            else value
            for name, value in sections.items()
        }
        return dataclasses.replace(self, **merged)

    def without(self, *sections: str) -> RunResult:
        """Returns the result without sections that are about to be made again."""
        empty = RunResult()
        return dataclasses.replace(self, **{name: getattr(empty, name) for name in sections})


def _metric(content: Mapping[str, Any]) -> Metric:
    return record(Metric, content)


def _each(cls: type[Part]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Returns a reader of parts by name."""
    return lambda content: {name: cls.from_json(part) for name, part in content.items()}
