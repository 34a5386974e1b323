"""Networks that are hard to quantise, with the rounding of quantisation-aware training."""

import hostile
import numpy as np
import pytest

import tflite_tools
from amc_tf.export.qat import training
from tflite_tools import flatbuffer
from tflite_tools.running import require_runs

# Rows of very different size are wrong in int8_qat; their layers are named as float.
CASES = [name for name in hostile.CASES if name not in ("quiet rows", "transformer")]


def _file(case):
    quantised = training.quantised(case.model)
    quantised.calibrate(list(case.inputs))
    quantised.settle(list(case.inputs))
    return tflite_tools.convert(quantised.model, "int8_trained")


@pytest.mark.parametrize("name", CASES)
def test_every_file_runs_and_is_near_keras(name):
    case = hostile.build(name)
    content = require_runs(_file(case))
    given = case.inputs if len(case.inputs) > 1 else case.inputs[0]
    received, expected = tflite_tools.LiteRtModel(content).predict(given), case.outputs[0]
    # Dense kernels have one scale for all filters here.
    assert np.abs(received - expected).max() <= 0.03 * np.ptp(expected)


def test_a_depthwise_kernel_has_a_scale_for_each_channel():
    content = _file(hostile.build("dead depthwise"))
    (kernel,) = [
        t
        for t in flatbuffer.read(content).subgraphs[0].tensors
        if t.shape is not None and list(t.shape) == [1, 3, 3, 8]
    ]
    assert len(np.unique(kernel.quantization.scale)) == 8
