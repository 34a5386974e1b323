"""The parts of a `result.json`: measurements of networks and files.

Each is a frozen dataclass whose fields are its keys in the file. Unknown keys are left out.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from amc_tf.errors import AmcError
from amc_tf.runs.former_keys import with_names_of_now
from amc_tf.runs.json_types import mismatch
from amc_tf.runs.vocabulary import COUNTED
from tflite_tools.verification import OutputError

Record = TypeVar("Record")


class Part:
    """A part of a result: a dataclass whose fields are its keys."""

    def to_json(self) -> dict[str, Any]:
        """Returns the content by key."""
        return {name: in_json(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls: type[Record], content: Mapping[str, Any]) -> Record:
        """Reads the output of `to_json`.

        Raises:
            AmcError: a key is missing.
        """
        return record(cls, content)


@dataclasses.dataclass(frozen=True)
class Milliseconds:
    """The latency of one inference over several rounds, in milliseconds.

    Attributes:
        median_ms: median of the rounds.
        min_ms: smallest value of the rounds.
        max_ms: largest value of the rounds.
    """

    median_ms: float
    min_ms: float
    max_ms: float

    def to_json(self) -> dict[str, float]:
        """Returns the keys, which stand beside those of the file that was timed."""
        return {
            "latency_ms": self.median_ms,
            "latency_ms_min": self.min_ms,
            "latency_ms_max": self.max_ms,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Milliseconds | None:
        """Reads the latency of a file; None if it was not timed."""
        if "latency_ms" not in content:
            return None
        keys = {"median_ms": "latency_ms", "min_ms": "latency_ms_min", "max_ms": "latency_ms_max"}
        return record(cls, {name: content[key] for name, key in keys.items()})


@dataclasses.dataclass(frozen=True)
class Measures(Part):
    """A network's score, and its costs.

    Attributes:
        score: value of the task's metric on the test data.
        macs: number of multiply-accumulates of one sample.
        params: number of parameters.
    """

    score: float
    macs: int
    params: int

    @property
    def costs(self) -> dict[str, int]:
        """The costs by name."""
        return {name: getattr(self, name) for name in COUNTED}


@dataclasses.dataclass(frozen=True)
class DenseNetwork(Measures):
    """The network before pruning.

    Attributes:
        search_score: score on the validation data, as the search scores it.
        constant_score: best score there of one answer to every input; None if it is not known.
        longer_score: score on the test data after the pruned network's fine-tuning; None unless
            `dense_longer` is compared.
    """

    search_score: float
    constant_score: float | None = None
    longer_score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the content, without a score that is not known."""
        return {key: value for key, value in super().to_json().items() if value is not None}


