"""Worker: times TFLite files with one interpreter each and prints a JSON object for each.

It runs in a process of its own (``python -m tflite_tools.time_model PATH...``). Two interpreters
alive in one process disturb each other's timing, so the interpreter of one file is gone before the
next one is made. The worker imports only NumPy and LiteRT, so that it starts within a fraction of a
second.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter


def repeat(
    run: Callable[[], object],
    *,
    num_runs: int,
    min_secs: float,
    max_secs: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Repeats a call until there are enough runs and enough time, or too much time.

    This is the rule of TFLite's benchmark_model (``BenchmarkModel::Run`` in
    ``tensorflow/lite/tools/benchmark/benchmark_model.cc``): go on while fewer than ``num_runs``
    runs are done or fewer than ``min_secs`` have passed, and no more than ``max_secs`` have.

    Args:
        run: Call to time.
        num_runs: Least number of runs.
        min_secs: Least time in seconds, from the beginning of the first run.
        max_secs: Time in seconds after which no run begins, even if there are fewer than
            ``num_runs``.
        clock: Function that returns the current time in seconds.

    Returns:
        The duration of each run in seconds.
    """
    durations: list[float] = []
    begin = now = clock()
    while (len(durations) < num_runs or now - begin < min_secs) and now - begin <= max_secs:
        start = clock()
        run()
        now = clock()
        durations.append(now - start)
    return durations


def random_input(detail: dict, rng: np.random.Generator) -> np.ndarray:
    """Draws random values for one input tensor.

    Floats are uniform in [-0.5, 0.5), the range of benchmark_model. They are multiples of 2**-24,
    so none is denormal, which would slow the arithmetic down. Quantised integers cover the whole
    range of their type. Other integers and booleans are 0: they may be indices, and only 0 is
    certain to be valid.

    Args:
        detail: The interpreter's description of the tensor.
        rng: Source of the values.

    Returns:
        An array of the tensor's shape and type.
    """
    shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
    if np.issubdtype(dtype, np.floating):
        return (rng.random(shape, dtype=np.float32) - np.float32(0.5)).astype(dtype)
    if np.issubdtype(dtype, np.integer) and detail["quantization"][0]:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)


def add_stopping_rule(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `time_series` needs."""
    parser.add_argument("--num_runs", type=int, default=50)
    parser.add_argument("--min_secs", type=float, default=1.0)
    parser.add_argument("--max_secs", type=float, default=150.0)
    parser.add_argument("--warmup_runs", type=int, default=1)
    parser.add_argument("--warmup_min_secs", type=float, default=0.5)


def time_series(
    run: Callable[[], object],
    options: argparse.Namespace,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Warms up, then times a series of runs.

    Args:
        run: Call to time.
        options: The flags of `add_stopping_rule`.
        clock: Function that returns the current time in seconds.

    Returns:
        The duration of each timed run in seconds.
    """
    repeat(
        run,
        num_runs=options.warmup_runs,
        min_secs=options.warmup_min_secs,
        max_secs=options.max_secs,
        clock=clock,
    )
    return repeat(
        run,
        num_runs=options.num_runs,
        min_secs=options.min_secs,
        max_secs=options.max_secs,
        clock=clock,
    )


def peak_resident_mb() -> float | None:
    """Returns the most memory that this process has held, in MB; None without Linux's /proc.

    ``getrusage`` would not do: its figure begins at that of the process which started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) / 1024 if match else None


def _time_file(path: str, options: argparse.Namespace) -> dict:
    before = peak_resident_mb()
    interpreter = Interpreter(model_path=path, num_threads=options.num_threads)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], random_input(detail, rng))
    durations = time_series(interpreter.invoke, options)
    after = peak_resident_mb()
    return {
        "median_ms": 1e3 * statistics.median(durations),
        "runs": len(durations),
        "peak_memory_mb": None if before is None or after is None else after - before,
        "runtime": f"ai-edge-litert {ai_edge_litert.__version__}",
    }


def main(arguments: list[str] | None = None) -> None:
    """Times the files named on the command line and prints one JSON object for each."""
    parser = argparse.ArgumentParser(prog="python -m tflite_tools.time_model", description=__doc__)
    parser.add_argument("paths", nargs="+", help="the .tflite files")
    parser.add_argument("--num_threads", type=int, default=1)
    add_stopping_rule(parser)
    options = parser.parse_args(arguments)
    for path in options.paths:
        print(json.dumps(_time_file(path, options)), flush=True)


if __name__ == "__main__":
    main()
