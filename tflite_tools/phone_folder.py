"""The tool's own folder on a phone: nothing is written or removed anywhere else."""

from __future__ import annotations

import hashlib
import re
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tflite_tools.adb import Adb
from tflite_tools.errors import DeviceError

# Removes what benchmark runs left; each line of the script of a block writes such files.
REMOVE_RESULTS = "rm -f results/[0-9]*.txt results/[0-9]*.pb"
# An empty file that tells the tool's own folder from others; folders of older versions have none.
_MARKER = ".tflite_tools"
_OWN = re.compile(r"[0-9a-f]{64}\.tflite|benchmark_model_[0-9a-f]{64}|run\.sh|results")
_NAMES_A_COMMAND = 30


class PhoneFolder:
    """A folder that this tool made, or found empty.

    Attributes:
        path: absolute path on the phone.
        enter: shell command that changes to the folder; it stands before every other one.
    """

    def __init__(self, path: str, device: str) -> None:
        """Checks the path.

        Args:
            path: Absolute path on the phone, at least two levels deep.
            device: Name of the phone in messages.

        Raises:
            DeviceError: If the path could be a folder of the system, or needs quotes.
        """
        # At least two levels, without "." and "..".
        if not re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9_.-]+){2,}/?", path):
            raise DeviceError(
                "the folder on the phone must be an absolute path of at least two levels in plain "
                f"characters, but is {path!r}",
                "Choose one below /data/local/tmp.",
            )
        self.path = path.rstrip("/")
        self.enter = f"cd {shlex.quote(self.path)}"
        self._device = device
        self._claimed = False

    def claim(self, adb: Adb) -> None:
        """Makes the folder, or checks that this tool made it.

        Raises:
            DeviceError: If it holds files of others, or cannot be used.
        """
        there = adb.shell(
            f"mkdir -p {shlex.quote(self.path)} && {self.enter} && ls -1a 2>&1 && echo listed"
        )
        *names, last = there.splitlines() or [""]
        if last != "listed":
            raise self._unusable(there)
        others = [name for name in names if name not in (".", "..") and not _OWN.fullmatch(name)]
        if others and _MARKER not in names:
            raise DeviceError(
                f"the folder {self.path} on {self._device} is not one of this tool: it holds "
                f"{others[0]!r}",
                "Choose a folder that does not exist yet; it is made.",
            )
        if _MARKER not in names:
            self.run(adb, f": >{_MARKER}")
        self._claimed = True

    def run(self, adb: Adb, command: str, silence_secs: float | None = None) -> str:
        """Runs a command line in the folder, as `Adb.shell` does."""
        return adb.shell(f"{self.enter} && {command}", silence_secs)

    def send(self, adb: Adb, files: Mapping[str, bytes]) -> None:
        """Pushes the files that the phone lacks; checksums of the contents decide.

        Raises:
            DeviceError: If not all of them arrive undamaged.
        """
        missing = self._missing(adb, files, files)
        if not missing:
            return
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in sorted(missing)]
            for path in paths:
                path.write_bytes(files[path.name])
            adb.push(paths, self.path)
        left = self._missing(adb, missing, files)
        if left:
            raise DeviceError(
                f"{len(left)} of {len(missing)} files arrived damaged on {self._device}",
                "Check the cable and the space left on the phone.",
                transient=True,
            )

    def remove(self, adb: Adb, names: Sequence[str]) -> None:
        """Removes files of these names and the results, and nothing in a folder of others."""
        if not self._claimed:
            return
        for start in range(0, len(names), _NAMES_A_COMMAND):
            listed = shlex.join(names[start : start + _NAMES_A_COMMAND])
            self.run(adb, f"rm -f {listed}")
        self.run(adb, f"{REMOVE_RESULTS} && rmdir results")

    def _missing(self, adb: Adb, names: Iterable[str], files: Mapping[str, bytes]) -> set[str]:
        listing = self.run(adb, "command -v sha256sum && (sha256sum * 2>/dev/null; echo listed)")
        if "sha256sum" not in listing:
            raise self._unusable(listing)
        if not listing.endswith("listed\n"):
            raise cut_off(self._device)
        there = checksums(listing)
        return {name for name in names if there.get(name) != sha256(files[name])}

    def _unusable(self, printed: str) -> DeviceError:
        return DeviceError(
            f"{self.path} on {self._device} cannot be used: {printed.strip()[-200:]!r}",
            "The folder must be writable, and Android 8 or later is needed.",
        )


def checksums(listing: str) -> dict[str, str]:
    """Reads the checksum of each file name from the output of sha256sum."""
    return {
        name: digest for digest, name in re.findall(r"^([0-9a-f]{64}) [ *](.+)$", listing, re.M)
    }


def sha256(content: bytes) -> str:
    """Returns the checksum of a content as sha256sum prints it."""
    return hashlib.sha256(content).hexdigest()


def cut_off(device: str) -> DeviceError:
    """Returns the error for an output that is not whole."""
    return DeviceError(
        f"the output of {device} was cut off or damaged",
        "Check the cable and the space left on the phone.",
        transient=True,
    )
