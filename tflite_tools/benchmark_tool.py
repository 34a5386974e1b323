"""The command line of benchmark_model, and what its exit codes mean.

TFLite's and LiteRT's tools know different flags, and both only warn about a flag that they do not
know. So a binary is first asked for its flags, and is then given only those that it knows.

https://ai.google.dev/edge/litert/models/measurement (TFLite's),
https://ai.google.dev/edge/litert/next/benchmark (LiteRT's)
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Collection, Sequence

from tflite_tools.benchmark_output import read_outputs, refuse_invalid
from tflite_tools.benchmark_result import BenchmarkResult
from tflite_tools.errors import DeviceError
from tflite_tools.latency import Settings, Timing

WHERE_TO_GET = (
    "Download benchmark_model for the device's processor (for most phones android_arm64, also "
    "called android_aarch64) from https://ai.google.dev/edge/litert/next/benchmark or "
    "https://ai.google.dev/edge/litert/models/measurement, and name the file with "
    "--benchmark_binary."
)

# A value that is not a number makes every version print its flags; some are older than --help.
PROBE = ("--num_runs=?",)


@dataclasses.dataclass(frozen=True)
class Delegate:
    """The runtime of a network: the CPU, or a delegate in its place.

    Attributes:
        flags: Flags without which it would not run as asked.
        where_known: Flags that only one of the two tools has, and that only this one needs.
    """

    flags: tuple[str, ...] = ()
    where_known: tuple[str, ...] = ()


DELEGATES = {
    "cpu": Delegate(),
    # LiteRT's tool refuses full delegation as long as the CPU is allowed too.
    "gpu": Delegate(("--use_gpu=true", "--require_full_delegation=true"), ("--use_cpu=false",)),
    # Without the last flag NNAPI may take every operator and run it on the CPU.
    "nnapi": Delegate(
        ("--use_nnapi=true", "--require_full_delegation=true", "--disable_nnapi_cpu=true")
    ),
}


def known_flags(usage: str) -> frozenset[str]:
    """Reads the names of the flags that a binary lists, without dashes.

    Args:
        usage: What the binary printed when it was run with `PROBE`.

    Returns:
        The names.

    Raises:
        DeviceError: If they are not the flags of benchmark_model.
    """
    names = frozenset(re.findall(r"^\s*--([\w-]+)=", usage, re.MULTILINE))
    if not {"graph", "num_runs", "num_threads"} <= names:
        raise DeviceError(
            f"the benchmark binary does not list the flags of benchmark_model but printed "
            f"{_last_line(usage)!r}",
            WHERE_TO_GET,
        )
    return names


def arguments(
    known: Collection[str],
    settings: Settings,
    delegate: str,
    graph: str,
    result_file: str,
    extra_flags: Sequence[str] = (),
    memory: bool = False,
) -> list[str]:
    """Makes the command line for one model.

    Args:
        known: The flags of the benchmark binary.
        settings: The stopping rule and the number of threads.
        delegate: A name of `DELEGATES`.
        graph: Path of the model, as the benchmark binary sees it.
        result_file: Path of the result file, for tools that write one.
        extra_flags: Further flags, as ``--name=value``.
        memory: Whether to watch peak memory, which disturbs the timing.

    Returns:
        The arguments.

    Raises:
        DeviceError: If the binary lacks a flag.
    """
    if delegate not in DELEGATES:
        raise DeviceError(
            f"there is no delegate {delegate!r}", f"Choose one of {', '.join(DELEGATES)}."
        )
    chosen = DELEGATES[delegate]
    flags = [
        f"--graph={graph}",
        f"--num_runs={settings.num_runs}",
        f"--min_secs={settings.min_secs}",
        f"--max_secs={settings.max_secs}",
        f"--warmup_runs={settings.warmup_runs}",
        f"--warmup_min_secs={settings.warmup_min_secs}",
        f"--num_threads={settings.num_threads}",
        *chosen.flags,
        *extra_flags,
        *(["--report_peak_memory_footprint=true"] if memory else []),
    ]
    for flag in flags:
        if _name(flag) not in known:
            raise DeviceError(
                f"the benchmark binary has no flag --{_name(flag)} (asked for: {flag})",
                "Leave it out, choose another delegate, or use the other of the two tools. "
                + WHERE_TO_GET,
            )
    where_known = (*chosen.where_known, f"--result_file_path={result_file}")
    return flags + [flag for flag in where_known if _name(flag) in known]


def outcome(exit_code: int, text: str, proto: bytes | None) -> BenchmarkResult:
    """Reads the result of one run.

    Args:
        exit_code: The run's exit code, or -N if signal N ended it.
        text: What the run printed.
        proto: Contents of its result file, or None.

    Returns:
        The result.

    Raises:
        DeviceError: If the run failed, or as in `read_outputs`.
    """
    if exit_code:
        for pattern, found, remedy, transient in _FAILURES:
            if re.search(pattern, text, re.IGNORECASE):
                raise DeviceError(f"{found}: {_last_line(text)!r}", remedy, transient=transient)
        refuse_invalid(text)
        found, remedy, transient = _EXIT_CODES.get(
            exit_code if exit_code > 0 else 128 - exit_code,
            (
                f"benchmark_model ended with exit code {exit_code}",
                "Read its message; an operator may be missing, or a flag may have a wrong value.",
                False,
            ),
        )
        raise DeviceError(f"{found}: {_last_line(text)!r}", remedy, transient=transient)
    return read_outputs(text, proto)


def timing(result: BenchmarkResult) -> Timing:
    """Makes a result one series."""
    return Timing(result.typical_ms, result.runs, result.peak_memory_mb)


def architecture(binary: bytes) -> str | None:
    """Reads the Android ABI of an ELF file from its header; None for any other file.

    https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
    """
    if binary[:4] != b"\x7fELF" or len(binary) < 20:
        return None
    machine = struct.unpack_from("<H", binary, 18)[0]
    return _MACHINES.get(machine, f"ELF machine {machine}")


_MACHINES = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a", 243: "riscv64"}

_WRONG_ABI = "the benchmark binary cannot be run on the device"
_FAILURES = (
    (
        r"no space left on device",
        "the device's disk is full",
        "Free some space where the models are put, or choose another remote folder.",
        False,
    ),
    (
        r"exec format error|cannot execute|not executable: \S* ?elf|unexpected e_machine"
        r"|bad elf|syntax error",
        _WRONG_ABI,
        WHERE_TO_GET,
        False,
    ),
    (
        r"taskset",
        "the device refused the CPU mask",
        "Give a mask of existing cores in hexadecimal, such as f0 for the upper four of eight.",
        False,
    ),
)
_EXIT_CODES = {
    124: ("benchmark_model hung and was stopped", "Look at the model or raise hang_secs.", True),
    126: (_WRONG_ABI, WHERE_TO_GET, False),
    127: (_WRONG_ABI, WHERE_TO_GET, False),
    137: (
        "benchmark_model was killed, probably for its memory",
        "Close other applications or measure a smaller model.",
        True,
    ),
    # toybox's timeout reports a process that it stopped so.
    143: ("benchmark_model hung and was stopped", "Look at the model or raise hang_secs.", True),
}


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
