"""Files that are slower than the float32 file of the same network."""

from __future__ import annotations

from collections.abc import Mapping

from amc_tf.runs import layout
from amc_tf.runs.result_parts import Exported


def slower_than_float(files: Mapping[str, Exported]) -> Mapping[str, str]:
    """Says, by name, which files are slower than `float32`, and how much.

    Quantised files are not faster everywhere: it depends on the device, the operators and the size
    of the network. A difference within the range over rounds is not told.

    Args:
        files: files of one network by name, which ends with the name of the format.
    """
    own = {name: file for name, file in files.items() if not layout.is_compared(name)}
    plain = [f for n, f in own.items() if n.removesuffix(".tflite").endswith("float32")]
    if len(plain) != 1 or plain[0].latency is None:
        return {}
    whole = plain[0].latency
    return {
        name: f"{file.latency.median_ms / whole.median_ms:.1f} times as slow as float32 here"
        for name, file in own.items()
        if file.latency is not None
        and file.latency.min_ms > whole.max_ms
        and file.latency.median_ms > 1.05 * whole.median_ms
    }
