"""The result that benchmark_model writes as a protocol buffer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from tflite_tools.benchmark_result import BenchmarkResult, require_sound
from tflite_tools.errors import DeviceError


def read_result_proto(data: bytes) -> BenchmarkResult:
    """Reads the file of results that benchmark_model writes.

    Its flag ``--result_file_path`` names the file. The message is
    ``tflite.tools.benchmark.BenchmarkResult`` (proto2, ``benchmark_result.proto``).
    Its fields are written in the order of their numbers, and the number of runs is in the last
    part. So a file that was cut off is noticed.

    Args:
        data: The file's contents.

    Returns:
        The result.

    Raises:
        DeviceError: If the file is incomplete or damaged.
    """
    try:
        parts = {number: dict(_fields(part)) for number, part in _fields(data)}
        latency, memory, misc = parts[2], parts.get(3, {}), parts[4]
        numbers = {name: float(latency[n]) for n, name in _LATENCY_FIELDS.items() if n in latency}
        result = BenchmarkResult(
            runs=int(misc[2]),
            warmup_runs=int(misc[3]) if 3 in misc else None,
            peak_memory_mb=float(memory[3]) if 3 in memory else None,
            **numbers,
        )
        ordered = [result.min_ms, result.p5_ms, result.median_ms, result.p95_ms, result.max_ms]
        require_sound(result.runs, result.average_ms, [v for v in ordered if v is not None])
    except (KeyError, IndexError, TypeError, ValueError, struct.error) as error:
        raise DeviceError(
            f"the result file of benchmark_model ({len(data)} bytes) is incomplete or damaged "
            f"({type(error).__name__}: {error})",
            "Repeat the measurement; if it fails again, look for a full disk on the device.",
            transient=True,
        ) from None
    return result


_LATENCY_FIELDS = {
    1: "average_ms",
    2: "min_ms",
    3: "max_ms",
    4: "std_ms",
    5: "median_ms",
    6: "p5_ms",
    7: "p95_ms",
    8: "init_ms",
    9: "first_ms",
    10: "warmup_ms",
}


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Yields number and value of each field of a protobuf message, by its wire type.

    https://protobuf.dev/programming-guides/encoding/
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire_type in (1, 5):
            code = "<d" if wire_type == 1 else "<f"
            yield number, struct.unpack_from(code, data, position)[0]
            position += struct.calcsize(code)
        elif wire_type == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a part is cut off")
            yield number, data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire_type}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
        if shift > 63:
            raise ValueError("a number is too long")