@dataclasses.dataclass(frozen=True)
class PolicyNetwork(Measures):
    """The network of a policy's best plan, before fine-tuning.

    Attributes:
        search_score: score on the validation data, as the search scores it.
        reward: reward of the plan.
        finetuned_score: score on the test data after fine-tuning; None for a network that
            was not fine-tuned.
    """

    search_score: float
    reward: float
    finetuned_score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the content, without a score that was not measured."""
        absent = ("finetuned_score",) if self.finetuned_score is None else ()
        return {key: value for key, value in super().to_json().items() if key not in absent}


@dataclasses.dataclass(frozen=True)
class Recovery(Part):
    """A training without labels.

    Attributes:
        images: number of calibration images that were trained on.
        held_out: number of validation inputs, on which the errors are measured.
        measure: what the errors are.
        before: how far the outputs were from the dense network's before.
        after: how far they are after it.
        epochs: number of epochs.
        kept: epoch whose weights are kept; 0 for those of before.
        seconds: time since the last resumption.
    """

    images: int
    held_out: int
    measure: str
    before: float
    after: float
    epochs: int
    kept: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class FinetunedNetwork(Measures):
    """The chosen network after fine-tuning, and its Keras file.

    Attributes:
        bytes: size of the file; None before the export.
        latency: time of a forward pass by Keras; None before the export.
        validation_before: score on the validation data before fine-tuning.
        validation_after: score on the validation data after fine-tuning.
        undone: whether fine-tuning made it worse, so that the network is that of before.
        trained: whether there was anything to fine-tune with.
    """

    bytes: int | None = None
    latency: Milliseconds | None = None
    validation_before: float | None = None
    validation_after: float | None = None
    undone: bool = False
    trained: bool = True

    def to_json(self) -> dict[str, Any]:
        """Returns the content, without what was not measured and what is as usual."""
        absent = {"latency", *(() if self.undone else ("undone",))}
        absent |= {"trained"} if self.trained else set()
        absent |= {name for name, value in vars(self).items() if value is None}
        known = {key: value for key, value in super().to_json().items() if key not in absent}
        return {**known, **_beside(self.latency)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FinetunedNetwork:
        """Reads the output of `to_json`."""
        return record(cls, {**content, "latency": Milliseconds.from_json(content)})


@dataclasses.dataclass(frozen=True)
class Bound(Part):
    """A bound of the budget.

    Attributes:
        bound: allowed cost.
        reached: cost of the chosen network.
        dense: cost of the dense network.
    """

    bound: float
    reached: float
    dense: float


@dataclasses.dataclass(frozen=True)
class Exported(Part):
    """An exported TFLite file that was checked.

    Attributes:
        score: score of the file itself on the test data, run by LiteRT.
        bytes: size of the file.
        max_abs_error: largest difference between an output and Keras' output on held-out data.
        agreement: fraction of samples for which the file predicts the class that Keras predicts
            (top-1), the smallest of all outputs; None if no output has classes.
        outputs: `tflite_tools.OutputError` of each output, by the output's name.
        float_operators: operators of an integer format that compute in float.
        flex_operators: TensorFlow's own operators; an app must link the Flex delegate for them.
        float_layers: layers of int8_qat that were trained without rounding.
        within_tolerance: whether the score is worse than Keras' by the tolerance at most.
        sparse_weights: density of each weight that a sparse format stores as sparse, by name.
        worst_tensors: the tensors at which most of the error arises, the first cause first, with
            their relative errors against the float file's (mean over channels), if the score is
            not within the tolerance; empty for int8_qat, whose training changes the weights.
        latency: time of an inference on this host; None if it was not measured.
    """

    score: float
    bytes: int
    max_abs_error: float
    agreement: float | None = None
    outputs: Mapping[str, OutputError] = dataclasses.field(default_factory=dict)
    float_operators: tuple[str, ...] = ()
    flex_operators: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    within_tolerance: bool = True
    sparse_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    worst_tensors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    latency: Milliseconds | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the content, with the latency's keys beside the others."""
        content = super().to_json()
        del content["latency"]
        return {**content, **_beside(self.latency)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Exported:
        """Reads the output of `to_json`."""
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        errors = content.get("outputs", {})
        given["outputs"] = {name: record(OutputError, error) for name, error in errors.items()}
        return record(cls, {**given, "latency": Milliseconds.from_json(content)})


@dataclasses.dataclass(frozen=True)
class SparseRound(Part):
    """A round of fine-grained pruning.

    Attributes:
        density: share of the prunable weights that are not zero.
        macs: number of multiply-accumulates by weights that are not zero.
        params: number of parameters that are not zero.
        search_score: score on the validation data, as the search scores it.
        before: score on the test data before fine-tuning.
        score: score on the test data after fine-tuning.
        weights: fingerprint of the weights of its file; None of a round of an earlier version.
    """

    density: float
    macs: int
    params: int
    search_score: float
    before: float
    score: float
    weights: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the content, without an absent fingerprint."""
        return {name: value for name, value in super().to_json().items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Scored(Part):
    """A model of which only the score is recorded.

    Attributes:
        score: score on the same data as the other models of the result.
    """

    score: float


def in_json(value: Any) -> Any:
    """Converts a field's value to types of JSON."""
    if isinstance(value, Part):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {name: in_json(inner) for name, inner in value.items()}
    return [in_json(inner) for inner in value] if isinstance(value, tuple) else value


def record(cls: type[Record], content: Mapping[str, Any]) -> Record:
    """Makes an object of a dataclass from the keys that it knows, of this or an earlier version.

    Raises:
        AmcError: a key is missing, or its value has another type.
    """
    if wrong := mismatch(content, Mapping[str, Any]):
        raise AmcError(f"a {cls.__name__} whose {wrong}; restore the file, or delete it")
    needed = dataclasses.MISSING
    content = with_names_of_now(content)
    fields: Sequence[Any] = dataclasses.fields(cls)  # type: ignore[arg-type]
    missing = [
        field.name
        for field in fields
        if field.name not in content and field.default is field.default_factory is needed
    ]
    if missing:
        raise AmcError(f"a {cls.__name__} without {' and '.join(missing)}")
    kinds = typing.get_type_hints(cls)
    known = {field.name: content[field.name] for field in fields if field.name in content}
    for name, value in known.items():
        wrong = mismatch(value, kinds[name], repr(name))
        if wrong:
            raise AmcError(f"a {cls.__name__} whose {wrong}; restore the file, or delete it")
    return cls(**known)


def _beside(latency: Milliseconds | None) -> dict[str, float]:
    return {} if latency is None else latency.to_json()
