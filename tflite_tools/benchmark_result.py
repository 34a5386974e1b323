"""What one run of benchmark_model measured."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """One run of benchmark_model; times are in milliseconds per inference.

    What an output does not tell is None.

    Attributes:
        average_ms: Mean over the timed runs.
        runs: Number of timed runs.
        median_ms: Median over them; printed since November 2024.
        min_ms: Fastest run.
        max_ms: Slowest run.
        std_ms: Standard deviation.
        p5_ms: 5th percentile.
        p95_ms: 95th percentile.
        init_ms: Loading the model and preparing the delegate.
        first_ms: First run of the warm-up.
        warmup_ms: Mean over the warm-up; NaN if there was none.
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
        """The median, or the average where the tool tells no median."""
        return self.average_ms if self.median_ms is None else self.median_ms


def require_sound(count: float, average: float, ordered: list[float]) -> None:
    """Raises ValueError unless numbers of runs and times are possible ones."""
    if count < 1 or not math.isfinite(average) or average < 0:
        raise ValueError(f"{count} runs of {average}")
    if any(not math.isfinite(value) for value in ordered) or ordered != sorted(ordered):
        raise ValueError("the percentiles are not in order")
    # The average alone is printed with six digits and may be rounded beyond an extreme.
    slack = 1e-5 * average
    if ordered and not ordered[0] - slack <= average <= ordered[-1] + slack:
        raise ValueError("the average lies outside the range")
