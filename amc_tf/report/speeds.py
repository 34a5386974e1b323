"""Files that are slower than the float32 file of the same network."""

from __future__ import annotations

from collections.abc import Mapping

from amc_tf.runs.result_parts import Exported


def slower_than_float(files: Mapping[str, Exported]) -> Mapping[str, str]:
    """Says, by name, which files are slower than `float32`, and how much.

    Quantised files are not faster everywhere: it depends on the device, the operators and the size
    of the network. A difference within the range over rounds is not told.

    Args:
        files: files of one network, by the names of their formats.
    """
    base = files.get("float32")
    if base is None or base.latency is None:
        return {}
    whole = base.latency
    return {
        name: f"{file.latency.median_ms / whole.median_ms:.1f} times as slow as float32 here"
        for name, file in files.items()
        if file.latency is not None
        and file.latency.min_ms > whole.max_ms
        and file.latency.median_ms > 1.05 * whole.median_ms
    }
