"""Which device, and how it measures."""

from __future__ import annotations

import dataclasses
from typing import Any

from amc_tf.errors import AmcError
from amc_tf.latency.table import LatencyTable
from tflite_tools import DeviceError, open_device


@dataclasses.dataclass(frozen=True)
class LatencySettings:
    """Of the device that a budget of latency is for, and of its table.

    Attributes:
        device: `host`, `android` or `android:SERIAL`.
        table: file of the table, shared by all networks and devices.
        num_threads: of the runtime on the CPU.
        benchmark_binary: a benchmark_model for the phone (see `amc-benchmark`).
        delegate: of the phone: `cpu`, `gpu` or `nnapi`.
        taskset: mask of the phone's cores, in hexadecimal.
        adb: the adb executable.
        rounds: series in which each operator is timed.
        network_rounds: the same for whole networks. More, as few of them calibrate the
            table, and a plan is rejected for 1 % too much.
        calibration_plans: random plans whose whole networks are measured, beside
            the dense one.
        finalists: how many of a policy's best plans are measured whole at a time.
    """

    device: str = "host"
    table: str = "~/.cache/amc_tf/latency.sqlite"
    num_threads: int = 1
    benchmark_binary: str | None = None
    delegate: str = "cpu"
    taskset: str | None = None
    adb: str | None = None
    rounds: int = 3
    network_rounds: int = 9
    calibration_plans: int = 8
    finalists: int = 3

    def __post_init__(self) -> None:
        for name, least in (("calibration_plans", 0), ("finalists", 1)):
            if getattr(self, name) < least:
                raise AmcError(
                    f"expected {name} of at least {least}, received {getattr(self, name)}"
                )


# A device's kind to the settings that only it takes, and to options for hundreds of small models.
# Whole networks have a process each: those that share one are all slower, or faster, together.
_ANDROID = {"delegate": "delegate", "taskset": "taskset", "adb": "adb"}
_KINDS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "host": ({}, {"models_per_process": 16}),
    "android": (_ANDROID, {}),
}


def open_table(settings: LatencySettings) -> LatencyTable:
    """The table of a device.

    Raises:
        AmcError: there is no such device, it cannot measure operators, or the
            file cannot be used.
    """
    kind = settings.device.partition(":")[0]
    if kind not in _KINDS:
        raise AmcError(
            f"latency tables are made on {' and '.join(_KINDS)}, received {settings.device!r}"
        )
    own, for_small = _KINDS[kind]
    own_options = {name: getattr(settings, field) for name, field in own.items()}

    def device(**options: Any) -> Any:
        return open_device(
            settings.device,
            num_runs=20,
            batch=32,
            num_threads=settings.num_threads,
            binary=settings.benchmark_binary,
            **own_options,
            **options,
        )

    try:
        small = device(rounds=settings.rounds, min_secs=0.05, warmup_min_secs=0.05, **for_small)
        networks = device(rounds=settings.network_rounds, min_secs=0.2, warmup_min_secs=0.1)
    except (DeviceError, ValueError) as error:
        raise AmcError(f"latency: {error}") from error
    return LatencyTable(settings.table, small, networks)
