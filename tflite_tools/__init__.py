"""Keras models as TFLite files: convert, run and time them.

The public names are

* `convert`: Keras model to TFLite bytes in any number format;
* `attach` and `read_metadata`: labels and input normalisation inside the file (`Metadata`,
  `Normalization`);
* `correct_biases`: an int8 file's layers given the means of the float file's;
* `inspect_file`, `compare_output`, `worst_tensors`: its operators; how far it is from the model;
* `sparse_weights`: those that it stores by what is not zero, and what a runtime makes of them;
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
    "BenchmarkResult": "tflite_tools.benchmark_result",
    "DeviceError": "tflite_tools.errors",
    "Latency": "tflite_tools.latency",
    "Inspection": "tflite_tools.inspection",
    "Metadata": "tflite_tools.metadata",
    "Normalization": "tflite_tools.metadata",
    "LiteRtModel": "tflite_tools.interpreter",
    "Settings": "tflite_tools.latency",
    "attach": "tflite_tools.metadata",
    "compare_output": "tflite_tools.verification",
    "correct_biases": "tflite_tools.bias_correction",
    "convert": "tflite_tools.conversion",
    "inspect_file": "tflite_tools.inspection",
    "measure_host": "tflite_tools.host",
    "measure_side_by_side": "tflite_tools.devices",
    "open_device": "tflite_tools.devices",
    "parse_benchmark": "tflite_tools.benchmark_output",
    "ratio": "tflite_tools.latency",
    "read_metadata": "tflite_tools.metadata",
    "read_result_proto": "tflite_tools.benchmark_proto",
    "sparse_weights": "tflite_tools.sparse",
    "worst_tensors": "tflite_tools.verification",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"tflite_tools has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
