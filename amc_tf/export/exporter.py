"""TFLite files of a model, each run on held-out data before it is called done."""

from __future__ import annotations

import dataclasses
import functools
import logging
import pathlib

import keras
import numpy as np

import tflite_tools
from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.export.formats import BIAS_CORRECTED, FORMATS, Format
from amc_tf.export.litert_model import as_keras
from amc_tf.export.settings import ExportSettings
from amc_tf.graph.keras_structure import nesting, pack, uncompiled
from amc_tf.pruning.equalization import equalize
from amc_tf.runs.result_parts import Exported
from amc_tf.training.data import evenly_spaced
from amc_tf.training.distillation import Distillation, distilled
from amc_tf.training.labels import LabelRule, label_rules
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task

_FEW = 32  # calibration inputs on which networks of the same function are compared
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class _Made:
    """A file.

    Attributes:
        content: its bytes.
        reference: the float32 file whose tensors it has.
        float_layers: layers of quantisation-aware training that stayed float.
    """

    content: bytes
    reference: bytes
    float_layers: tuple[str, ...] = ()


class Exporter:
    """A writer of the files of one model; shared work is done once for all files.

    Args:
        model: the Keras model.
        dense: the dense model that `model` was made from, for its compile settings.
        task: data of the model; the training data calibrate, the test data check.
        settings: see `ExportSettings`.
    """

    def __init__(
        self, model: keras.Model, dense: keras.Model, task: Task, settings: ExportSettings
    ):
        self.model = model
        self._dense = dense
        self._task = task
        self._settings = settings
        count = settings.score_samples  # 0: all
        self._test = task.sample(task.test_data, count) if count else task.test_data

    @property
    def metric(self) -> Metric:
        """What the scores are."""
        return self._reference[1]

    @property
    def score(self) -> float:
        """Score of the Keras model on the data that score the files."""
        return self._reference[0]

    @functools.cached_property
    def _reference(self) -> tuple[float, Metric, list[LabelRule]]:
        model = uncompiled(self.model)
        score = self._score(model)
        return score, self._task.metric_of(model), label_rules(model, len(model.outputs))

    @functools.cached_property
    def _calibration(self) -> list[np.ndarray]:
        count = self._settings.calibration_samples
        arrays = self._task.calibration_inputs(self.model)
        for array in arrays:
            if array.dtype.kind in "OSUcMm":
                raise ValueError(
                    f"calibration inputs must be numbers, received an array of {array.dtype}"
                )
        chosen = evenly_spaced(len(arrays[0]), count)
        found = []
        for array, tensor in zip(arrays, self.model.inputs, strict=True):
            values = array[chosen].astype(tensor.dtype)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                bad = chosen[~np.isfinite(values.reshape(len(values), -1)).all(axis=1)][0]
                raise ValueError(
                    f"sample {bad} of the calibration inputs {tensor.name!r} holds values that "
                    "are not finite; clean them, or give others (Task(calibration=...))"
                )
            found.append(values)
        return found

    @functools.cached_property
    def _checked(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Held-out inputs, and Keras' outputs on them."""
        inputs = self._task.sample_inputs(
            self._task.test_data, self.model, self._settings.error_samples
        )
        given = pack(nesting(self.model, "inputs"), inputs)
        return inputs, keras.tree.flatten(self.model.predict(given, verbose=0))

    @functools.cached_property
    def _float32(self) -> bytes:
        return tflite_tools.convert(self.model)

    def write(self, format_name: str, path: pathlib.Path) -> Exported:
        """Converts the model, checks the file with LiteRT, and writes it.

        Args:
            format_name: a name of `FORMATS`.
            path: path of the file; nothing is written there if the file cannot be made.

        Returns:
            The measurements of the file.

        Raises:
            AmcError: the converter refuses the model, LiteRT cannot run the file, or the file
                cannot be written.
        """
        check_writable(path)
        try:
            made = self._content(format_name)
            content = tflite_tools.attach(made.content, self._metadata(format_name, made.content))
            exported = self._measured(format_name, dataclasses.replace(made, content=content))
        except ValueError as error:
            raise AmcError(f"{format_name} export: {error}") from error
        except RuntimeError as error:
            # LiteRT runs each operator with a kernel, which may lack a number format.
            raise AmcError(
                f"{format_name} export: LiteRT cannot run the file: "
                f"{str(error).strip().splitlines()[0]}; choose another format, or keep the layer "
                "float (keep_float)"
            ) from error
        files.write_atomically(path, content)
        return exported

    def _content(self, format_name: str) -> _Made:
        form = FORMATS[format_name]
        if form == Format():
            return _Made(self._float32, self._float32)
        if form.trained:
            return self._trained_int8(form)
        kept = self._settings.keep_float if form.quantize else ()
        if not form.calibrated:
            content = tflite_tools.convert(
                self.model, form.quantize, keep_float=kept, sparse=form.sparse
            )
            return _Made(content, self._float32)
        samples = self._samples

        def converted(model: keras.Model) -> bytes:
            return tflite_tools.convert(
                model, form.quantize, samples, keep_float=kept, sparse=form.sparse
            )

        best = _Made(converted(self.model), self._float32)
        if self._balanced is not None:
            model, plain = self._balanced
            best = min(best, _Made(converted(model), plain), key=self._calibration_error)
        if self._settings.bias_samples and form.quantize in BIAS_CORRECTED:
            chosen = evenly_spaced(len(samples), self._settings.bias_samples)
            few = [samples[i] for i in chosen]
            corrected = tflite_tools.correct_biases(best.content, best.reference, few)
            best = dataclasses.replace(best, content=corrected)
        return best

    @functools.cached_property
    def _samples(self) -> list[list[np.ndarray]]:
        arrays = self._calibration
        return [[a[i : i + 1] for a in arrays] for i in range(len(arrays[0]))]

    @functools.cached_property
    def _balanced(self) -> tuple[keras.Model, bytes] | None:
        """A model that computes the same by weights of other ranges, and its float file."""
        if not self._settings.equalize:
            return None
        few = [a[evenly_spaced(len(a), _FEW)] for a in self._calibration]
        try:
            balanced = equalize(self.model, few)
        except AmcError as error:
            _LOG.warning("the channels are not equalised: %s", error)
            return None
        return None if balanced is self.model else (balanced, tflite_tools.convert(balanced))

    def _calibration_error(self, made: _Made) -> float:
        """Returns the mean squared error of a file's outputs on calibration inputs."""
        few = [a[evenly_spaced(len(a), _FEW)] for a in self._calibration]
        given = few if few[1:] else few[0]
        wanted, received = (
            keras.tree.flatten(tflite_tools.LiteRtModel(content).predict(given))
            for content in (made.reference, made.content)
        )
        errors = [tflite_tools.compare_output(*pair) for pair in zip(wanted, received, strict=True)]
        return sum((e.rms / (e.span or 1.0)) ** 2 for e in errors)

    def _trained_int8(self, form: Format) -> _Made:
        # Imported here, as it loads Keras 2 and TFMOT, which other formats do not need.
        from amc_tf.export.qat import training

        settings = training.QatSettings(self._settings.qat_epochs, self._settings.qat_learning_rate)
        trained = self._task.compiled(uncompiled(self.model), self._dense)
        quantised = training.quantised(self.model)
        quantised.calibrate(self._calibration)
        # The step of this training computes its loss by the Keras 3 model.
        followed = Distillation(self._settings.qat_distill if settings.epochs else 0.0)
        with distilled(trained, self._dense, followed, self._calibration):
            training.train_quantised(trained, quantised, self._task, settings)
        quantised.settle(self._calibration)
        content = tflite_tools.convert(quantised.model, form.quantize)
        return _Made(content, self._float32, quantised.float_layers)

    def _metadata(self, format_name: str, content: bytes) -> tflite_tools.Metadata:
        settings = self._settings
        signature = tflite_tools.LiteRtModel(content).signature
        outputs = zip(signature.outputs, self.model.outputs, strict=True)
        labels = {n: settings.labels for n, t in outputs if t.shape[-1] == len(settings.labels)}
        if settings.labels and not labels:
            raise ValueError(
                f"{len(settings.labels)} labels were given, but the outputs have "
                f"{', '.join(str(t.shape[-1]) for t in self.model.outputs)} classes"
            )
        normalization, stats = {}, {}
        # Floats need no calibration, and are written whatever it holds.
        calibrated = FORMATS[format_name].calibrated or FORMATS[format_name].trained
        arrays = self._calibration if calibrated else self._checked[0]
        ends = zip(signature.inputs, self.model.inputs, arrays, strict=True)
        for name, tensor, values in ends:
            if len(tensor.shape) == 4:
                normalization[name] = tflite_tools.Normalization(settings.mean, settings.std)
            if values.dtype.kind == "f" and len(values):
                stats[name] = (float(values.min()), float(values.max()))
        description = f"TFLite {format_name} of the Keras model {self.model.name}"
        return tflite_tools.Metadata(self.model.name, description, labels, normalization, stats)

    def _measured(self, format_name: str, made: _Made) -> Exported:
        content = made.content
        interpreter = tflite_tools.LiteRtModel(content)
        inputs, expected = self._checked
        received = keras.tree.flatten(interpreter.predict(inputs if inputs[1:] else inputs[0]))
        errors = {}
        for name, rule, *pair in zip(
            interpreter.signature.outputs, self._reference[2], expected, received, strict=True
        ):
            error = tflite_tools.compare_output(*pair)
            # The largest of several values means something where they stand for classes.
            if not rule.may_be_classes:
                error = dataclasses.replace(error, agreement=None)
            errors[name] = error
        agreements = [e.agreement for e in errors.values() if e.agreement is not None]
        score = self._score(as_keras(content, self.model))
        lost = self.metric.gain(self.score) - self.metric.gain(score)
        within = lost <= self._settings.tolerance * self.metric.unit(self.score)
        found = tflite_tools.inspect_file(content)
        worst = {}
        if not within and FORMATS[format_name].quantize and not FORMATS[format_name].trained:
            few = [[a[i : i + 1] for a in inputs] for i in range(min(8, len(inputs[0])))]
            found_worst = tflite_tools.worst_tensors(content, made.reference, few)
            worst = {e.name: e.channel_rms for e in found_worst}
        integer = FORMATS[format_name].integer
        return Exported(
            score=score,
            bytes=len(content),
            max_abs_error=max(e.max_abs for e in errors.values()),
            agreement=min(agreements, default=None),
            outputs=errors,
            float_operators=tuple(map(str, found.float_operators)) if integer else (),
            flex_operators=tuple(map(str, found.flex_operators)),
            float_layers=made.float_layers,
            sparse_weights={w.name: w.density for w in tflite_tools.sparse_weights(content)},
            within_tolerance=within,
            worst_tensors=worst,
        )

    def _score(self, model: keras.Model) -> float:
        return self._task.score(self._task.compiled(model, self._dense), self._test)


def export_tflite(
    model: keras.Model,
    dense: keras.Model,
    task: Task,
    format_name: str,
    path: pathlib.Path,
    settings: ExportSettings | None = None,
) -> Exported:
    """Writes one file: `Exporter(model, dense, task, settings).write(format_name, path)`."""
    return Exporter(model, dense, task, settings or ExportSettings()).write(format_name, path)


def check_writable(path: pathlib.Path) -> None:
    """Refuses, before any work, a path that cannot be written.

    Raises:
        AmcError: the folder does not exist or cannot be written to, or `path` is a folder.
    """
    if path.is_dir():
        raise AmcError(f"{path} is a folder; give the name of a file")
    probe = path.with_name(f".{path.name}.probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AmcError(f"{path} cannot be written: {error.strerror}") from None
