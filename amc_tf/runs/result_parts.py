"""The parts of a `result.json`: what was measured on networks and files.

Each is a frozen dataclass whose fields are its keys in the file. Keys that are not known are left
out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from amc_tf.errors import AmcError
from amc_tf.runs.vocabulary import COUNTED
from tflite_tools.verification import OutputError

Record = TypeVar("Record")


class Part:
    """A part of a result: a dataclass whose fields are its keys."""

    def to_json(self) -> dict[str, Any]:
        """The content by key."""
        return {name: in_json(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls: type[Record], content: Mapping[str, Any]) -> Record:
        """Reads what `to_json` gave.

        Raises:
            AmcError: a key is missing.
        """
        return record(cls, content)


@dataclasses.dataclass(frozen=True)
class Milliseconds:
    """How long one inference takes, over rounds.

    Attributes:
        median_ms: the median.
        min_ms: the least.
        max_ms: the greatest.
    """

    median_ms: float
    min_ms: float
    max_ms: float

    def to_json(self) -> dict[str, float]:
        """The keys that stand beside those of the file that was timed."""
        return {
            "latency_ms": self.median_ms,
            "latency_ms_min": self.min_ms,
            "latency_ms_max": self.max_ms,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Milliseconds | None:
        """The latency of a file, if it was timed."""
        if "latency_ms" not in content:
            return None
        return cls(*(content[f"latency_ms{end}"] for end in ("", "_min", "_max")))


@dataclasses.dataclass(frozen=True)
class Measures(Part):
    """A network's accuracy on the test data, and its costs.

    Attributes:
        accuracy: the task's metric on the test data.
        macs: the multiply-accumulates of one sample.
        params: the number of parameters.
    """

    accuracy: float
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
        search_accuracy: the accuracy on the validation data, as the search scores it.
    """

    search_accuracy: float


@dataclasses.dataclass(frozen=True)
class PolicyNetwork(Measures):
    """The network of a policy's best plan, before fine-tuning.

    Attributes:
        search_accuracy: the accuracy on the validation data, as the search scores it.
        reward: the reward of the plan.
        finetuned_accuracy: the accuracy on the test data after fine-tuning, of networks that are
            compared.
    """

    search_accuracy: float
    reward: float
    finetuned_accuracy: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The content, without an accuracy that was not measured."""
        absent = ("finetuned_accuracy",) if self.finetuned_accuracy is None else ()
        return {key: value for key, value in super().to_json().items() if key not in absent}


@dataclasses.dataclass(frozen=True)
class FinetunedNetwork(Measures):
    """The chosen network after fine-tuning, and its Keras file once that was exported.

    Attributes:
        bytes: the size of the file.
        latency: the time of a forward pass by Keras.
    """

    bytes: int | None = None
    latency: Milliseconds | None = None

    def to_json(self) -> dict[str, Any]:
        """The content, without what was not measured."""
        size = {} if self.bytes is None else {"bytes": self.bytes}
        return {"accuracy": self.accuracy, **self.costs, **size, **_beside(self.latency)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FinetunedNetwork:
        """Reads what `to_json` gave."""
        return record(cls, {**content, "latency": Milliseconds.from_json(content)})


@dataclasses.dataclass(frozen=True)
class Bound(Part):
    """A bound of the budget.

    Attributes:
        bound: the cost that was allowed.
        reached: the cost of the chosen network.
        dense: the cost of the dense network.
    """

    bound: float
    reached: float
    dense: float


@dataclasses.dataclass(frozen=True)
class Exported(Part):
    """A checked file.

    Attributes:
        accuracy: of the file itself, run by LiteRT, on the test data.
        bytes: its size.
        max_abs_error: greatest difference of an output from Keras' on held-out data.
        agreement: least fraction, of all outputs, at which the file names the class that Keras
            names (top-1); None if no output has classes.
        outputs: name of each output to its `tflite_tools.OutputError`.
        float_operators: in an integer format, the operators that compute in float.
        flex_operators: TensorFlow's own operators; an app must link the Flex delegate for them.
        float_layers: in int8_qat, the layers that were trained without rounding.
        within_tolerance: whether the accuracy is at most the tolerance below Keras'.
        sparse_weights: in a sparse format, the weights that are stored so, with their density.
        worst_tensors: where it is not, the tensors that are farthest from the float file's, with
            their relative error; none for int8_qat, whose weights have moved.
        latency: the time of an inference on this host; None if it was not measured.
    """

    accuracy: float
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
        """The content, the latency's keys beside the others."""
        content = super().to_json()
        del content["latency"]
        return {**content, **_beside(self.latency)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Exported:
        """Reads what `to_json` gave."""
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        errors = content.get("outputs", {})
        given["outputs"] = {name: record(OutputError, error) for name, error in errors.items()}
        return record(cls, {**given, "latency": Milliseconds.from_json(content)})


@dataclasses.dataclass(frozen=True)
class SparseRound(Part):
    """A round of fine-grained pruning.

    Attributes:
        density: the share of the prunable weights that are not zero.
        macs: the multiply-accumulates by weights that are not zero.
        params: the number of parameters that are not zero.
        search_accuracy: the accuracy on the validation data, as the search scores it.
        before: the accuracy on the test data before fine-tuning.
        accuracy: the accuracy on the test data after it.
    """

    density: float
    macs: int
    params: int
    search_accuracy: float
    before: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Accuracy(Part):
    """A model of which no more is told.

    Attributes:
        accuracy: the accuracy on the data that score the others beside it.
    """

    accuracy: float


def in_json(value: Any) -> Any:
    """A value of a field in types of JSON."""
    if isinstance(value, Part):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {name: in_json(inner) for name, inner in value.items()}
    return [in_json(inner) for inner in value] if isinstance(value, tuple) else value


def record(cls: type[Record], content: Mapping[str, Any]) -> Record:
    """An object of a dataclass, made of the keys that it knows.

    Raises:
        AmcError: a key is missing.
    """
    needed = dataclasses.MISSING
    fields: Sequence[Any] = dataclasses.fields(cls)  # type: ignore[arg-type]
    missing = [
        field.name
        for field in fields
        if field.name not in content and field.default is field.default_factory is needed
    ]
    if missing:
        raise AmcError(f"a {cls.__name__} without {' and '.join(missing)}")
    return cls(**{field.name: content[field.name] for field in fields if field.name in content})


def _beside(latency: Milliseconds | None) -> dict[str, float]:
    return {} if latency is None else latency.to_json()
