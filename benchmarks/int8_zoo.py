"""Files of networks that are hard to quantise: what loads, where kernels agree, what stays float.

    python benchmarks/int8_zoo.py

The networks are in tests/helpers/hostile.py: dead layers, filters of zeros, channels of wildly
different range, constant inputs, quiet rows and the like. Each is converted into every format; the
file is loaded by LiteRT's default kernels (XNNPACK) and by its built-in ones, run by both on the
calibration samples, and compared with Keras. `agree`: at most two steps of the output's scale
between the kernels (for float outputs, of 1/255 of the outputs' span). `told`: files of integer
formats that are refused with a sentence, or keep operators float that `inspect_file` names.
"""

from __future__ import annotations

import sys

import numpy as np
from absl import app
from common import record

import tflite_tools
from amc_tf.export.formats import FORMATS
from amc_tf.export.qat import training
from tflite_tools.running import KERNELS

sys.path.append(str(record.HERE.parent / "tests/helpers"))
import hostile  # noqa: E402 - from tests/helpers

_STEPS = 255


def _content(case: hostile.Case, name: str) -> bytes:
    form = FORMATS[name]
    if form.trained:
        quantised = training.quantised(case.model)
        quantised.calibrate(list(case.inputs))
        return tflite_tools.convert(quantised.model, form.quantize)
    samples = case.samples if form.calibrated else None
    return tflite_tools.convert(case.model, form.quantize, samples, sparse=form.sparse)


def _row(case: hostile.Case, name: str, format_name: str) -> dict:
    row = {"case": name, "format": format_name}
    try:
        content = _content(case, format_name)
    except ValueError as error:
        return row | {"refused": str(error)}
    expected = case.outputs[0]
    span = float(np.ptp(expected))
    (first, scale), (second, _) = (hostile.run(content, case.samples, k) for k in KERNELS.values())
    operators = tflite_tools.inspect_file(content).float_operators
    integer = FORMATS[format_name].integer
    return row | {
        "kernels_differ_by_steps": float(np.abs(first - second).max() / (scale or span / _STEPS)),
        "error_of_span": float(np.abs(first - expected).max() / span),
        "float_operators": len(operators) if integer else 0,
    }


def main(argv):
    del argv
    rows = []
    for name in hostile.CASES:
        case = hostile.build(name)
        # Sparse files are of networks that have many zeros.
        rows += [_row(case, name, f) for f in FORMATS if not FORMATS[f].sparse]
    loaded = [r for r in rows if "refused" not in r]
    record.append(
        "int8_zoo",
        {
            "cases": len(rows),
            "loaded": len(loaded),
            "agree": sum(r["kernels_differ_by_steps"] < 2.5 for r in loaded),
            "told": sum("refused" in r or r["float_operators"] > 0 for r in rows),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    app.run(main)
