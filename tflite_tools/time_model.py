"""Worker: times one TFLite file with one interpreter and prints the result as JSON.

It runs in a process of its own (``python -m tflite_tools.time_model PATH``), because two
interpreters alive in one process disturb each other's timing. It imports only NumPy and LiteRT, so
that it starts within a fraction of a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

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
    """Runs until there were enough runs and enough time, or too much time.

    The rule of TFLite's benchmark_model (``BenchmarkModel::Run`` in
    ``tensorflow/lite/tools/benchmark/benchmark_model.cc``): go on while fewer than ``num_runs``
    runs are done or fewer than ``min_secs`` have passed, and no more than ``max_secs`` have.

    Args:
        run: What to time.
        num_runs: Least number of runs.
        min_secs: Least time in seconds, from the beginning of the first run.
        max_secs: Time in seconds after which no run begins, though there be fewer than
            ``num_runs``.
        clock: Current time in seconds.

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
    """Random values for one input tensor.

    Floats are uniform in [-0.5, 0.5), the range of benchmark_model. They are multiples of 2**-24,
    so none is denormal, which would slow the arithmetic down. Quantised integers cover the whole
    range of their type. Other integers and booleans may be indices, of which only 0 is sure to be
    valid.

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


def main(arguments: list[str] | None = None) -> None:
    """Times the file named on the command line and prints one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tflite_tools.time_model", description=__doc__)
    parser.add_argument("path", help="the .tflite file")
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--num_runs", type=int, default=50)
    parser.add_argument("--min_secs", type=float, default=1.0)
    parser.add_argument("--max_secs", type=float, default=150.0)
    parser.add_argument("--warmup_runs", type=int, default=1)
    parser.add_argument("--warmup_min_secs", type=float, default=0.5)
    options = parser.parse_args(arguments)

    interpreter = Interpreter(model_path=options.path, num_threads=options.num_threads)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], random_input(detail, rng))

    repeat(
        interpreter.invoke,
        num_runs=options.warmup_runs,
        min_secs=options.warmup_min_secs,
        max_secs=options.max_secs,
    )
    durations = repeat(
        interpreter.invoke,
        num_runs=options.num_runs,
        min_secs=options.min_secs,
        max_secs=options.max_secs,
    )
    print(
        json.dumps(
            {
                "median_ms": 1e3 * statistics.median(durations),
                "runs": len(durations),
                "runtime_version": f"ai-edge-litert {ai_edge_litert.__version__}",
            }
        )
    )


if __name__ == "__main__":
    main()
