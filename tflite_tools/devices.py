"""Devices by name, and several of them at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from tflite_tools.device import Device
from tflite_tools.errors import DeviceError
from tflite_tools.latency import Latency, Settings

# The kind is the part of a device's name before its first colon. The modules are imported on first
# use: not every machine has a GPU's runtime.
_KINDS = {
    "host": ("tflite_tools.host", "HostDevice"),
    "android": ("tflite_tools.android", "AndroidDevice"),
    "gpu": ("tflite_tools.gpu", "GpuDevice"),
}
_SETTINGS = frozenset(field.name for field in dataclasses.fields(Settings))


def open_device(name: str, **options: Any) -> Device:
    """Opens the device with this name.

    Args:
        name: "host", "android:SERIAL" (or "android" for the only phone attached), or "gpu".
        **options: Fields of `Settings`, and options of `HostDevice`, `AndroidDevice` or
            `GpuDevice`.

    Returns:
        The device. It is not contacted before its first measurement.

    Raises:
        DeviceError: If there is no such device or option.
        ValueError: If a number is out of its range.
    """
    kind, _, address = name.partition(":")
    if kind not in _KINDS or (address and kind != "android"):
        raise DeviceError(
            f"there is no device {name!r}", "Choose host, android, android:SERIAL or gpu."
        )
    module, class_name = _KINDS[kind]
    settings = Settings(**{key: options.pop(key) for key in _SETTINGS & options.keys()})
    try:
        return getattr(import_module(module), class_name)(name, settings, **options)
    except TypeError as error:
        raise DeviceError(
            f"the device {name!r} does not take these options ({error})",
            f"Besides its own options it takes {', '.join(sorted(_SETTINGS))}.",
        ) from None


def measure_side_by_side(
    devices: Sequence[Device],
    models: Mapping[str, bytes],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Latency]]:
    """Times the same models on several devices: phones at once, others one after another.

    Args:
        devices: Devices with different names.
        models: Contents of a file for each name.
        progress: As in `Device.measure_all`; called for each device from its own thread.

    Returns:
        The latency by device name and model name.

    Raises:
        DeviceError: If a device fails; the error of the first one, after all have ended.
        ValueError: If two devices have the same name.
    """
    names = [device.name for device in devices]
    if len(set(names)) != len(names):
        raise ValueError(f"expected devices with different names; received {names}.")
    remote = [device for device in devices if device.remote]
    with ThreadPoolExecutor(max(1, len(remote))) as pool:
        futures = {d.name: pool.submit(d.measure_all, models, progress) for d in remote}
        local = {d.name: d.measure_all(models, progress) for d in devices if not d.remote}
        results = {**local, **{name: future.result() for name, future in futures.items()}}
    return {name: results[name] for name in names}
