"""The output of TFLite's or LiteRT's benchmark_model as one result in milliseconds.

Two tools have the name benchmark_model, and their output has changed over the years:

* TFLite's tool prints a statistics line for the warm-up and one for the timed runs, in
  microseconds, and a summary line (``benchmark_model.cc``, ``stats_calculator.h``). The summary was
  reworded in 2020; since November 2024 lines begin with ``INFO: `` and hold percentiles.
* LiteRT's tool prints the same statistics lines, and a block of milliseconds instead of the summary
  (``benchmark_litert_model.h``).
* Since October 2025 both write a binary result without rounding (``benchmark_result.proto``).

The parser never guesses. The average appears twice in every output, and the two must agree. Numbers
that contradict each other, a missing part or a second output in the same text are errors.
"""

from __future__ import annotations

import math
import re

from tflite_tools.benchmark_proto import read_result_proto
from tflite_tools.benchmark_result import BenchmarkResult, require_sound
from tflite_tools.errors import DeviceError

# Numbers as C++ streams print doubles: six significant digits, exponents, nan.
_NUMBER = r"(-?nan|\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_LOG = r"^(?:INFO: )?(?:\[[^\]\n]*\] )?"

# After these lines the numbers are not those that were asked for. XNNPACK runs on the CPU itself,
# so a network that it takes in part still runs on the CPU as a whole.
_REFUSED = (
    (
        r"Unconsumed cmdline flags:",
        "does not know all of its flags and ignored them",
        "Remove the flag, or use a benchmark_model that knows it.",
    ),
    (r"Failed to parse flag", "could not read a flag", "Correct the flag's value."),
    (
        r"Disallowed CPU fallback detected|Failed to apply (?!XNNPACK)\w+ delegate|"
        r"(?<!XNNPACK )delegate(?: is explicitly applied)?,(?: and)? the model graph will "
        r"(?:be partially|not be) executed",
        "did not run the whole network on the delegate",
        "Choose another delegate, or replace the operators that it lacks.",
    ),
    (r"Benchmarking failed|Run failed", "failed", "Check the model and the chosen delegate."),
)
_REPLACING = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^)]*)\)")

_PERCENTILES = ("p5", "median", "p95")
# Keys of a statistics line: of no run, of one or several equal runs, of different runs.
_LAYOUTS = [
    (*keys, *percentiles)
    for keys in (
        ("count",),
        ("count", "curr"),
        ("count", "first", "curr", "min", "max", "avg", "std"),
    )
    for percentiles in ((), _PERCENTILES)
]
_SUMMARIES = (
    re.compile(  # 2019
        _LOG + rf"Average inference timings in us: Warmup: (?P<warmup>{_NUMBER}), "
        rf"Init: (?P<init>{_NUMBER}), (?:no stats|Inference): (?P<average>{_NUMBER})\s*$"
    ),
    re.compile(  # since 2020
        _LOG + rf"Inference timings in us: Init: (?P<init>{_NUMBER}), "
        rf"First inference: (?P<first>{_NUMBER}), Warmup \(avg\): (?P<warmup>{_NUMBER}), "
        rf"Inference \(avg\): (?P<average>{_NUMBER})\s*$"
    ),
)
_BLOCK_NAMES = {
    "Model initialization": "init_ms",
    "Warmup (first)": "first_ms",
    "Warmup (avg)": "warmup_ms",
    "Inference (avg)": "average_ms",
    "Inference (min)": "min_ms",
    "Inference (max)": "max_ms",
    "Inference (std)": "std_ms",
    "Peak memory": "peak_memory_mb",
}
_OPTIONAL = ("first_ms", "peak_memory_mb")
_BLOCK_LINE = re.compile(
    _LOG + rf"(?P<name>{'|'.join(map(re.escape, _BLOCK_NAMES))}): +(?P<value>{_NUMBER})"
    r"(?: ms| MB)?(?: \((?P<runs>\d+) runs\))?\s*$"
)
_PEAK_MEMORY = re.compile(
    _LOG + r"(?:Overall peak memory footprint \(MB\) via periodic monitoring: "
    rf"|Peak memory footprint \(MB\): init={_NUMBER} overall=)(?P<peak>{_NUMBER})\s*$"
)
_INITIALISED = re.compile(_LOG + rf"Initialized session in (?P<ms>{_NUMBER})ms\.\s*$")


