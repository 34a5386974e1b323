"""The measurements of one run of benchmark_model."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """The result of one run of benchmark_model; times are in milliseconds per inference.

    Values that the output does not contain are None.

    Attributes:
        average_ms: Mean over the timed runs.
        runs: Number of timed runs.
        median_ms: Median over the timed runs; printed since November 2024.
        min_ms: Time of the fastest run.
        max_ms: Time of the slowest run.
        std_ms: Standard deviation over the timed runs.
        p5_ms: 5th percentile.
        p95_ms: 95th percentile.
        init_ms: Time to load the model and prepare the delegate.
        first_ms: Time of the first run of the warm-up.
        warmup_ms: Mean over the warm-up; NaN if there was no warm-up.
        warmup_runs: Number of runs of the warm-up.
        peak_memory_mb: Peak memory footprint in MB, if it was asked for.
    """

    average_ms: float
    runs: int
    median_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    std_ms: float | None = None
    p5_ms: float | None = None
    p95_ms: float | None = None
    init_ms: float | None = None
    first_ms: float | None = None
    warmup_ms: float | None = None
    warmup_runs: int | None = None
    peak_memory_mb: float | None = None

    @property
    def typical_ms(self) -> float:
        """Median, or the average where the tool prints no median."""
        return self.average_ms if self.median_ms is None else self.median_ms


def require_sound(count: float, average: float, ordered: list[float]) -> None:
    """Raises ValueError unless the number of runs and the times are possible."""
    if count < 1 or not math.isfinite(average) or average < 0:
        raise ValueError(f"{count} runs of {average}")
    if any(not math.isfinite(value) for value in ordered) or ordered != sorted(ordered):
        raise ValueError("the percentiles are not in order")
    # Only the average is rounded, to six digits, and so it may lie just outside the extremes.
    slack = 1e-5 * average
    if ordered and not ordered[0] - slack <= average <= ordered[-1] + slack:
        raise ValueError("the average lies outside the range")
