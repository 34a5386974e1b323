"""Measured times of operators, kept in a file that every network can use.

The key of a time is what was timed (the text of the operators) and the
conditions (device, runtime and its version, threads, delegate). Neither of them
names a network. Each batch is written as soon as it is measured, so that an
interrupted measurement goes on where it stopped. No time is measured twice, so
that results which depend on it stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from amc_tf.errors import AmcError
from amc_tf.latency import operators
from tflite_tools.errors import DeviceError

# Conditions that change from one minute to the next, or depend on how the device is connected.
_PASSING = {
    "device",
    "adb",
    "load_average",
    "temperature_c",
    "frequency_mhz",
    "reference_ms",
    "reference_ms_max",
}
_BATCH = 64  # models in one session on the device
# An operator that does next to nothing: its time is the cost of a call.
NOTHING = operators.text_of(
    {
        "inputs": [0],
        "outputs": [1],
        "operators": [{"code": "RELU", "version": 1, "inputs": [0], "outputs": [1]}],
        "tensors": [{"type": "FLOAT32", "shape": [1, 8]}] * 2,
    }
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS times (
    conditions TEXT, key TEXT, operators TEXT, median_ms REAL, min_ms REAL, max_ms REAL,
    reference_ms REAL, PRIMARY KEY (conditions, key)
);
CREATE TABLE IF NOT EXISTS corrections (
    conditions TEXT, network TEXT, counts TEXT, ms REAL, PRIMARY KEY (conditions, network, counts)
);
"""


class Timer(Protocol):
    """A device that times models (`tflite_tools.open_device` returns one)."""

    def measure_all(
        self, models: Mapping[str, bytes], progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Times models; returns a `tflite_tools.Latency` for each name."""
        ...


class LatencyTable:
    """Times of operators on one device, from a file or from the device.

    Where the device runs a reference model along with the others, times are
    scaled by the reference's time, relative to that when the table was begun:
    the device may have become slower or faster since.

    Attributes:
        conditions: the conditions under which the times hold.
        measured: number of times measured since the table was opened.
    """

    def __init__(self, path: str | pathlib.Path, device: Timer, networks: Timer | None = None):
        """Opens the file, and times an empty model to learn the conditions.

        Args:
            path: the file; made if absent, shared by networks and devices.
            device: timer of the operators that are missing.
            networks: timer of whole networks on the same device; default: `device`.

        Raises:
            AmcError: the file cannot be used, or nothing can be timed on the device.
        """
        self._path = pathlib.Path(path).expanduser()
        self._device = device
        self._networks = networks or device
        self.measured = 0
        self._found: set[str] = set()
        with self._database() as database:
            database.executescript(_SCHEMA)
        latencies = _timed(device, {"an empty model": operators.build(NOTHING)})
        lasting = {
            k: v for k, v in latencies["an empty model"].conditions.items() if k not in _PASSING
        }
        self.conditions: Mapping[str, Any] = lasting
        self._conditions = json.dumps(lasting, sort_keys=True)
        self._keep({NOTHING: latencies["an empty model"]})
        self._known = self._read()
        self._in_file = frozenset(self._known)

    @property
    def found(self) -> int:
        """Number of times that were asked for and were in the file when it was opened."""
        return len(self._found)

    @property
    def call_ms(self) -> float:
        """Milliseconds of a call without its operators."""
        return self._known[_key(NOTHING)]

    def get(self, text: str) -> float | None:
        """Returns the milliseconds of operators with the call; None if they are not measured."""
        key = _key(text)
        if key in self._in_file:
            self._found.add(key)
        return self._known.get(key)

    def measure(
        self,
        texts: Iterable[str],
        progress: Callable[[int], None] | None = None,
        *,
        whole: bool = False,
    ) -> dict[str, float]:
        """Returns the milliseconds of operators with the call; measures those that are missing.

        Args:
            texts: texts of operators or whole networks.
            progress: called with the number of texts that have just been measured.
            whole: whether the texts are of whole networks.

        Returns:
            Text to milliseconds.

        Raises:
            AmcError: the device fails; what was measured before is kept.
        """
        texts = list(dict.fromkeys(texts))
        missing = [text for text in texts if self.get(text) is None]
        device = self._networks if whole else self._device
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            names = {f"{i} {operators.label(json.loads(t))}": t for i, t in enumerate(batch)}
            models = {name: operators.build(text) for name, text in names.items()}
            latencies = _timed(device, models)
            self._keep({text: latencies[name] for name, text in names.items()})
            self._known = self._read()
            self.measured += len(batch)
            if progress:
                progress(len(batch))
        return {text: self._known[_key(text)] for text in texts}

    def files(self, models: Mapping[str, bytes]) -> dict[str, float]:
        """Times whole files in turn; returns their median milliseconds, and does not keep them.

        Raises:
            AmcError: the device fails.
        """
        latencies = _timed(self._networks, models)
        return {name: latency.median_ms for name, latency in latencies.items()}

    def corrections(self, network: str) -> dict[tuple[int, ...], float]:
        """Returns what `correct` kept for a network: channel counts to milliseconds."""
        with self._database() as database:
            rows = database.execute(
                "SELECT counts, ms FROM corrections WHERE conditions = ? AND network = ?",
                (self._conditions, _key(network)),
            ).fetchall()
        return {tuple(json.loads(counts)): ms for counts, ms in rows}

    def correct(self, network: str, measured: Mapping[tuple[int, ...], float]) -> None:
        """Keeps the times of whole networks, for the calibration of the next search.

        Args:
            network: text of the dense network (`LatencyCost.network`).
            measured: channel counts to milliseconds.
        """
        rows = [
            (self._conditions, _key(network), json.dumps(counts), ms)
            for counts, ms in measured.items()
        ]
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO corrections VALUES (?,?,?,?)", rows)

    def _read(self) -> dict[str, float]:
        with self._database() as database:
            rows = database.execute(
                "SELECT key, median_ms, reference_ms FROM times WHERE conditions = ?",
                (self._conditions,),
            ).fetchall()
        references = {key: reference for key, _, reference in rows}
        first = references[_key(NOTHING)]
        return {key: ms * (first / now if first and now else 1) for key, ms, now in rows}

    def _keep(self, latencies: Mapping[str, Any]) -> None:
        rows: Sequence[tuple] = [
            (
                self._conditions,
                _key(text),
                text,
                latency.median_ms,
                latency.min_ms,
                latency.max_ms,
                latency.conditions.get("reference_ms"),
            )
            for text, latency in latencies.items()
        ]
        with self._database() as database:
            # Another process may have kept a time already: the first one stays.
            database.executemany("INSERT OR IGNORE INTO times VALUES (?,?,?,?,?,?,?)", rows)

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=60)
            with contextlib.closing(connection), connection:  # commits, or rolls back
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise AmcError(
                f"the latency table {self._path} cannot be used ({error}); name another file"
            ) from error


def _timed(device: Timer, models: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        return device.measure_all(models)
    except DeviceError as error:
        raise AmcError(f"measuring latency: {error}") from error


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
