"""The base class of devices: rounds, their order, drift and retries."""

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
from tflite_tools.latency import Latency, Settings, Timing
from tflite_tools.reference import reference_model

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class _Block:
    """Models that are timed one after another, between two runs of the reference."""

    keys: tuple[str, ...]
    timings: tuple[Timing, ...]
    reference_ms: tuple[float, ...]


class Device(abc.ABC):
    """A device that can time models.

    A subclass says how models reach the device, how one block of them is timed and under which
    conditions. Rounds, order, drift and retries are the same for all devices.

    Attributes:
        name: Name as `open_device` takes it.
        settings: How models are timed.
    """

    default_max_drift = math.inf
    # Devices that leave this host idle can be measured at the same time.
    remote = False

    def __init__(
        self,
        name: str,
        settings: Settings | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Names the device. It is not contacted before its first measurement.

        Args:
            name: Name as `open_device` takes it.
            settings: How models are timed.
            sleep: Function that waits for a number of seconds.
        """
        self.name = name
        self.settings = settings or Settings()
        self._sleep = sleep
        self._names: dict[str, str] = {}

    @abc.abstractmethod
    def _session(self, files: Mapping[str, bytes]) -> AbstractContextManager[None]:
        """Opens a context in which the files can be timed by their keys."""

    @abc.abstractmethod
    def _time(self, keys: Sequence[str]) -> list[Timing]:
        """Times the files in this order; a key may occur twice."""

    @abc.abstractmethod
    def _conditions(self) -> dict[str, str | int | float]:
        """Returns the conditions of the numbers; called in the session, after the last block."""

    def _settle(self) -> None:
        """Waits until the device is ready for a measurement."""
        return

    def _peak_memory(self, keys: Sequence[str]) -> dict[str, float]:
        """Returns the peak memory in MB of the files whose timings do not contain it."""
        return {}

    def _reference(self) -> bytes | None:
        """Returns the reference model in the format of this device, None if it has none."""
        return reference_model()

    def measure(self, model: bytes) -> Latency:
        """Times one model.

        Args:
            model: Contents of a ``.tflite`` file.

        Returns:
            Its latency.

        Raises:
            DeviceError: As in `measure_all`.
        """
        return self.measure_all({"model": model})["model"]

    def measure_all(
        self,
        models: Mapping[str, bytes],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Latency]:
        """Times models against each other.

        Every round times every model once. The order is drawn anew for every round, so that no
        model always follows the same one. Equal contents are timed once for all their names.

        Args:
            models: Contents of a ``.tflite`` file for each name.
            progress: Function that is called with the number of series done and their total.

        Returns:
            The latency for each name, in the order of ``models``.

        Raises:
            ValueError: If ``models`` is empty.
            DeviceError: If the device cannot measure, or was not steady in any attempt.
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
        """Measures every block of every round, and those of an unsteady device again."""
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
        """Calls a function, and repeats it after a transient failure; returns its result."""
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
        """Puts the models' names before the message of an error."""
        try:
            yield
        except DeviceError as error:
            names = ", ".join(self._names.get(key, "the reference model") for key in keys)
            raise DeviceError(
                f"{names}: {error.found}", error.remedy, transient=error.transient
            ) from error


def orders(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """Yields the order of each round: first as given, then drawn anew; every call gives the same.

    Neighbours, and models that share a process or a minute, are slow or fast together. With a new
    order a model has other neighbours in every round.
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
