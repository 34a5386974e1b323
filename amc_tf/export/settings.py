"""The settings of an export."""

from __future__ import annotations

import dataclasses

from amc_tf.errors import AmcError, choices, number
from amc_tf.export.formats import FORMATS


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Settings for making and measuring files.

    Attributes:
        formats: names of `FORMATS`: float32; float16 (weights); dynamic (int8 weights); int8;
            int8_float_io (float inputs and outputs); int8_uint8_io (uint8 ones); int8_per_tensor
            (one scale for each kernel); int16x8 (int16 activations); int8_qat (after
            quantisation-aware training); float32_sparse, float16_sparse and int8_sparse (without
            the zero weights of fine-grained pruning, see `tflite_tools.sparse_weights`).
        keep_float: names of layers that stay float32 in the quantised files, except in int8_qat.
        tolerance: greatest amount by which a file's score may be worse than the Keras model's; a
            file that loses more is written, but marked. For a fraction, such as an accuracy, it is
            the difference itself; for any other metric, a share of the Keras model's score.
        labels: labels of the classes, stored in the file for each output of as many positions.
        mean: value that an app subtracts from raw values of image inputs, one for all channels or
            one for each; stored in the file.
        std: value that an app then divides by, likewise.
        calibration_samples: number of inputs for the ranges of integer activations.
        bias_samples: number of calibration inputs on which biases of the int8 formats are
            corrected, layer by layer (`tflite_tools.correct_biases`; a minute for a large
            network); 0 for no correction. Not for int16x8 and int8_qat.
        equalize: whether, for the formats with calibrated ranges, channels of activations are first
            brought to similar ranges (`amc_tf.equalize`), if that lowers the error of the outputs
            on calibration inputs.
        error_samples: number of held-out inputs on which outputs are compared with Keras'.
        score_samples: number of test samples that score a file; 0 for all.
        qat_epochs: number of epochs of quantisation-aware training, over the training data.
        qat_learning_rate: first learning rate of this training; 0 for a tenth of the compiled
            optimizer's.
        qat_distill: share of the loss of this training that follows the dense network in place of
            the labels; see `Distillation`.
        latency_rounds: number of fresh processes in which each file is timed; 0 for no timing.
        latency_runs: least number of timed inferences in each process.
        latency_min_secs: least time of these inferences, in seconds.
        num_threads: number of threads of the interpreter that is timed.
    """

    formats: tuple[str, ...] = ("float32", "int8")
    keep_float: tuple[str, ...] = ()
    tolerance: float = 0.01
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    calibration_samples: int = 200
    bias_samples: int = 64
    equalize: bool = True
    error_samples: int = 256
    score_samples: int = 0
    qat_epochs: int = 2
    qat_learning_rate: float = 0.0
    qat_distill: float = 0.0
    latency_rounds: int = 5
    latency_runs: int = 50
    latency_min_secs: float = 1.0
    num_threads: int = 1

    def __post_init__(self) -> None:
        choices("export format", self.formats, FORMATS)
        if not 0 <= number("qat_distill", self.qat_distill) <= 1:
            raise AmcError(f"expected a qat_distill in [0, 1], received {self.qat_distill!r}")
        if self.latency_rounds < 0:
            raise AmcError(f"latency_rounds must be 0 or more, received {self.latency_rounds!r}")
