"""The schema of `result.json`: what a run, a standalone export or fine-grained pruning reached.

Each is a frozen dataclass whose fields are the keys of the file; what a stage has not made yet is
None, or empty, and left out. `format` is the number of the schema: files without it are of earlier
versions, which wrote the same keys. Keys of the file's top level that are not known here are kept
when it is written again; those within its sections are not.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.runs import layout
from amc_tf.runs.result_parts import (
    Accuracy,
    Bound,
    DenseNetwork,
    Exported,
    FinetunedNetwork,
    Measures,
    Part,
    PolicyNetwork,
    SparseRound,
    in_json,
    record,
)

FORMAT = 1

Kind = TypeVar("Kind", bound="Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(Part):
    """The content of a `result.json`.

    Attributes:
        others: what the file has beside the keys of this version.
    """

    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of the file: what is known so far."""
        content = {name: in_json(value) for name, value in vars(self).items() if name != "others"}
        known = {name: value for name, value in content.items() if value not in (None, {}, [])}
        return {"format": FORMAT, **known, **self.others}

    @classmethod
    def from_json(cls: type[Kind], content: Mapping[str, Any]) -> Kind:
        """Reads what `to_json` gave, in this version or an earlier one.

        Raises:
            AmcError: it is of a newer format, or a key is missing.
        """
        raise NotImplementedError

    @classmethod
    def _of(cls: type[Kind], content: Mapping[str, Any], **readers: Callable[[Any], Any]) -> Kind:
        """Makes the object, each section by its reader, if it has one."""
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
        """Reads the result of a folder; an empty one if there is none yet.

        Raises:
            AmcError: the file is damaged, of a newer format, or no such result.
        """
        path = folder / layout.RESULT
        content = files.read_json(path, {})
        try:
            return cls.from_json(content)
        except AmcError as error:
            raise AmcError(f"{path} cannot be read: {error}") from None

    def write(self, folder: pathlib.Path) -> None:
        """Writes the result of a folder, whole or not at all.

        Raises:
            AmcError: the system refuses.
        """
        files.write_json(folder / layout.RESULT, self.to_json())


@dataclasses.dataclass(frozen=True)
class SparseResult(Result):
    """The result of fine-grained pruning: of its own folder, and a section of a run's.

    Attributes:
        dense: the model before the first round.
        rounds: the rounds that are done.
    """

    dense: Accuracy | None = None
    rounds: tuple[SparseRound, ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SparseResult:
        """Reads what `to_json` gave."""
        return cls._of(
            content,
            dense=Accuracy.from_json,
            rounds=lambda rounds: tuple(map(SparseRound.from_json, rounds)),
        )


@dataclasses.dataclass(frozen=True)
class ExportResult(Result):
    """The result of an export without a run around it.

    Attributes:
        keras: the Keras model.
        tflite: the files by name.
    """

    keras: Accuracy | None = None
    tflite: Mapping[str, Exported] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ExportResult:
        """Reads what `to_json` gave."""
        return cls._of(content, keras=Accuracy.from_json, tflite=_each(Exported))


@dataclasses.dataclass(frozen=True)
class RunResult(Result):
    """The result of a run.

    Attributes:
        seconds: the time of each stage that is done.
        commands: the command line of each.
        dense: the network before pruning.
        pruned: the chosen network before fine-tuning.
        budget: the bounds by name of the cost, none for a reward that prices the cost; None
            before the search.
        policies: the best network of each policy.
        chosen: the policy whose network goes on.
        episodes: the number of the agent's episodes.
        seed: the seed of the search.
        versions: the versions of Python and of packages.
        finetuned: the chosen network after fine-tuning.
        tflite: the files by name, those for comparison included.
        sparse: the rounds of fine-grained pruning.
    """

    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    commands: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dense: DenseNetwork | None = None
    pruned: Measures | None = None
    budget: Mapping[str, Bound] | None = None
    policies: Mapping[str, PolicyNetwork] = dataclasses.field(default_factory=dict)
    chosen: str | None = None
    episodes: int | None = None
    seed: int | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    finetuned: FinetunedNetwork | None = None
    tflite: Mapping[str, Exported] = dataclasses.field(default_factory=dict)
    sparse: SparseResult | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of the file; `budget` is null for a search that had none."""
        return {**super().to_json(), **({"budget": None} if self.budget == {} else {})}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunResult:
        """Reads what `to_json` gave, or an earlier version."""
        return cls._of(
            content,
            dense=DenseNetwork.from_json,
            pruned=Measures.from_json,
            budget=lambda bounds: _each(Bound)(bounds or {}),
            policies=_each(PolicyNetwork),
            finetuned=FinetunedNetwork.from_json,
            tflite=_each(Exported),
            sparse=SparseResult.from_json,
        )

    def updated(self, **sections: Any) -> RunResult:
        """The result after a stage: mappings get its entries, other sections are replaced."""
        merged = {
            name: {**getattr(self, name), **value}
            if isinstance(value, dict) and getattr(self, name)
            else value
            for name, value in sections.items()
        }
        return dataclasses.replace(self, **merged)

    def without(self, *sections: str) -> RunResult:
        """The result without sections that are about to be made again."""
        empty = RunResult()
        return dataclasses.replace(self, **{name: getattr(empty, name) for name in sections})


def _each(cls: type[Part]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A reader of parts by name."""
    return lambda content: {name: cls.from_json(part) for name, part in content.items()}
