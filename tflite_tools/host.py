"""This host's CPU as a device."""

from __future__ import annotations

import glob
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tflite_tools import benchmark_tool, isolation
from tflite_tools.device import Device
from tflite_tools.errors import DeviceError
from tflite_tools.latency import Latency, Settings, Timing


class HostDevice(Device):
    """The CPU of this host, which runs LiteRT's interpreter or a benchmark_model for desktops.

    Each series of the interpreter is one interpreter in a fresh process, since two that are alive
    in one process disturb each other. Drift is recorded, but is an error only if ``max_drift`` is
    set: a shared machine is never idle for a measurement.
    """

    def __init__(
        self,
        name: str = "host",
        settings: Settings | None = None,
        *,
        binary: str | os.PathLike | None = None,
        extra_flags: Sequence[str] = (),
        models_per_process: int = 1,
        hang_secs: float = 600.0,
        **options: Any,
    ) -> None:
        """Checks the options.

        Args:
            name: As `open_device` takes it.
            settings: How models are timed.
            binary: Path of a benchmark_model for this host; None for LiteRT's interpreter.
            extra_flags: Further flags of the binary, as ``--name=value``.
            models_per_process: Number of models that one process times one after another, each
                alone. For many small models, more than one saves time to start processes.
            hang_secs: Seconds after which a process that times one model counts as hung.
            **options: Options of `Device`.
        """
        super().__init__(name, settings, **options)
        if models_per_process < 1:
            raise ValueError(
                f"models_per_process must be at least 1; received {models_per_process}."
            )
        self._binary = None if binary is None else Path(binary)
        self._extra_flags = tuple(extra_flags)
        self._models_per_process = models_per_process
        self._hang_secs = hang_secs
        self._folder = Path()
        self._runtime = ""
        self._known: frozenset[str] = frozenset()

    @contextmanager
    def _session(self, files: Mapping[str, bytes]) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            for key, content in files.items():
                self._path(key).write_bytes(content)
            if self._binary is not None:
                code, usage = self._run_binary(benchmark_tool.PROBE)
                if code in (124, 126, 127):
                    benchmark_tool.outcome(code, usage, None)
                self._known = benchmark_tool.known_flags(usage)
                self._runtime = f"benchmark_model {self._binary.name}"
            yield

    def _time(self, keys: Sequence[str]) -> list[Timing]:
        if self._binary is not None:
            return [self._time_by_binary(key) for key in keys]
        step = self._models_per_process
        chunks = [keys[i : i + step] for i in range(0, len(keys), step)]
        return [timing for chunk in chunks for timing in self._time_by_interpreter(chunk)]

    def _conditions(self) -> dict[str, str | int | float]:
        return {
            "runtime": self._runtime,
            "threads": self.settings.num_threads,
            "processor": _processor(),
            "governor": governor(
                Path(path).read_text() for path in glob.glob(f"{_CPUS}/cpufreq/scaling_governor")
            ),
            "load_average": os.getloadavg()[0],
        }

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.tflite"

    def _time_by_interpreter(self, keys: Sequence[str]) -> list[Timing]:
        settings = self.settings
        with self._naming(keys):
            results = run_worker(
                "tflite_tools.time_model",
                [
                    *(str(self._path(key)) for key in keys),
                    f"--num_threads={settings.num_threads}",
                    *stopping_rule(settings),
                ],
                hang_secs=self._hang_secs * len(keys),
            )
        self._runtime = results[0]["runtime"]
        alone = len(keys) == 1  # the growth of a process measures its first model only
        return [
            Timing(r["median_ms"], r["runs"], r["peak_memory_mb"] if alone else None)
            for r in results
        ]

    def _time_by_binary(self, key: str, memory: bool = False) -> Timing:
        result_file = self._folder / "result.pb"
        result_file.unlink(missing_ok=True)
        command = benchmark_tool.arguments(
            self._known,
            self.settings,
            "cpu",
            str(self._path(key)),
            str(result_file),
            self._extra_flags,
            memory,
        )
        code, text = self._run_binary(command)
        proto = result_file.read_bytes() if result_file.exists() else None
        with self._naming([key]):
            return benchmark_tool.timing(benchmark_tool.outcome(code, text, proto))

    def _run_binary(self, flags: Sequence[str]) -> tuple[int, str]:
        assert self._binary is not None
        try:
            process = subprocess.run(
                [self._binary.absolute(), *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._hang_secs,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return 124, (error.stdout or b"").decode(errors="replace")
        except OSError as error:
            raise DeviceError(
                f"the benchmark binary {str(self._binary)!r} cannot be run: {error.strerror}",
                benchmark_tool.WHERE_TO_GET,
            ) from None
        return process.returncode, process.stdout.decode(errors="replace")

    def _peak_memory(self, keys: Sequence[str]) -> dict[str, float]:
        if self._binary is None:
            return {}
        peaks = {key: self._time_by_binary(key, memory=True).peak_memory_mb for key in keys}
        return {key: peak for key, peak in peaks.items() if peak is not None}


def measure_host(
    models: Mapping[str, bytes],
    *,
    num_threads: int = 1,
    rounds: int = 5,
    num_runs: int = 50,
    min_secs: float = 1.0,
    max_secs: float = 150.0,
    warmup_runs: int = 1,
    warmup_min_secs: float = 0.5,
) -> dict[str, Latency]:
    """Times models against each other on this host's CPU, without a reference model.

    Args:
        models: Contents of a ``.tflite`` file for each name.
        num_threads: As in `Settings`.
        rounds: As in `Settings`.
        num_runs: As in `Settings`.
        min_secs: As in `Settings`.
        max_secs: As in `Settings`.
        warmup_runs: As in `Settings`.
        warmup_min_secs: As in `Settings`.

    Returns:
        The latency for each name, in the order of ``models``.

    Raises:
        ValueError: If ``models`` is empty or a number is out of its range.
        DeviceError: If a worker process fails; the message holds the end of its standard error.
    """
    settings = Settings(
        rounds=rounds,
        num_runs=num_runs,
        min_secs=min_secs,
        max_secs=max_secs,
        warmup_runs=warmup_runs,
        warmup_min_secs=warmup_min_secs,
        num_threads=num_threads,
        reference=False,
    )
    return HostDevice(settings=settings).measure_all(models)


def stopping_rule(settings: Settings) -> list[str]:
    """Returns the settings as flags for benchmark_model and for the workers of this package."""
    names = ("num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs")
    return [f"--{name}={getattr(settings, name)}" for name in names]


def run_worker(
    module: str,
    arguments: Sequence[str],
    hang_secs: float,
) -> list[dict]:
    """Runs a module of this package in a fresh process, in isolation.

    Args:
        module: Full name of the module.
        arguments: Arguments of its command line.
        hang_secs: Seconds after which the process is stopped.

    Returns:
        The JSON objects that it printed, one a line.

    Raises:
        DeviceError: If the process fails, hangs, or prints an error as ``found`` and ``remedy``.
    """
    try:
        worker = subprocess.run(
            isolation.command(module, arguments),
            env=isolation.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=hang_secs,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"timing a model did not end within {hang_secs:g} seconds",
            "Raise hang_secs or look at the model.",
            transient=True,
        ) from None
    if worker.returncode:
        lines = worker.stderr.strip().splitlines() or ["(nothing)"]
        raise DeviceError(
            f"timing a model ended with exit code {worker.returncode}: {lines[-1]!r}",
            "Check that the file is a model which this runtime can run.",
        )
    # The runtime may print notices of its own on the same stream.
    results = [json.loads(line) for line in worker.stdout.splitlines() if line.startswith("{")]
    for result in results:
        if "found" in result:
            raise DeviceError(result["found"], result["remedy"])
    return results


_CPUS = "/sys/devices/system/cpu/cpu[0-9]*"


def governor(texts: Iterable[str]) -> str:
    """Names the frequency governors of all cores, each once; "unknown" if none can be read."""
    return ", ".join(sorted({text.strip() for text in texts} - {""})) or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
