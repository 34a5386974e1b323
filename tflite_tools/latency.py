"""How latency is measured on any device: rounds, interleaving, a reference against drift.

On a shared machine the medians of two processes differ by up to a tenth and more, and a phone slows
down as it warms up. So each model is timed in several rounds, each in a process of its own, in turn
with the other models: a slow minute affects all of them alike. A small reference model is timed
before and after every block of models. It shows whether the device was steady; if it was not, the
block is measured again.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping

import numpy as np


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
        rounds_ms: Median of each round. Models that are measured together share their rounds.
        runs: Number of timed inferences in all rounds together.
        peak_memory_mb: Peak memory footprint in MB, or None where it was not measured. On the host
            it is the growth of the process; benchmark_model reports the whole process.
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
        """Least of the rounds' medians; with `max_ms` it shows the spread."""
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
    """The latency of one model as a multiple of another's.

    Attributes:
        value: Ratio of the medians.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
    """

    value: float
    low: float
    high: float


def ratio(latency: Latency, base: Latency, resamples: int = 2000) -> Ratio:
    """Compares two models that were measured together.

    The interval is a percentile bootstrap (Efron and Tibshirani 1993, chapter 13) over the rounds.
    A round is drawn for both models at once, as a slow round is slow for both.

    Args:
        latency: Latency of the model.
        base: Latency of the model it is compared with, measured in the same rounds.
        resamples: Number of draws of the bootstrap.

    Returns:
        ``latency / base`` with its interval.

    Raises:
        ValueError: If the numbers of rounds differ.
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

    For many small models, such as a table of single layers, ``rounds=3, num_runs=20, min_secs=0.05,
    warmup_min_secs=0.05`` measures hundreds of them in minutes.

    Attributes:
        rounds: Number of series of each model, each in a process of its own.
        num_runs: Least number of timed inferences in a series.
        min_secs: Least time of the timed inferences of a series, in seconds.
        max_secs: Time in seconds after which no further inference begins.
        warmup_runs: Least number of untimed inferences before them.
        warmup_min_secs: Least time of the untimed inferences, in seconds.
        num_threads: Number of threads of the runtime on the CPU.
        batch: Number of models between two runs of the reference; on a phone also the number of
            models of one round trip.
        reference: Whether the reference model is run.
        max_drift: Greatest slowdown of the reference against its best time, as a fraction; beyond
            it a block is measured again. None for the device's own default.
        retries: Greatest number of times that a block is measured again, after drift or a transient
            failure.
        memory: Whether peak memory is measured; on a phone this takes further series.
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
