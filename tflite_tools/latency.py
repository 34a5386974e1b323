"""How latency is measured on any device: rounds, interleaving, a reference against drift.

On a shared machine the median of one process differs from the next by up to a tenth and more, and
a phone slows down as it warms up. So each model is timed in several rounds, each a process of its
own, alternating with the other models, so that a slow minute strikes all of them alike. A small
reference model before and after every block of models tells whether the device was steady; a block
in which it was not is measured again.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import numpy as np

from tflite_tools.errors import DeviceError
from tflite_tools.reference import reference_model

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Timing:
    """One series of timed inferences in one process.

    Attributes:
        median_ms: Median over the series, in milliseconds.
        runs: Number of timed inferences.
        peak_memory_mb: Peak memory footprint in MB, where it is known.
    """

    median_ms: float
    runs: int
    peak_memory_mb: float | None = None


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latency of one model on one device; times are in milliseconds per inference of batch 1.

    Attributes:
        rounds_ms: Each round's median. Models measured together have their rounds in common.
        runs: Timed inferences in all rounds together.
        peak_memory_mb: Peak memory footprint in MB, or None where it was not measured. On the host
            it is what the process grew by; benchmark_model reports the whole process.
        conditions: What the numbers depend on: device, runtime and its version, threads, governor,
            temperature, the reference model's times (``reference_ms``) and the like.
    """

    rounds_ms: tuple[float, ...]
    runs: int
    peak_memory_mb: float | None = None
    conditions: Mapping[str, str | int | float] = dataclasses.field(default_factory=dict)

    @property
    def median_ms(self) -> float:
        """Median of the rounds' medians."""
        return statistics.median(self.rounds_ms)

    @property
    def min_ms(self) -> float:
        """Least of the rounds' medians; with `max_ms` it tells the spread."""
        return min(self.rounds_ms)

    @property
    def max_ms(self) -> float:
        """Greatest of the rounds' medians."""
        return max(self.rounds_ms)

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.rounds_ms)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as long one model takes as another.

    Attributes:
        value: Ratio of the medians.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
    """

    value: float
    low: float
    high: float


def ratio(latency: Latency, base: Latency, resamples: int = 2000) -> Ratio:
    """Compares two models that were measured together.

    The interval is a percentile bootstrap (Efron and Tibshirani 1993, chapter 13) over the rounds.
    A round is drawn for both models at once: what slowed down a round struck both.

    Args:
        latency: The model.
        base: What it is compared with; measured in the same rounds.
        resamples: Draws of the bootstrap.

    Returns:
        ``latency / base`` with its interval.

    Raises:
        ValueError: If the rounds differ in number.
    """
    ours, theirs = np.array(latency.rounds_ms), np.array(base.rounds_ms)
    if len(ours) != len(theirs):
        raise ValueError(
            f"expected models measured in the same rounds; received {len(ours)} and {len(theirs)}."
        )
    draws = np.random.default_rng(0).integers(len(ours), size=(resamples, len(ours)))
    ratios = np.median(ours[draws], axis=1) / np.median(theirs[draws], axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Ratio(latency.median_ms / base.median_ms, float(low), float(high))


@dataclasses.dataclass(frozen=True)
class Settings:
    """How models are timed; the defaults of each series are those of TFLite's benchmark_model.

    For many small models, a table of single layers say, ``rounds=3, num_runs=20, min_secs=0.05,
    warmup_min_secs=0.05`` measures hundreds of them in minutes.

    Attributes:
        rounds: Series of each model, each in a process of its own.
        num_runs: Least number of timed inferences in a series.
        min_secs: Least time of the timed inferences of a series, in seconds.
        max_secs: Time in seconds after which no further inference begins.
        warmup_runs: Least number of untimed inferences before.
        warmup_min_secs: Least time of the untimed inferences, in seconds.
        num_threads: Threads of the runtime on the CPU.
        batch: Models between two runs of the reference; on a phone also those of one round trip.
        reference: Whether the reference model is run.
        max_drift: How much slower than its best the reference may be, as a fraction, before a
            block is measured again; None for the device's own default.
        retries: How often a block is measured again, after drift or a transient failure.
        memory: Whether peak memory is measured, on a phone in series of their own.
    """

    rounds: int = 5
    num_runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 150.0
    warmup_runs: int = 1
    warmup_min_secs: float = 0.5
    num_threads: int = 1
    batch: int = 16
    reference: bool = True
    max_drift: float | None = None
    retries: int = 2
    memory: bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"{name} must be at least {least}; received {value}.")


_LEAST = {
    "rounds": 1,
    "num_runs": 1,
    "min_secs": 0,
    "max_secs": 0,
    "warmup_runs": 0,
    "warmup_min_secs": 0,
    "num_threads": 1,
    "batch": 1,
    "max_drift": 0,
    "retries": 0,
}


@dataclasses.dataclass(frozen=True)
class _Block:
    """Models that are timed one after another, between two runs of the reference."""

    keys: tuple[str, ...]
    timings: tuple[Timing, ...]
    reference_ms: tuple[float, ...]


class Device(abc.ABC):
    """Something that can time models.

    A subclass says how models reach the device, how one block of them is timed and under which
    conditions; rounds, order, drift and retries are common to all.

    Attributes:
        name: As `open_device` takes it.
        settings: How models are timed.
    """

    default_max_drift = math.inf
    # Devices that do not burden this host can be measured side by side.
    remote = False

    def __init__(
        self,
        name: str,
        settings: Settings | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Names the device; it is reached when it first measures.

        Args:
            name: As `open_device` takes it.
            settings: How models are timed.
            sleep: Waits for a number of seconds.
        """
        self.name = name
        self.settings = settings or Settings()
        self._sleep = sleep
        self._names: dict[str, str] = {}

    @abc.abstractmethod
    def _session(self, files: Mapping[str, bytes]) -> AbstractContextManager[None]:
        """A context within which the files can be timed by their keys."""

    @abc.abstractmethod
    def _time(self, keys: Sequence[str]) -> list[Timing]:
        """Times the files in this order; a key may occur twice."""

    @abc.abstractmethod
    def _conditions(self) -> dict[str, str | int | float]:
        """What the numbers depend on; called within the session, after the last block."""

    def _settle(self) -> None:
        """Waits until the device is fit to be timed on."""
        return

    def _peak_memory(self, keys: Sequence[str]) -> dict[str, float]:
        """Peak memory in MB of those files whose timings do not tell it."""
        return {}

    def _reference(self) -> bytes | None:
        """The reference model in the format of this device."""
        return reference_model()

    def measure(self, model: bytes) -> Latency:
        """Times one model.

        Args:
            model: Contents of a ``.tflite`` file.

        Returns:
            Its latency.

        Raises:
            DeviceError: As `measure_all`.
        """
        return self.measure_all({"model": model})["model"]

    def measure_all(
        self,
        models: Mapping[str, bytes],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Latency]:
        """Times models against each other.

        Every round times every model once; the order is drawn anew for every round, so that no
        model always follows the same one. Equal contents are timed once for all their names.

        Args:
            models: Contents of a ``.tflite`` file for each name.
            progress: Called with the number of series done and their total.

        Returns:
            The latency for each name, in the order of ``models``.

        Raises:
            ValueError: If ``models`` is empty.
            DeviceError: If the device cannot measure, or was not steady in any try.
        """
        if not models:
            raise ValueError("models is empty; expected at least one file by name.")
        keys = {name: hashlib.sha256(content).hexdigest() for name, content in models.items()}
        files = {keys[name]: content for name, content in models.items()}
        self._names = {key: repr(name) for name, key in keys.items()}
        reference = self._reference() if self.settings.reference else None
        reference_key = None
        session_files = dict(files)
        if reference is not None:
            reference_key = hashlib.sha256(reference).hexdigest()
            session_files[reference_key] = reference
        with self._session(session_files):
            blocks = self._steady_blocks(list(files), reference_key, progress)
            memory = self._peak_memory(list(files)) if self.settings.memory else {}
            conditions = {"device": self.name, **self._conditions()}
        references = [ms for block in blocks for ms in block.reference_ms]
        if references:
            conditions["reference_ms"] = statistics.median(references)
            conditions["reference_ms_max"] = max(references)
        series: dict[str, list[Timing]] = {key: [] for key in files}
        for block in blocks:
            for key, timing in zip(block.keys, block.timings, strict=True):
                series[key].append(timing)
        return {
            name: _summary(series[key], memory.get(key), conditions) for name, key in keys.items()
        }

    def _steady_blocks(
        self,
        keys: list[str],
        reference_key: str | None,
        progress: Callable[[int, int], None] | None,
    ) -> list[_Block]:
        """Every block of every round, those of an unsteady device measured again."""
        settings = self.settings
        planned = [
            tuple(order[start : start + settings.batch])
            for order in orders(keys, settings.rounds)
            for start in range(0, len(order), settings.batch)
        ]
        max_drift = self.default_max_drift if settings.max_drift is None else settings.max_drift
        blocks: dict[int, _Block] = {}
        tries: collections.Counter[int] = collections.Counter()
        pending = list(range(len(planned)))
        while pending:
            for index in pending:
                tries[index] += 1
                keys_of_block = planned[index]
                blocks[index] = self._retried(lambda k=keys_of_block: self._block(k, reference_key))
                if progress:
                    done = sum(len(planned[i]) for i in blocks)
                    progress(done, len(keys) * settings.rounds)
            best = min((min(b.reference_ms, default=0) for b in blocks.values()), default=0)
            drifts = {i: max(b.reference_ms, default=0) - best for i, b in blocks.items()}
            pending = [i for i, drift in drifts.items() if drift > max_drift * best > 0]
            exhausted = [i for i in pending if tries[i] > settings.retries]
            if exhausted:
                raise DeviceError(
                    f"{self.name} was not steady: its reference model took {best:.3g} ms at best "
                    f"and {drifts[exhausted[0]] / best:.0%} longer in the last of "
                    f"{settings.retries + 1} tries",
                    "Let it cool down, close what else runs on it, or allow for a greater "
                    "max_drift.",
                )
        return [blocks[index] for index in range(len(planned))]

    def _block(self, keys: tuple[str, ...], reference_key: str | None) -> _Block:
        ends = () if reference_key is None else (reference_key,)
        self._settle()
        timings = self._time((*ends, *keys, *ends))
        inner = timings[1:-1] if ends else timings
        outer = (timings[0], timings[-1]) if ends else ()
        return _Block(keys, tuple(inner), tuple(timing.median_ms for timing in outer))

    def _retried(self, action: Callable[[], _T]) -> _T:
        """What a call returns; it is repeated after a transient failure."""
        attempt = 0
        while True:
            try:
                return action()
            except DeviceError as error:
                if not error.transient or attempt == self.settings.retries:
                    raise
            self._sleep(2.0**attempt)
            attempt += 1

    @contextmanager
    def _naming(self, keys: Sequence[str]) -> Iterator[None]:
        """Puts the models' names before what went wrong with them."""
        try:
            yield
        except DeviceError as error:
            names = ", ".join(self._names.get(key, "the reference model") for key in keys)
            raise DeviceError(
                f"{names}: {error.found}", error.remedy, transient=error.transient
            ) from error


def orders(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """The order of each round: as given, then drawn anew, the same whenever it is called.

    Neighbours, and models that share a process or a minute, have their speed in common; drawn
    anew, they are others in every round.
    """
    rng = np.random.default_rng(0)
    order = list(names)
    for _ in range(rounds):
        yield order
        drawn = [names[i] for i in rng.permutation(len(names))]
        order = drawn[::-1] if drawn == order else drawn  # of two models, neither is always first


def _summary(
    series: Sequence[Timing],
    peak_memory_mb: float | None,
    conditions: Mapping[str, str | int | float],
) -> Latency:
    known = [t.peak_memory_mb for t in series if t.peak_memory_mb is not None]
    return Latency(
        rounds_ms=tuple(timing.median_ms for timing in series),
        runs=sum(timing.runs for timing in series),
        peak_memory_mb=peak_memory_mb if peak_memory_mb is not None else max(known, default=None),
        conditions=conditions,
    )
