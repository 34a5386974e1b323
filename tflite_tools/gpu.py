"""This machine's GPU as a device."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tflite_tools.device import Device
from tflite_tools.errors import DeviceError
from tflite_tools.host import run_worker, stopping_rule
from tflite_tools.latency import Settings, Timing


class GpuDevice(Device):
    """The GPU, which TensorFlow on CUDA uses for Keras models, and LiteRT for .tflite files.

    There is no reference model, as neither runtime reads the files of the other. Models that are
    measured together still alternate.
    """

    def __init__(
        self,
        name: str = "gpu",
        settings: Settings | None = None,
        *,
        models_per_process: int = 1,
        allow_software: bool = False,
        hang_secs: float = 600.0,
        **options: Any,
    ) -> None:
        """Checks the options.

        Args:
            name: As `open_device` takes it.
            settings: How models are timed.
            models_per_process: Number of models that one process times one after another.
            allow_software: Whether a Vulkan driver that runs on the CPU is accepted.
            hang_secs: Seconds after which a process that times one model counts as hung.
            **options: Options of `Device`.
        """
        super().__init__(name, settings, **options)
        if models_per_process < 1:
            raise ValueError(
                f"models_per_process must be at least 1; received {models_per_process}."
            )
        self._models_per_process = models_per_process
        self._allow_software = allow_software
        self._hang_secs = hang_secs
        self._paths: dict[str, Path] = {}
        self._found: dict[str, str | int | float] = {}

    def _reference(self) -> bytes | None:
        return None

    @contextmanager
    def _session(self, files: Mapping[str, bytes]) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self._paths = {}
            for key, content in files.items():
                with self._naming([key]):
                    self._paths[key] = Path(folder, key + _suffix(content))
                self._paths[key].write_bytes(content)
            yield

    def _time(self, keys: Sequence[str]) -> list[Timing]:
        timings = []
        step = self._models_per_process
        for start in range(0, len(keys), step):
            chunk = keys[start : start + step]
            with self._naming(chunk):
                results = run_worker(
                    "tflite_tools.time_gpu",
                    [
                        *(str(self._paths[key]) for key in chunk),
                        *(["--allow_software"] if self._allow_software else []),
                        *stopping_rule(self.settings),
                    ],
                    hang_secs=self._hang_secs * len(chunk),
                )
            self._found = {name: results[0][name] for name in ("runtime", "adapter")}
            timings += [Timing(r["median_ms"], r["runs"], r["peak_memory_mb"]) for r in results]
        return timings

    def _conditions(self) -> dict[str, str | int | float]:
        return self._found


def _suffix(content: bytes) -> str:
    """Returns the file name suffix for the contents: a .keras file is a zip archive."""
    if content[:2] == b"PK":
        return ".keras"
    if content[4:8] == b"TFL3":
        return ".tflite"
    raise DeviceError(
        "the GPU takes the contents of .keras and .tflite files, but these are neither",
        "Convert the model first.",
    )
