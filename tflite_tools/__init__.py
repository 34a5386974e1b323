"""Keras models as TFLite files: convert, run and time them.

The public names are

* `convert`: Keras model to TFLite bytes, float32 or full int8;
* `LiteRtModel`: run such bytes over a batch of float samples;
* `open_device`: this host, an Android phone or a GPU as a device that times them; `Settings` says
  how, `Latency` is what comes back, `ratio` compares two;
* `measure_host`: short for timing on this host;
* `parse_benchmark` and `read_result_proto`: the output of benchmark_model as a `BenchmarkResult`;
* `DeviceError`: what could not be measured, and the remedy.

They are imported when first asked for (PEP 562): only `convert` needs TensorFlow, and the timing
worker, a fresh process for each measurement, must not pay seconds for importing it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "BenchmarkResult": "tflite_tools.benchmark_results",
    "DeviceError": "tflite_tools.errors",
    "Latency": "tflite_tools.latency",
    "LiteRtModel": "tflite_tools.interpreter",
    "Settings": "tflite_tools.latency",
    "convert": "tflite_tools.conversion",
    "measure_host": "tflite_tools.host",
    "measure_side_by_side": "tflite_tools.devices",
    "open_device": "tflite_tools.devices",
    "parse_benchmark": "tflite_tools.benchmark_results",
    "ratio": "tflite_tools.latency",
    "read_result_proto": "tflite_tools.benchmark_results",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"tflite_tools has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
