"""The command amc-benchmark: times .tflite and .keras files on this host, phones or a GPU.

amc-benchmark model.tflite pruned.tflite
amc-benchmark a.keras b.keras --device=android --benchmark_binary=benchmark_model
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import traceback
from collections.abc import Mapping, Sequence

from absl import app, flags

# C++ reads it at import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tflite_tools.command_help import introduce
from tflite_tools.devices import measure_side_by_side, open_device
from tflite_tools.errors import DeviceError, printable
from tflite_tools.latency import Latency, Settings, ratio

_DEFAULTS = Settings()
_DEVICES = flags.DEFINE_multi_string(
    "device",
    ["host"],
    "host, android, android:SERIAL or gpu; several phones are measured at once.",
)
_SETTINGS = (
    flags.DEFINE_integer("rounds", _DEFAULTS.rounds, "Series of each model, taken in turn."),
    flags.DEFINE_integer("num_runs", _DEFAULTS.num_runs, "Least timed inferences in a series."),
    flags.DEFINE_float("min_secs", _DEFAULTS.min_secs, "Least seconds of a series."),
    flags.DEFINE_float("max_secs", _DEFAULTS.max_secs, "Seconds after which no inference begins."),
    flags.DEFINE_integer("warmup_runs", _DEFAULTS.warmup_runs, "Least untimed inferences."),
    flags.DEFINE_float("warmup_min_secs", _DEFAULTS.warmup_min_secs, "Least seconds of them."),
    flags.DEFINE_integer("num_threads", _DEFAULTS.num_threads, "Threads on the CPU."),
    flags.DEFINE_bool("reference", _DEFAULTS.reference, "Watch a reference model for drift."),
    flags.DEFINE_float("max_drift", None, "Greatest drift of the reference before a retry."),
    flags.DEFINE_integer("retries", _DEFAULTS.retries, "How often a block is measured again."),
    flags.DEFINE_bool("memory", _DEFAULTS.memory, "Measure peak memory too."),
)
_BINARY = flags.DEFINE_string(
    "benchmark_binary",
    None,
    "A benchmark_model for the phone (or, on the host, for this machine). Prebuilt: "
    "https://ai.google.dev/edge/litert/next/benchmark (android_arm64).",
)
_EXTRA = flags.DEFINE_multi_string("benchmark_flag", [], "A further flag of it, as --name=value.")
_ANDROID = (
    flags.DEFINE_enum("delegate", "cpu", ["cpu", "gpu", "nnapi"], "What runs the model."),
    flags.DEFINE_string("taskset", None, "Mask of the phone's cores, in hexadecimal: f0."),
    flags.DEFINE_string("adb", None, "The adb executable."),
    flags.DEFINE_string(
        "folder", "/data/local/tmp/tflite_tools", "The tool's own folder on the phone."
    ),
    flags.DEFINE_bool("fixed_performance", True, "Ask Android for a sustainable clock."),
    flags.DEFINE_float("max_temperature_c", 37.0, "Time only below this battery temperature."),
)
_SOFTWARE = flags.DEFINE_bool("allow_software", False, "Let a GPU driver run on the CPU.")
_JSON = flags.DEFINE_string("json", None, "Also write all numbers and conditions to this file.")
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def table(results: Mapping[str, Mapping[str, Latency]]) -> str:
    """Makes the text that is printed.

    Args:
        results: As `measure_side_by_side` returns them.

    Returns:
        A block for each device, with its conditions and one row for each model.
    """
    blocks = []
    for device, latencies in results.items():
        first = next(iter(latencies.values()))
        conditions = [f"{key} {_short(value)}" for key, value in first.conditions.items()]
        rows = [("model", "median", "range over rounds", "runs", "memory", "ratio to the first")]
        for name, latency in latencies.items():
            memory = latency.peak_memory_mb
            if latency is first:
                compared = "1"
            else:
                r = ratio(latency, first)
                verdict = " slower" if r.low > 1 else " faster" if r.high < 1 else ""
                compared = f"{r.value:.4g} ({r.low:.4g} to {r.high:.4g}){verdict}"
            rows.append(
                (
                    name,
                    f"{latency.median_ms:.4g} ms",
                    f"{latency.min_ms:.4g} to {latency.max_ms:.4g}",
                    str(latency.runs),
                    "" if memory is None else f"{memory:.1f} MB",
                    compared,
                )
            )
        rows = [tuple(map(printable, row)) for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        head = map(printable, (device, "  " + ", ".join(conditions[1:])))
        blocks.append("\n".join([*head, "", *lines]))
    note = (
        f"medians of {first.rounds} rounds, models in turn; in brackets the 95 % interval of a "
        "bootstrap over the rounds"
    )
    return "\n\n".join([*blocks, note])


def _short(value: str | int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def load(path: pathlib.Path, keras_itself: bool) -> bytes:
    """Reads a file as contents that a device can run.

    Args:
        path: A ``.tflite`` or ``.keras`` file.
        keras_itself: Whether the device runs Keras models; else they are converted to float32.

    Returns:
        The contents.

    Raises:
        DeviceError: If it is a file of another kind.
    """
    if path.suffix not in (".tflite", ".keras"):
        raise DeviceError(
            f"{str(path)!r} is neither a .tflite nor a .keras file", "Give files of these kinds."
        )
    if path.suffix == ".tflite" or keras_itself:
        return path.read_bytes()
    import keras

    from tflite_tools.conversion import convert

    return convert(keras.models.load_model(path, compile=False))


def _options(kind: str) -> dict[str, object]:
    """Collects the flags that a device of this kind takes."""
    chosen = _SETTINGS
    options: dict[str, object] = {}
    if kind == "android":
        chosen = (*chosen, *_ANDROID)
    if kind in ("android", "host"):
        options = {"binary": _BINARY.value, "extra_flags": tuple(_EXTRA.value)}
    if kind == "gpu":
        options = {"allow_software": _SOFTWARE.value}
    return options | {flag.name: flag.value for flag in chosen}


def main(argv: Sequence[str]) -> None:
    """Measures the files named on the command line and prints the table."""
    if len(argv) < 2:
        raise app.UsageError("name at least one file: amc-benchmark model.tflite")
    paths = [pathlib.Path(argument) for argument in argv[1:]]
    for path in paths:
        if not path.is_file():
            raise DeviceError(f"there is no file {str(path)!r}", "Correct the path.")
    kinds = {name: name.partition(":")[0] for name in _DEVICES.value}
    if "gpu" in kinds.values() and len(kinds) > 1:
        raise DeviceError(
            "the GPU runs Keras models as they are and other devices their .tflite files",
            "Measure on the GPU with a command of its own.",
        )
    devices = [open_device(name, **_options(kind)) for name, kind in kinds.items()]
    models = {str(path): load(path, "gpu" in kinds.values()) for path in paths}
    results = measure_side_by_side(devices, models)
    print(table(results))
    if _JSON.value:
        content = {
            device: {name: dataclasses.asdict(latency) for name, latency in latencies.items()}
            for device, latencies in results.items()
        }
        pathlib.Path(_JSON.value).write_text(json.dumps(content, indent=2) + "\n")


def _guarded(argv: Sequence[str]) -> None:
    try:
        main(argv)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (DeviceError, OSError, ValueError) as error:
        if _DEBUG.value:
            traceback.print_exc()
        sys.exit(printable(f"error: {error}", keep="\n"))


def entry() -> None:
    """Runs the command `amc-benchmark`."""
    introduce(__doc__)
    app.run(_guarded)


if __name__ == "__main__":
    entry()