def parse_benchmark(text: str) -> BenchmarkResult:
    """Reads what one run of benchmark_model printed.

    Args:
        text: Standard output and standard error of one run, of either tool and of any year since
            2019. A last line without a line break counts as cut off and is not read.

    Returns:
        The result of the timed runs, with the warm-up in fields of its own.

    Raises:
        DeviceError: If the output is incomplete or contradicts itself, if flags were ignored, or if
            a delegate other than XNNPACK ran only part of the network. The message quotes the line.
    """
    refuse_invalid(text)
    lines = _complete_lines(text)
    statistics = [line for line in lines if _is_statistics(line)]
    if len(statistics) != 2:
        raise _invalid(
            f"benchmark_model printed {len(statistics)} statistics lines (count=...) instead of "
            "two, warm-up and timed runs",
            lines,
        )
    warmup, timed = (_read_statistics(line) for line in statistics)
    if not timed["count"]:
        raise _invalid("benchmark_model timed no run", statistics[1:])
    summary, rounding_ms = _summary(lines)
    told = {
        "init_ms": [float(m["ms"]) for line in lines if (m := _INITIALISED.match(line))],
        "first_ms": [warmup["first"] / 1e3] if "first" in warmup else [],
        "warmup_ms": [warmup["avg"] / 1e3],
        "warmup_runs": [warmup["count"]],
        "average_ms": [timed["avg"] / 1e3],
        "runs": [timed["count"]],
        "min_ms": [timed["min"] / 1e3],
        "max_ms": [timed["max"] / 1e3],
        "std_ms": [timed["std"] / 1e3],
    }
    # Two numbers are rounded differently: init_ms to six digits, std_ms to microseconds.
    extra_ms = {"init_ms": 0.005, "std_ms": 0.001}
    for name, values in told.items():
        slack = rounding_ms + extra_ms.get(name, 0.0)
        for value in values:
            if name in summary and not _agree(value, summary[name], slack):
                raise _invalid(
                    f"benchmark_model contradicts itself ({name} {value:g} and {summary[name]:g})",
                    statistics,
                )
    return BenchmarkResult(
        average_ms=timed["avg"] / 1e3,
        runs=int(timed["count"]),
        **{
            f"{name}_ms": timed[name] / 1e3
            for name in ("min", "max", "std", *_PERCENTILES)
            if name in timed
        },
        init_ms=summary["init_ms"],
        first_ms=told["first_ms"][0] if told["first_ms"] else None,
        warmup_ms=warmup["avg"] / 1e3,
        warmup_runs=int(warmup["count"]),
        peak_memory_mb=_peak_memory(lines, summary),
    )


def refuse_invalid(text: str) -> None:
    """Raises DeviceError if benchmark_model says that it did not measure what it was asked to.

    Args:
        text: What one run printed, complete or not.
    """
    for line in text.splitlines():
        for pattern, found, remedy in _REFUSED:
            if re.search(pattern, line):
                raise DeviceError(f"benchmark_model {found}: {line.strip()!r}", remedy)
        part = _REPLACING.search(line)
        if part and int(part[1]) != int(part[2]) and "XNNPack" not in part[3]:
            raise DeviceError(
                f"the delegate takes {part[1]} of {part[2]} operators only: {line.strip()!r}",
                "Choose another delegate, or replace the operators that it lacks.",
            )


def read_outputs(text: str, proto: bytes | None) -> BenchmarkResult:
    """Reads a run from its result file, or from its text if there is no such file.

    Args:
        text: What the run printed.
        proto: Contents of the file of ``--result_file_path``; None if the tool writes none.

    Returns:
        The result.

    Raises:
        DeviceError: As in `parse_benchmark` and `read_result_proto`, or if file and text disagree.
    """
    if not proto:
        return parse_benchmark(text)
    refuse_invalid(text)
    result = read_result_proto(proto)
    lines = _complete_lines(text)
    printed = [_read_statistics(line) for line in lines if _is_statistics(line)]
    if not (
        printed
        and printed[-1]["count"] == result.runs
        and _agree(printed[-1]["avg"] / 1e3, result.average_ms, 1e-6)
    ):
        raise _invalid(
            f"the result file tells {result.runs} runs of {result.average_ms:g} ms, but the output "
            "of benchmark_model does not",
            lines,
        )
    return result


