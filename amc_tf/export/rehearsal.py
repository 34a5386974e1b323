"""Whether a model can be converted in a format at all, found before hours are spent on it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import keras
import numpy as np

import tflite_tools
from amc_tf.errors import AmcError
from amc_tf.export.formats import FORMATS, Format
from amc_tf.export.settings import ExportSettings
from amc_tf.graph.flattening import flatten
from tflite_tools.apart import Attempt, FrozenModel

_MOST_SAMPLES = 8  # of calibration: enough to run every operator
# TensorFlow's operators that common layers use and LiteRT lacks, and what it has in their place.
_REMEDIES = {
    "ResizeBicubic": 'interpolation="bilinear"',
    "ScaleAndTranslate": 'interpolation="bilinear"',
    "Erf": "keras.activations.gelu, or a gelu by tanh (approximate=True)",
    "Atan": "a polynomial, or a small Dense",
}
_FLEX = ", or pass allow_flex=True for apps that link the Flex delegate"  # not offered here


@dataclasses.dataclass(frozen=True)
class Tried:
    """What came of a conversion that was tried.

    Attributes:
        format: name of the format.
        seconds: how long it took.
        error: what went wrong, in one sentence with the layer and a remedy; None if the file was
            made and LiteRT has run it.
    """

    format: str
    seconds: float
    error: str | None = None


def tried(
    model: keras.Model,
    inputs: Sequence[np.ndarray],
    format_name: str,
    settings: ExportSettings | None = None,
) -> Tried:
    """Converts a model once and runs the file, in a process of its own.

    Args:
        model: the Keras model; its widths do not matter, so the dense one tells of all others.
        inputs: one array (samples, ...) for each model input; a few samples.
        format_name: a name of `FORMATS`. `int8_qat` is converted without its training.
        settings: `keep_float` is read; with it, a quantised file is made in this process, by a
            quantizer that has not been seen to crash.
    """
    start = time.monotonic()
    settings = settings or ExportSettings()
    form = FORMATS[format_name]
    arrays = [a[:_MOST_SAMPLES].astype(t.dtype) for a, t in zip(inputs, model.inputs, strict=True)]
    try:
        if settings.keep_float and form.quantize and not form.trained:
            attempt = _here(model, form, arrays, settings)
        else:
            attempt = _apart(model, form, arrays)
    except (AmcError, ValueError, RuntimeError) as error:
        attempt = Attempt(0.0, error=str(error).strip().splitlines()[0])
    seconds = round(time.monotonic() - start, 2)
    if attempt.error is None:
        return Tried(format_name, seconds)
    return Tried(format_name, seconds, _told(model, format_name, attempt))


def _here(
    model: keras.Model, form: Format, arrays: list[np.ndarray], settings: ExportSettings
) -> Attempt:
    samples = _samples(arrays) if form.calibrated else None
    content = tflite_tools.convert(
        model, form.quantize, samples, keep_float=settings.keep_float, sparse=form.sparse
    )
    tflite_tools.LiteRtModel(content).predict(arrays if arrays[1:] else arrays[0])
    return Attempt(0.0, content)


def _apart(model: keras.Model, form: Format, arrays: list[np.ndarray]) -> Attempt:
    if form.trained:
        # Imported here, as it loads Keras 2 and TFMOT, which other formats do not need.
        from amc_tf.export.qat import training

        quantised = training.quantised(model)
        quantised.calibrate(arrays)
        quantised.settle(arrays)
        return FrozenModel.of(quantised.model).attempt(form.quantize, _samples(arrays))
    frozen = FrozenModel.of(model)
    samples = _samples(arrays)
    attempt = frozen.attempt(form.quantize, samples, sparse=form.sparse)
    if attempt.error is None or attempt.layers:
        return attempt
    return dataclasses.replace(attempt, layers=_first_failing(frozen, model, form, samples))


def _first_failing(
    frozen: FrozenModel, model: keras.Model, form: Format, samples: list[list[np.ndarray]]
) -> tuple[str, ...]:
    """Returns the layers without which, and without those behind them, the conversion succeeds.

    They are one layer, and the operations between it and the layer before: the frozen graph does
    not tell which of its nodes are of an operation that is no layer.
    """
    network = flatten(model, look_inside=False)
    scopes = frozen.scopes()
    order = [network.name(operation) for operation in network.operations()]
    ends = [i for i, name in enumerate(order) if name in scopes]

    def fails(count: int) -> bool:
        outputs = [scopes[order[end]][-1] for end in ends[:count]]
        attempt = frozen.attempt(form.quantize, samples, sparse=form.sparse, outputs=outputs)
        return attempt.error is not None

    if ends[-1:] != [len(order) - 1]:
        ends.append(len(order) - 1)  # operations at the end: the whole network, which fails
    passed, failed = 0, len(ends)
    while failed - passed > 1:
        middle = (passed + failed) // 2
        passed, failed = (passed, middle) if fails(middle) else (middle, failed)
    first = ends[passed - 1] + 1 if passed else 0
    return tuple(order[first : ends[failed - 1] + 1])


def _samples(arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
    return [[a[i : i + 1] for a in arrays] for i in range(len(arrays[0]))]


def _told(model: keras.Model, format_name: str, attempt: Attempt) -> str:
    network = flatten(model, look_inside=False)
    kinds = {network.name(part): type(part).__name__ for part in network.operations()}
    names = [f"{n!r} ({kinds[n]})" if n in kinds else repr(n) for n in attempt.layers]
    where = ""
    if names:
        where = f"layer {names[0]}" if len(names) == 1 else f"layers {', '.join(names)}"
    error = (attempt.error or "").rstrip(".").replace(_FLEX, "")
    error += "".join(f" ({kind}: {remedy})" for kind, remedy in _REMEDIES.items() if kind in error)
    if "died" in error or "cannot run" in error or "did not end" in error:
        error += "; replace the layer, leave the format out, or keep the layer float (keep_float)"
    return f"{format_name} export: {where}{': ' if where else ''}{error}"
