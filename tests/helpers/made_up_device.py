"""A device whose times are made up, so that the exact predicted latency is known.

A convolution works on 16 output channels at once; in a network of several operators it takes
`SLOWER` times as long as alone. Everything else takes a nanosecond for each element it writes.
"""

from __future__ import annotations

import math

from amc_tf.latency import operators
from tflite_tools import DeviceError, Latency

CALL_MS = 0.001
SLOWER = 1.25


def operator_ms(operator, tensors):
    """Computes the milliseconds of one operator alone."""
    out = tensors[operator["outputs"][0]]["shape"]
    if operator["code"] == "CONV_2D":
        kernel = tensors[operator["inputs"][1]]["shape"]
        tiles = math.ceil(kernel[0] / 16)
        return 1e-5 * out[1] * out[2] * tiles * (16 + math.prod(kernel[1:]))
    return 1e-6 * math.prod(out)


def network_ms(described):
    """Computes the milliseconds of operators that run one after another."""
    alone = len(described["operators"]) <= 2
    total = CALL_MS
    for operator in described["operators"]:
        if operator["code"] == "RELU" and len(described["operators"]) == 1:
            continue  # the empty model
        factor = SLOWER if operator["code"] == "CONV_2D" and not alone else 1.0
        total += factor * operator_ms(operator, described["tensors"])
    return total


class MadeUpDevice:
    """A device that computes the times of files from their operators.

    Args:
        fail_after: number of models after which the device is lost; None for never.
        drift: factor on all times, including the reference model's.
        whole: further factor on networks of several operators.

    Attributes:
        pruned: factor on the files of a call that are not named `dense`.
    """

    def __init__(self, fail_after=None, drift=1.0, whole=1.0, name="made up"):
        self.fail_after = fail_after
        self.drift = drift
        self.whole = whole
        self.name = name
        self.timed = []
        self.pruned = 1.0

    def measure_all(self, models, progress=None):
        results = {}
        for name, content in models.items():
            if self.fail_after is not None and len(self.timed) >= self.fail_after:
                raise DeviceError("the phone was unplugged", "Plug it in.")
            described = operators.read(content)
            self.timed.append(operators.text_of(described))
            ms = network_ms(described) * self.drift
            ms *= self.pruned if name != "dense" else 1.0
            ms *= self.whole if len(described["operators"]) > 2 else 1.0
            conditions = {"phone": self.name, "reference_ms": 0.5 * self.drift, "temperature_c": 30}
            results[name] = Latency((ms, ms, ms), 3, None, conditions)
        return results
