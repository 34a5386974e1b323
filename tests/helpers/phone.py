"""A simulated phone, its tools, and an adb server of its own."""

from __future__ import annotations

import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest
from adbd import Faults, Phone
from places import HELPERS

from tflite_tools import DeviceError, adb, open_device

BENCHMARK = (HELPERS / "benchmark_model.py").read_text()
QUICK = {"num_runs": 5, "min_secs": 0.01, "warmup_min_secs": 0, "rounds": 1, "reference": False}
PROPERTIES = {
    "ro.product.model": "Stand-in",
    "ro.build.version.release": "13",
    "ro.build.version.sdk": "33",
    "ro.product.cpu.abilist": "arm64-v8a,x86_64",
}
BATTERY = "Current Battery Service state:\n  level: 80\n  temperature: {}\n  technology: Li-ion\n"


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory):
    """Starts a separate adb server with a key of its own, at a free port."""
    try:
        executable = adb.find_adb()
    except DeviceError as error:
        pytest.skip(str(error))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("ADB_MDNS_AUTO_CONNECT", "0")
        patch.delenv("ANDROID_SERIAL", raising=False)
        subprocess.run([executable, "start-server"], check=True, capture_output=True)
        yield executable
        subprocess.run([executable, "kill-server"], capture_output=True)


class Bench:
    """A phone, its tools, and devices that lead to it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.tools = folder / "tools"
        self.tools.mkdir(parents=True)
        cases = "".join(f"{name}) echo {value};;" for name, value in PROPERTIES.items())
        self.tool("getprop", f"case $1 in {cases} esac")
        self.tool("dumpsys", f"cat {folder}/battery")
        self.tool("cmd", f'echo "$@" >>{folder}/cmd.log')
        self.heat(285)
        self.phone = Phone(self.tools)
        self.faults: Faults = self.phone.faults
        self.slept: list[float] = []

    def tool(self, name: str, body: str) -> None:
        (self.tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.tools / name).chmod(0o755)

    def heat(self, tenths: int) -> None:
        (self.folder / "battery").write_text(BATTERY.format(tenths))

    def binary(self, mode: str = "") -> pathlib.Path:
        text = BENCHMARK.replace('MODE = ""', f"MODE = {mode!r}")
        path = self.folder / "android_arm64_benchmark_model"
        path.write_text(f"#!{sys.executable}\n{text}")
        return path

    def device(self, mode: str = "", **options):
        options = {"binary": self.binary(mode), **QUICK, "hang_secs": 30, "sleep": self.sleep} | (
            options
        )
        name = f"android:{self.phone.serial}"
        return open_device(name, folder=str(self.folder / "remote"), **options)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    @property
    def pushed(self) -> list[str]:
        return [re.sub(r"[0-9a-f]{64}", "#", os.path.basename(p)) for p in self.faults.pushed]
