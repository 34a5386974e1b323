"""Keras models as TFLite files: convert, run and time them.

The public names are

* `convert`: converts a Keras model to TFLite bytes in any number format;
* `attach` and `read_metadata`: write and read labels and input normalisation inside a file
  (`Metadata`, `Normalization`);
* `correct_biases`: gives the layers of an int8 file the channel means of the float file;
* `inspect_file`, `compare_output`, `worst_tensors`: list a file's operators, and measure how far
  it is from the model;
* `sparse_weights`: lists the weights that a file stores sparsely;
* `LiteRtModel`: runs a file on a batch of float samples;
* `open_device`: opens this host, an Android phone or a GPU as a device that times files;
  `Settings` says how, `Latency` is the result, `ratio` compares two results;
* `measure_side_by_side`: times the same files on several devices;
* `measure_host`: a shortcut for timing on this host;
* `parse_benchmark` and `read_result_proto`: read the output of benchmark_model as a
  `BenchmarkResult`;
* `DeviceError`: says what could not be measured, and the remedy.

Each name is imported on first use (PEP 562). Only `convert` needs TensorFlow, and the timing
worker, a fresh process for each measurement, must not spend seconds on importing it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tflite_tools.benchmark_output import parse_benchmark as parse_benchmark
    from tflite_tools.benchmark_proto import read_result_proto as read_result_proto
    from tflite_tools.benchmark_result import BenchmarkResult as BenchmarkResult
    from tflite_tools.bias_correction import correct_biases as correct_biases
    from tflite_tools.conversion import convert as convert
    from tflite_tools.devices import measure_side_by_side as measure_side_by_side
    from tflite_tools.devices import open_device as open_device
    from tflite_tools.errors import DeviceError as DeviceError
    from tflite_tools.host import measure_host as measure_host
    from tflite_tools.inspection import Inspection as Inspection
    from tflite_tools.inspection import inspect_file as inspect_file
    from tflite_tools.interpreter import LiteRtModel as LiteRtModel
    from tflite_tools.latency import Latency as Latency
    from tflite_tools.latency import Settings as Settings
    from tflite_tools.latency import ratio as ratio
    from tflite_tools.metadata import Metadata as Metadata
    from tflite_tools.metadata import Normalization as Normalization
    from tflite_tools.metadata import attach as attach
    from tflite_tools.metadata import read_metadata as read_metadata
    from tflite_tools.sparse import sparse_weights as sparse_weights
    from tflite_tools.verification import compare_output as compare_output
    from tflite_tools.verification import worst_tensors as worst_tensors
else:
    _HOME = {
        "BenchmarkResult": "tflite_tools.benchmark_result",
        "DeviceError": "tflite_tools.errors",
        "Inspection": "tflite_tools.inspection",
        "Latency": "tflite_tools.latency",
        "LiteRtModel": "tflite_tools.interpreter",
        "Metadata": "tflite_tools.metadata",
        "Normalization": "tflite_tools.metadata",
        "Settings": "tflite_tools.latency",
        "attach": "tflite_tools.metadata",
        "compare_output": "tflite_tools.verification",
        "convert": "tflite_tools.conversion",
        "correct_biases": "tflite_tools.bias_correction",
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
        return __all__
