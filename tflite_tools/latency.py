"""Latency of TFLite models on this host's CPU.

On a shared machine the median of one process differs from the next by up to a tenth and more, so
each model is timed in several fresh processes, alternating with the other models, so that a slow
minute strikes all of them alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Latency:
    """Latency of one model; times are in milliseconds per inference of batch 1.

    Attributes:
        median_ms: Median over the rounds of each round's median.
        min_ms: Least of the rounds' medians; with ``max_ms`` it tells the spread.
        max_ms: Greatest of the rounds' medians.
        runs: Timed inferences in all rounds together.
        rounds: Fresh processes the model was timed in.
        num_threads: Threads of the interpreter.
        runtime_version: Name and version of the runtime.
    """

    median_ms: float
    min_ms: float
    max_ms: float
    runs: int
    rounds: int
    num_threads: int
    runtime_version: str


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
    """Times models against each other on this host's CPU.

    Each measurement is one interpreter in one fresh process, warmed up and stopped by the rule of
    TFLite's benchmark_model, whose defaults are taken over (see
    :func:`tflite_tools.time_model.repeat`). Every round times every model once; the order is
    rotated from round to round, so that no model always follows the same one.

    Args:
        models: Contents of a ``.tflite`` file for each name.
        num_threads: Threads of the interpreter, at least 1.
        rounds: Fresh processes for each model, at least 1.
        num_runs: Least number of timed inferences in a process, at least 1.
        min_secs: Least time of the timed inferences of a process, in seconds.
        max_secs: Time in seconds after which no further inference begins, at least 0.
        warmup_runs: Least number of untimed inferences before.
        warmup_min_secs: Least time of the untimed inferences, in seconds.

    Returns:
        The latency for each name, in the order of ``models``.

    Raises:
        ValueError: If ``models`` is empty or a number is out of its range.
        RuntimeError: If a worker process fails; the message holds its standard error.
    """
    if not models:
        raise ValueError("models is empty; expected at least one TFLite file by name.")
    for name, value, least in (
        ("num_threads", num_threads, 1),
        ("rounds", rounds, 1),
        ("num_runs", num_runs, 1),
        ("max_secs", max_secs, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; received {value}.")

    options = [
        f"--num_threads={num_threads}",
        f"--num_runs={num_runs}",
        f"--min_secs={min_secs}",
        f"--max_secs={max_secs}",
        f"--warmup_runs={warmup_runs}",
        f"--warmup_min_secs={warmup_min_secs}",
    ]
    names = list(models)
    results: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        # Numbered, since a name need not be fit for a file.
        paths = {name: Path(folder, f"{index}.tflite") for index, name in enumerate(names)}
        for name, path in paths.items():
            path.write_bytes(models[name])
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                results[name].append(_time(name, paths[name], options))
    return {name: _summary(results[name], num_threads) for name in names}


def _time(name: str, path: Path, options: list[str]) -> dict:
    # The worker must find this package, wherever the caller found it.
    package_parent = str(Path(__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH")]))
    worker = subprocess.run(
        [sys.executable, "-m", "tflite_tools.time_model", str(path), *options],
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        check=False,
    )
    if worker.returncode != 0:
        raise RuntimeError(
            f"timing model {name!r} failed with exit code {worker.returncode}; its standard error "
            f"was:\n{worker.stderr.strip()}"
        )
    # The result is the last line: the runtime may have printed notices of its own before.
    return json.loads(worker.stdout.splitlines()[-1])


def _summary(results: list[dict], num_threads: int) -> Latency:
    medians = [result["median_ms"] for result in results]
    return Latency(
        median_ms=statistics.median(medians),
        min_ms=min(medians),
        max_ms=max(medians),
        runs=sum(result["runs"] for result in results),
        rounds=len(results),
        num_threads=num_threads,
        runtime_version=results[0]["runtime_version"],
    )