def _complete_lines(text: str) -> list[str]:
    return [line.rstrip("\r\n") for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _is_statistics(line: str) -> bool:
    # Profilers print such series too, but after a title on the same line.
    return re.match(_LOG + "count=", line) is not None


def _read_statistics(line: str) -> dict[str, float]:
    """Reads the numbers of a statistics line, in microseconds, by the names that it prints."""
    pairs = re.findall(rf"(\w+)={_NUMBER}(?= |\(|$)", line)
    keys = tuple(key for key, _ in pairs)
    # The line may hold nothing but these pairs.
    bare = re.sub(_LOG, "", line.rstrip()).replace("(all same)", "")
    if keys not in _LAYOUTS or bare != " ".join(f"{key}={value}" for key, value in pairs):
        raise _invalid("a statistics line of benchmark_model is damaged", [line])
    values = {key: float(value) for key, value in pairs}
    equal = "curr" in keys and "first" not in keys
    if ("(all same)" in line) != (equal and values["count"] > 1):
        raise _invalid("a statistics line of benchmark_model is damaged", [line])
    if equal:
        same = values["curr"]
        names = ("first", "min", "max", "avg", *_PERCENTILES)
        values = {**dict.fromkeys(names, same), "std": 0.0, **values}
    if not values["count"] and len(keys) in (1, 1 + len(_PERCENTILES)):
        return {"count": 0.0, "avg": math.nan}
    try:
        names = ("min", *_PERCENTILES, "max")
        ordered = [values[name] for name in names if name in values]
        require_sound(values["count"], values["avg"], ordered)
        if not all(ordered[0] <= values[name] <= ordered[-1] for name in ("first", "curr")):
            raise ValueError("a run lies outside the range")
    except (KeyError, ValueError) as error:
        raise _invalid(f"a statistics line of benchmark_model is damaged ({error})", [line]) from (
            None
        )
    return values


def _summary(lines: list[str]) -> tuple[dict[str, float], float]:
    """Reads the summary of either tool; also returns the rounding of its times in ms."""
    found = [
        {f"{name}_ms": float(value) / 1e3 for name, value in match.groupdict().items()}
        for line in lines
        for pattern in _SUMMARIES
        if (match := pattern.match(line))
    ]
    block = [match for line in lines if (match := _BLOCK_LINE.match(line))]
    names = [match["name"] for match in block]
    if len(found) + ("Inference (avg)" in names) != 1 or len(set(names)) != len(names):
        raise _invalid("the summary of benchmark_model is missing or not the only one", lines)
    if found:
        return found[0], 0.0
    summary = {_BLOCK_NAMES[match["name"]]: float(match["value"]) for match in block}
    for name, match in zip(names, block, strict=True):
        if match["runs"]:
            summary["runs" if name == "Inference (avg)" else "warmup_runs"] = int(match["runs"])
    lacking = {*_BLOCK_NAMES.values(), "runs", "warmup_runs"} - {*summary, *_OPTIONAL}
    if lacking:
        raise _invalid(f"the results of benchmark_model lack {', '.join(sorted(lacking))}", lines)
    return summary, 0.005


def _peak_memory(lines: list[str], summary: dict[str, float]) -> float | None:
    peaks = [float(match["peak"]) for line in lines if (match := _PEAK_MEMORY.match(line))]
    if len(peaks) > 1:
        raise _invalid("benchmark_model printed its peak memory twice", lines)
    return peaks[0] if peaks else summary.get("peak_memory_mb")


def _agree(printed: float, summarised: float, slack: float) -> bool:
    """Tells whether two numbers are equal up to rounding: six digits, and ``slack``."""
    if math.isnan(printed):  # the mean of a warm-up without runs
        return math.isnan(summarised) or summarised == 0
    if slack:
        return math.isclose(printed, summarised, rel_tol=1e-5, abs_tol=slack)
    # A statistics line prints each single run as a whole number, curr=2345678. The summary prints
    # the mean to six digits, 2.34568e+06, even if there was one run only. Both are microseconds.
    microseconds = float(f"{1e3 * printed:.12g}")
    return any(
        math.isclose(number, 1e3 * summarised, rel_tol=1e-12)
        for number in (microseconds, float(f"{microseconds:.6g}"))
    )


def _invalid(found: str, lines: list[str]) -> DeviceError:
    quoted = next((line for line in reversed(lines) if line.strip()), "")
    return DeviceError(
        f"{found}: {quoted.strip()!r}",
        "Repeat the measurement, and give the complete output of one run of one model.",
        transient=True,
    )
