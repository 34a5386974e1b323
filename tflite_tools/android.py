"""An Android phone as a device, on which benchmark_model runs over adb."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tflite_tools import benchmark_tool
from tflite_tools.adb import Adb
from tflite_tools.device import Device
from tflite_tools.errors import DeviceError
from tflite_tools.host import governor
from tflite_tools.latency import Settings, Timing
from tflite_tools.phone_folder import REMOVE_RESULTS, PhoneFolder, checksums, cut_off, sha256

_POLL_SECS = 10.0
_LEAVE_SECS = 15.0
_PROPERTIES = {
    "model": "ro.product.model",
    "android": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "abis": "ro.product.cpu.abilist",
}
_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"


class AndroidDevice(Device):
    """A phone attached over adb.

    Models and the benchmark binary are pushed once, under the hash of their contents. A block of
    models is one script on the phone, so hundreds of small models take few round trips. For each
    model the script writes one text and, if the binary can, one binary result. Their checksums are
    compared after the transfer. Before each block the battery must be cool enough.
    """

    default_max_drift = 0.1
    remote = True

    def __init__(
        self,
        name: str = "android",
        settings: Settings | None = None,
        *,
        binary: str | os.PathLike | None = None,
        delegate: str = "cpu",
        extra_flags: Sequence[str] = (),
        taskset: str | None = None,
        adb: str | os.PathLike | None = None,
        folder: str = "/data/local/tmp/tflite_tools",
        fixed_performance: bool = True,
        max_temperature_c: float = 37.0,
        cool_down_secs: float = 900.0,
        hang_secs: float = 300.0,
        authorise_secs: float = 10.0,
        **options: Any,
    ) -> None:
        """Checks the options. The phone is not contacted before the first measurement.

        Args:
            name: "android:SERIAL", or "android" for the phone of the variable ANDROID_SERIAL or,
                without it, for the only phone attached.
            settings: How models are timed.
            binary: Path of a benchmark_model for the phone.
            delegate: "cpu", "gpu" or "nnapi".
            extra_flags: Further flags of the binary, as ``--name=value``.
            taskset: Hexadecimal mask of the cores to run on; None leaves them to the scheduler.
            adb: The adb executable; None to look for it.
            folder: Folder on the phone for the files of this tool alone, at least two levels deep.
                It is made if it does not exist; one that holds other files is refused.
            fixed_performance: Whether to ask Android 11 and later for a sustainable clock.
            max_temperature_c: Battery temperature in degrees Celsius; nothing is timed at or above
                it.
            cool_down_secs: Longest wait for the battery to cool down, in seconds.
            hang_secs: Seconds without output after which a model counts as hung.
            authorise_secs: Seconds to wait until the user has allowed USB debugging on the phone,
                or until the phone is back.
            **options: Options of `Device`.

        Raises:
            DeviceError: If the binary is missing or an option is invalid.
        """
        super().__init__(name, settings, **options)
        if binary is None or not Path(binary).is_file():
            raise DeviceError(
                "measuring on Android needs the benchmark_model binary, but "
                + ("none was given" if binary is None else f"there is no file {str(binary)!r}"),
                benchmark_tool.WHERE_TO_GET,
            )
        if delegate not in benchmark_tool.DELEGATES:
            raise DeviceError(
                f"there is no delegate {delegate!r}",
                f"Choose one of {', '.join(benchmark_tool.DELEGATES)}.",
            )
        if taskset is not None and not re.fullmatch(r"(0x)?[0-9a-fA-F]+", taskset):
            raise DeviceError(
                f"the mask of cores must be hexadecimal, but is {taskset!r}",
                "Give f0, for example, for the upper four of eight cores.",
            )
        self._binary = Path(binary).read_bytes()
        self._delegate = delegate
        self._extra_flags = tuple(extra_flags)
        self._taskset = taskset
        self._adb_executable = adb
        self._folder = PhoneFolder(folder, name)
        self._fixed_performance = fixed_performance
        self._max_temperature_c = max_temperature_c
        self._cool_down_secs = cool_down_secs
        self._hang_secs = hang_secs
        self._authorise_secs = authorise_secs

    @contextmanager
    def _session(self, files: Mapping[str, bytes]) -> Iterator[None]:
        serial = self.name.partition(":")[2] or None
        self._adb = Adb(
            serial,
            self._adb_executable,
            silence_secs=self._hang_secs,
            authorise_secs=self._authorise_secs,
        )
        self._files = {f"{key}.tflite": content for key, content in files.items()}
        self._tool = f"benchmark_model_{sha256(self._binary)}"
        self._files[self._tool] = self._binary
        self._known: frozenset[str] = frozenset()
        self._fixed = "no"
        self._hottest: float | None = None
        try:
            self._retried(self._prepare)
            yield
        finally:
            self._leave()

    def _prepare(self) -> None:
        """Makes the phone ready for a block; does only what is missing after a reconnection."""
        self._adb.require_ready()
        commands = [f"echo {name}=$(getprop {prop})" for name, prop in _PROPERTIES.items()]
        pairs = (line.partition("=") for line in self._shell("; ".join(commands)).splitlines())
        self._phone = {name: value.strip() for name, _, value in pairs if name in _PROPERTIES}
        self._require_abi()
        self._folder.claim(self._adb)
        self._folder.send(self._adb, self._files)
        if not self._known:
            probe = f"./{self._tool} {shlex.join(benchmark_tool.PROBE)}"
            usage = self._folder.run(
                self._adb, f"chmod 755 {self._tool}; {probe} 2>&1; echo exit $?"
            )
            usage, _, code = usage.rpartition("exit ")
            if code.strip() in ("126", "127"):
                benchmark_tool.outcome(int(code), usage, None)
            self._known = benchmark_tool.known_flags(usage)
        if self._fixed_performance and int(self._phone.get("sdk") or 0) >= 30:
            self._fixed = self._set_fixed_performance("true")

    def _require_abi(self) -> None:
        abis = self._phone.get("abis", "").split(",")
        built_for = benchmark_tool.architecture(self._binary)
        if built_for is not None and abis != [""] and built_for not in abis:
            raise DeviceError(
                f"the benchmark binary is built for {built_for}, but {self.name} runs "
                f"{', '.join(abis)}",
                benchmark_tool.WHERE_TO_GET,
            )

    def _settle(self) -> None:
        waited = 0.0
        while True:
            found = re.search(r"^\s*temperature: (\d+)", self._shell("dumpsys battery"), re.M)
            if not found:  # boards without a battery
                return
            temperature = int(found[1]) / 10
            self._hottest = max(temperature, self._hottest or temperature)
            if temperature < self._max_temperature_c:
                return
            if waited >= self._cool_down_secs:
                raise DeviceError(
                    f"{self.name} is too hot: its battery has {temperature:g} C after "
                    f"{waited:g} seconds of waiting for less than {self._max_temperature_c:g} C",
                    "Take it off the charger, cool it, or raise max_temperature_c.",
                )
            self._sleep(_POLL_SECS)
            waited += _POLL_SECS

    def _time(self, keys: Sequence[str]) -> list[Timing]:
        return self._run(keys, memory=False)

    def _peak_memory(self, keys: Sequence[str]) -> dict[str, float]:
        timings = self._retried(lambda: self._run(keys, memory=True))
        pairs = zip(keys, timings, strict=True)
        return {key: t.peak_memory_mb for key, t in pairs if t.peak_memory_mb is not None}

    def _run(self, keys: Sequence[str], memory: bool) -> list[Timing]:
        # After a lost connection the phone may have been restarted: files and modes are checked
        # in every block, which costs two round trips.
        self._prepare()
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "run.sh")
            script.write_text(self._script(keys, memory))
            self._adb.push([script], self._folder.path)
            # The phone itself ends a hung model; this limit is for a phone that hangs.
            printed = self._folder.run(self._adb, "sh run.sh", 2 * self._hang_secs)
            if not printed.endswith("end of block\n"):
                raise cut_off(self.name)
            self._adb.pull(f"{self._folder.path}/results", Path(folder, "results"))
            results = {path.name: path.read_bytes() for path in Path(folder, "results").iterdir()}
        if checksums(printed) != {name: sha256(content) for name, content in results.items()}:
            raise cut_off(self.name)
        codes = [int(code) for code in re.findall(r"^exit (\d+)$", printed, re.MULTILINE)]
        if len(codes) != len(keys):
            raise cut_off(self.name)
        timings = []
        for i, (key, code) in enumerate(zip(keys, codes, strict=True)):
            text = results.get(f"{i}.txt", b"").decode(errors="replace")
            with self._naming([key]):
                result = benchmark_tool.outcome(code, text, results.get(f"{i}.pb"))
            timings.append(benchmark_tool.timing(result))
        return timings

    def _script(self, keys: Sequence[str], memory: bool) -> str:
        """Makes the script that times the models in turn and prints exit codes and checksums."""
        lines = [
            f"{self._folder.enter} && mkdir -p results && {REMOVE_RESULTS} || exit 1",
            f"chmod 755 {self._tool}",
            "limit=",
            f"command -v timeout >/dev/null && limit='timeout {self._hang_secs:g}'",
        ]
        prefix = "$limit " + (f"taskset {self._taskset} " if self._taskset else "")
        for i, key in enumerate(keys):
            flags = benchmark_tool.arguments(
                self._known,
                self.settings,
                self._delegate,
                f"{key}.tflite",
                f"results/{i}.pb",
                self._extra_flags,
                memory,
            )
            lines.append(f"{prefix}./{self._tool} {shlex.join(flags)} >results/{i}.txt 2>&1")
            lines.append("echo exit $?")
        lines += ["cd results && sha256sum *", "echo end of block"]
        return "\n".join(lines) + "\n"

    def _conditions(self) -> dict[str, str | int | float]:
        state = self._shell(
            f"cat {_CPUFREQ}/scaling_governor 2>/dev/null; echo; "
            f"cat {_CPUFREQ}/scaling_cur_freq 2>/dev/null"
        )
        governors, _, frequencies = state.partition("\n\n")
        megahertz = [str(int(khz) // 1000) for khz in frequencies.split() if khz.isdigit()]
        return {
            "phone": self._phone.get("model") or "unknown",
            "android": self._phone.get("android") or "unknown",
            "runtime": f"benchmark_model {sha256(self._binary)[:12]}",
            "adb": self._adb.version(),
            "delegate": self._delegate,
            "threads": self.settings.num_threads,
            "taskset": self._taskset or "none",
            "fixed_performance": self._fixed,
            "governor": governor(governors.splitlines()),
            "frequency_mhz": " ".join(megahertz) or "unknown",
            "temperature_c": "unknown" if self._hottest is None else self._hottest,
        }

    def _set_fixed_performance(self, enabled: str) -> str:
        answer = self._shell(
            f"cmd power set-fixed-performance-mode-enabled {enabled} >/dev/null 2>&1 && echo set"
        )
        return "yes" if answer.strip() == "set" else "refused"

    def _leave(self) -> None:
        """Removes the files that it made and resets the clock, if the phone still answers."""
        try:
            patience = min(_LEAVE_SECS, self._hang_secs)
            self._adb = Adb(self._adb.serial, self._adb_executable, patience)
            if self._fixed == "yes":
                self._set_fixed_performance("false")
            models = [name for name in self._files if name != self._tool]
            self._folder.remove(self._adb, ["run.sh", *models])
        except DeviceError:
            pass  # an earlier error matters more to the caller than this one

    def _shell(self, command: str, silence_secs: float | None = None) -> str:
        return self._adb.shell(command, silence_secs)
