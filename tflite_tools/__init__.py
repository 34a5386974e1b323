"""Keras models as TFLite files: convert, run and time them on this host.

The public names are

* `convert`: Keras model to TFLite bytes, float32 or full int8;
* `LiteRtModel`: run such bytes over a batch of float samples;
* `measure_host` and `Latency`: time them.

They are imported when first asked for (PEP 562): only `convert` needs TensorFlow, and the timing
worker, a fresh process for each measurement, must not pay seconds for importing it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Latency": "tflite_tools.latency",
    "LiteRtModel": "tflite_tools.interpreter",
    "convert": "tflite_tools.conversion",
    "measure_host": "tflite_tools.latency",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"tflite_tools has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
