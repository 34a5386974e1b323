"""The device that measures latency, and how it measures."""

from __future__ import annotations

import dataclasses
from typing import Any

from amc_tf.errors import AmcError
from amc_tf.latency.table import LatencyTable
from tflite_tools import DeviceError, open_device


@dataclasses.dataclass(frozen=True)
class LatencySettings:
    """Settings of the device that a latency budget is for, and of its table.

    Attributes:
        device: `host`, `android` or `android:SERIAL`.
        table: file of the table, shared by all networks and devices.
        num_threads: number of threads of the runtime on the CPU.
        benchmark_binary: path of a benchmark_model for the phone (see `amc-benchmark`).
        delegate: delegate on the phone: `cpu`, `gpu` or `nnapi`.
        taskset: mask of the phone's cores, in hexadecimal.
        adb: path of the adb executable.
        rounds: number of series in which each operator is timed.
        network_rounds: the same for whole networks. It is larger, as few networks calibrate
            the table, and a plan is rejected if it takes 1 % too long.
        calibration_plans: number of random plans whose whole networks are measured, in
            addition to the dense one.
        finalists: number of a policy's best plans whose whole networks are measured at a time.
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


# Kind of device to the settings that only it takes, and to options for hundreds of small models.
# Each whole network has its own process: networks that share one are all slower, or all faster.
_ANDROID = {"delegate": "delegate", "taskset": "taskset", "adb": "adb"}
_KINDS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "host": ({}, {"models_per_process": 16}),
    "android": (_ANDROID, {}),
}


def open_table(settings: LatencySettings) -> LatencyTable:
    """Opens the table of a device.

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
