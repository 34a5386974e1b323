"""What an export makes."""

from __future__ import annotations

import dataclasses

from amc_tf.errors import choices
from amc_tf.export.formats import FORMATS


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """How files are made and measured.

    Attributes:
        formats: names of `FORMATS`: float32; float16 (weights); dynamic (int8 weights); int8;
            int8_float_io (float inputs and outputs); int16x8 (int16 activations); int8_qat (after
            quantisation-aware training); float32_sparse, float16_sparse and int8_sparse (weights
            made zero by fine-grained pruning left out, see `tflite_tools.sparse_weights`).
        keep_float: layers that stay float32 in the quantised files, but for int8_qat.
        tolerance: how much a file's accuracy may be below the Keras model's; a file beyond it is
            written, but marked.
        labels: of the classes, to be put into the file; each output of as many positions gets them.
        mean: what is taken from raw values of image inputs before they are given to the model, one
            value or one for each channel; put into the file for apps.
        std: what they are then divided by.
        calibration_samples: inputs for the ranges of integer activations.
        bias_samples: calibration inputs on which biases of the int8 formats are corrected, layer by
            layer (`tflite_tools.correct_biases`; a minute for a large network); 0 for none. Not
            for int16x8 and int8_qat.
        error_samples: held-out inputs on which outputs are compared with Keras'.
        score_samples: how many test samples score a file; 0 for all.
        qat_epochs: of quantisation-aware training, over the training data.
        qat_learning_rate: at its start; 0 for a tenth of the compiled optimizer's.
        latency_rounds: fresh processes in which each file is timed.
        latency_runs: least timed inferences in each.
        latency_min_secs: least seconds of them.
        num_threads: of the interpreter that is timed.
    """

    formats: tuple[str, ...] = ("float32", "int8")
    keep_float: tuple[str, ...] = ()
    tolerance: float = 0.01
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    calibration_samples: int = 200
    bias_samples: int = 64
    error_samples: int = 256
    score_samples: int = 0
    qat_epochs: int = 2
    qat_learning_rate: float = 0.0
    latency_rounds: int = 5
    latency_runs: int = 50
    latency_min_secs: float = 1.0
    num_threads: int = 1

    def __post_init__(self) -> None:
        choices("export format", self.formats, FORMATS)
