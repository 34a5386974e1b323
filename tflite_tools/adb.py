"""The adb executable as a library: its output, or a plain error message.

https://developer.android.com/tools/adb
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import selectors
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tflite_tools.errors import DeviceError

_ABSENT = (
    r"device '.*' not found|no devices/emulators found|failed to connect|cannot connect"
    r"|unable to connect"
)
# Message of adb, its meaning, the remedy, and whether the fault is transient.
_FAULTS = (
    (
        r"unauthorized|failed to authenticate",
        "does not trust this computer",
        "Unlock the phone and allow USB debugging when it asks.",
        False,
    ),
    (
        r"no permissions|insufficient permissions",
        "may not be opened by this user",
        "Add udev rules for the phone, see https://developer.android.com/studio/run/device.",
        False,
    ),
    (
        r"no space left on device|enospc",
        "has no space left",
        "Free some space where the models are put, or choose another remote folder.",
        False,
    ),
    (
        r"read-only file system|permission denied",
        "does not allow files to be written or run in the remote folder",
        "Choose another remote folder; /data/local/tmp is meant for this.",
        False,
    ),
    (
        r"device offline|device still authorizing|device still connecting",
        "is offline",
        "Reconnect the cable or network, or run adb reconnect.",
        True,
    ),
    (
        _ABSENT,
        "is not attached",
        "Check the cable or address, switch USB debugging on, and look at adb devices.",
        True,
    ),
    (
        r"connection reset|closed|protocol fault|broken pipe|eof|connect failed"
        r"|couldn't read from device|failed to read",
        "was disconnected",
        "Check the cable or network, and repeat the command.",
        True,
    ),
)


def find_adb(executable: str | os.PathLike | None = None) -> str:
    """Finds the path of an adb executable.

    Args:
        executable: A path or name to use; None to look on PATH and then in the package adbutils.

    Returns:
        The path.

    Raises:
        DeviceError: If there is no such executable.
    """
    if executable is not None:
        found = shutil.which(executable)
        if found is None:
            raise DeviceError(
                f"there is no executable {os.fspath(executable)!r}",
                "Correct the path given as adb.",
            )
        return found
    on_path = shutil.which("adb")
    if on_path:
        return on_path
    package = importlib.util.find_spec("adbutils")
    for folder in (package.submodule_search_locations or []) if package else []:
        bundled = Path(folder, "binaries", "adb")
        if bundled.is_file():
            # Installers may drop the executable bit.
            if not os.access(bundled, os.X_OK):
                bundled.chmod(bundled.stat().st_mode | stat.S_IXUSR)
            return str(bundled)
    raise DeviceError(
        "no adb executable was found on PATH or in the package adbutils",
        "Install it: pip install adbutils, or your system's package adb.",
    )


class Adb:
    """One device as adb sees it.

    Attributes:
        serial: Serial number of the device, or host:port.
    """

    def __init__(
        self,
        serial: str | None = None,
        executable: str | os.PathLike | None = None,
        silence_secs: float = 60.0,
        authorise_secs: float = 10.0,
    ) -> None:
        """Finds adb; without a serial number, also the only device that is attached.

        Args:
            serial: Serial number or host:port of the device; None for that of the variable
                ANDROID_SERIAL, as adb has it, or else for the only one attached.
            executable: As in `find_adb`.
            silence_secs: Seconds without any output after which a command counts as hung.
            authorise_secs: Seconds to wait until the user has told the device to trust this
                computer, or until the device is back.

        Raises:
            DeviceError: If adb is missing, or if not exactly one device is attached and no serial
                number is known.
        """
        self._executable = find_adb(executable)
        self._silence_secs = silence_secs
        self._authorise_secs = authorise_secs
        self.serial = serial or os.environ.get("ANDROID_SERIAL") or self._only_device()

    def version(self) -> str:
        """Returns the version of the adb executable."""
        match = re.search(r"^Version (\S+)", self._run(["version"]), re.MULTILINE)
        return match[1] if match else "unknown"

    def require_ready(self) -> None:
        """Waits until the device takes commands; connects to a host:port first.

        Raises:
            DeviceError: If the device is not ready within `authorise_secs`.
        """
        deadline = time.monotonic() + self._authorise_secs
        reconnected = False
        while True:
            try:
                state = self._device("get-state").strip()
            except DeviceError as error:
                problem = error
            else:
                if state == "device":
                    return
                problem = DeviceError(
                    f"the device {self.serial} is in the state {state!r}",
                    "Start it normally, with Android running.",
                )
            # A host:port must be connected first, and again after it was lost. If adb still lists
            # it as offline, it must be disconnected before.
            offline = "device offline" in str(problem) and not reconnected
            if ":" in self.serial and (offline or re.search(_ABSENT, str(problem))):
                if offline:
                    with contextlib.suppress(DeviceError):  # gone already
                        self._run(["disconnect", self.serial])
                    reconnected = True
                message = self._run(["connect", self.serial])
                if re.search(_ABSENT, message, re.IGNORECASE):
                    problem = self._fault(message)
            if time.monotonic() >= deadline:
                raise problem
            time.sleep(0.3)

    def shell(self, command: str, silence_secs: float | None = None) -> str:
        """Runs a command line on the device.

        Args:
            command: Command line for the device's sh.
            silence_secs: Seconds without output after which the command counts as hung.

        Returns:
            The standard output. The exit code is ignored, since old devices do not report it.

        Raises:
            DeviceError: If the device is lost or silent.
        """
        # Only adb's own message shows a lost connection: its exit code may be the command's.
        return self._device("shell", command, silence_secs=silence_secs, checked=False)

    def push(self, paths: Sequence[Path], folder: str) -> None:
        """Copies files into a folder of the device.

        Raises:
            DeviceError: If not all of them arrive.
        """
        size = sum(path.stat().st_size for path in paths)
        # adb is silent during a push; a slow cable carries half a megabyte a second.
        allowed = self._silence_secs + size / 5e5
        self._device("push", *map(str, paths), folder, silence_secs=allowed)

    def pull(self, folder: str, target: Path) -> None:
        """Copies a folder of the device.

        Raises:
            DeviceError: If not all of it arrives.
        """
        self._device("pull", folder, str(target))

    def _device(
        self, *arguments: str, silence_secs: float | None = None, checked: bool = True
    ) -> str:
        return self._run(["-s", self.serial, *arguments], silence_secs, checked)

    def _only_device(self) -> str:
        listing = self._run(["devices"])
        # The serial number of a wireless phone may hold a space: adb-ABC (2)._adb-tls-connect._tcp.
        rows = re.findall(r"^([^\t\n]+)\t(.+)$", listing, re.MULTILINE)
        if len(rows) != 1:
            found = ", ".join(f"{serial} ({state})" for serial, state in rows) or "none"
            raise DeviceError(
                f"expected one attached Android device; adb lists {found}",
                "Name one of them as android:SERIAL, or in ANDROID_SERIAL."
                if rows
                else _FAULTS[-2][2],
            )
        return rows[0][0]

    def _run(
        self,
        arguments: Sequence[str],
        silence_secs: float | None = None,
        checked: bool = True,
    ) -> str:
        allowed = self._silence_secs if silence_secs is None else silence_secs
        process = subprocess.Popen(
            [self._executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = _read(process, allowed)
        except TimeoutError:
            raise DeviceError(
                f"adb {shlex.join(arguments)[:100]} has been silent for {allowed:g} seconds",
                "Check that the phone still answers, restart it, or raise hang_secs.",
                transient=True,
            ) from None
        finally:
            process.kill()
            process.wait()
        # A client that finds no server starts one and prints so.
        err = "\n".join(line for line in err.splitlines() if not line.startswith("* daemon"))
        lost = re.search(r"^(adb: )?error: ", err, re.MULTILINE)
        if lost or (checked and process.returncode):
            raise self._fault(err.strip() or out.strip())
        return out

    def _fault(self, message: str) -> DeviceError:
        line = next((one for one in reversed(message.splitlines()) if one.strip()), "nothing")
        for pattern, found, remedy, transient in _FAULTS:
            if re.search(pattern, message, re.IGNORECASE):
                return DeviceError(
                    f"the device {self.serial} {found} (adb: {line.strip()!r})",
                    remedy,
                    transient=transient,
                )
        return DeviceError(
            f"adb failed on the device {self.serial}: {line.strip()!r}",
            "Try the same command with adb by hand.",
            transient=True,
        )


def _read(process: subprocess.Popen[bytes], silence_secs: float) -> tuple[str, str]:
    """Reads both outputs of a process; raises TimeoutError if neither grows for so many seconds."""
    assert process.stdout is not None and process.stderr is not None
    texts = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ)
        deadline = time.monotonic() + silence_secs
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                block = os.read(key.fd, 1 << 16)
                if not block:
                    selector.unregister(key.fileobj)
                    continue
                texts[key.fileobj] += block  # type: ignore[index]
                deadline = time.monotonic() + silence_secs
    process.wait(silence_secs)
    out, err = (bytes(text).decode(errors="replace") for text in texts.values())
    process.stdout.close()
    process.stderr.close()
    return out.replace("\r\n", "\n"), err
