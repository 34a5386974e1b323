"""Quantisation-aware training: the network is trained with the rounding of its int8 file.

TensorFlow Model Optimization (TFMOT) trains Keras 2 models only, so the network is converted to
Keras 2 (`keras2.to_keras2`). TFMOT's quantizers and wrappers emulate the rounding. This module
decides where they go, as TFMOT's `quantize_model` knows few layers and refuses the rest. A call of
the network is quantised by a rule of its kind, or only at its output, or it stays float and is
named.

There is no rounding between a convolution or Dense layer and the batch norm and ReLU behind it, as
the converter folds these into the layer (Jacob et al., CVPR 2018, section 3.2).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.export.qat import layers
from amc_tf.graph.network import Call, Network
from amc_tf.graph.own_classes import own_steps
from amc_tf.keras2 import convert, network
from amc_tf.training.forms import batches_of
from amc_tf.training.optimizer_settings import OptimizerSettings
from amc_tf.training.task import Task
from tflite_tools.tracing import in_float32, signature_of

_SCHEDULE = keras.optimizers.schedules.LearningRateSchedule


@dataclasses.dataclass(frozen=True)
class QatSettings:
    """Settings for the default training of a quantised network.

    Attributes:
        epochs: number of epochs over the training data; 0 trains nothing and keeps the ranges of
            the calibration.
        learning_rate: first learning rate, which falls to 0 by a cosine; 0 for a tenth of the
            compiled optimizer's rate, as the network is trained already.
        seed: seed of the shuffling.
    """

    epochs: int = 2
    learning_rate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise AmcError(f"qat_epochs must be at least 0, received {self.epochs}")
        if self.learning_rate < 0:
            raise AmcError(f"qat_learning_rate must be at least 0, received {self.learning_rate}")


@dataclasses.dataclass(frozen=True, eq=False)
class QuantisedModel:
    """A network with emulated rounding.

    Attributes:
        model: a functional `tf_keras` model, which is trained, and then converted by
            `tflite_tools.convert(model, "int8_trained")`.
        float_layers: names of the calls that stay float, with the class of each.
        ranges: the state of the activations' quantizers.
    """

    model: Any
    float_layers: tuple[str, ...]
    ranges: layers.Ranges

    def calibrate(self, inputs: list[np.ndarray], batch_size: int = 32) -> None:
        """Sets the range of every activation to that of its values on `inputs`, without rounding.

        TFMOT begins with -6 to 6 and follows the values by a slow moving average. A short training
        would not bring it to the range of the values.
        """
        self.settle(inputs, batch_size)
        with self.ranges.observed():
            for start in range(0, len(inputs[0]), batch_size):
                self.model(self._packed([a[start : start + batch_size] for a in inputs]))
        self.ranges.open_dead()

    def settle(self, inputs: list[np.ndarray], batch_size: int = 32) -> None:
        """Makes the network ready for its conversion: sets the kernels' scales by their values.

        Each training step sets the scales before its update, so after the last step they are
        stale. Where all biases of a layer are the same number, one of them is changed by its last
        bit: the converter would quantise all of them by the scale of the first filter.
        """
        kept = [(w, w.numpy()) for w in self.model.non_trainable_weights if _is_statistic(w)]
        with self.ranges.ignored():
            self.model(self._packed([a[:batch_size] for a in inputs]), training=True)
        for weight, value in kept:
            weight.assign(value)
        for weight in self.model.trainable_weights:
            value = weight.numpy()
            if value.ndim == 1 and value.size > 1 and (value == value[0]).all() and value[0]:
                value[0] = np.nextafter(value[0], np.inf)
                weight.assign(value)

    def _packed(self, arrays: list[np.ndarray]) -> Any:
        tensors = [tf.constant(a, t.dtype) for a, t in zip(arrays, self.model.inputs, strict=True)]
        return tf.nest.pack_sequence_as(self.model._nested_inputs, tensors)


def _is_statistic(weight: Any) -> bool:
    return "moving_mean" in weight.name or "moving_variance" in weight.name


def quantised(model: keras.Model) -> QuantisedModel:
    """Rebuilds a network in Keras 2, with the rounding of int8 emulated.

    Args:
        model: a functional or Sequential Keras 3 model; it is not changed.

    Raises:
        AmcError: the model cannot be converted to Keras 2.
    """
    import tf_keras

    carried = convert.to_keras2(in_float32(model))
    source = network.flatten_keras_2(carried)
    placement = _Placement(source)
    ranges = layers.Ranges()
    made: dict[int, Any] = {}
    float_layers: list[str] = []

    def invoke(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        operation, name = call.operation, source.name(call.operation)
        if placement.calls[id(operation)] > 1:
            float_layers.append(f"{name} ({type(operation).__name__}, called more than once)")
            return operation(*args, **kwargs)
        wrapped = made.get(id(call))
        if wrapped is None:
            wrapped = made[id(call)] = layers.quantised_call(
                operation, name, args, kwargs, placement.is_followed(call), ranges
            )
        if wrapped is None:
            float_layers.append(f"{name} ({type(operation).__name__})")
            return operation(*args, **kwargs)
        return wrapped(args, kwargs)

    inputs = [
        tf_keras.Input(t.shape[1:], batch_size=t.shape[0], dtype=t.dtype, name=name)
        for t, name in zip(carried.inputs, carried.input_names, strict=True)
    ]
    entered = [
        layers.input_quantizer(f"{t.name.split(':')[0]}_rounding", ranges)(t)
        if t.dtype.is_floating
        else t
        for t in inputs
    ]
    outputs = source.run(entered, invoke)
    result = tf_keras.Model(
        tf.nest.pack_sequence_as(carried._nested_inputs, inputs),
        tf.nest.pack_sequence_as(carried._nested_outputs, outputs),
        name=model.name,
    )
    # Split layers, and rounding after a layer, must not change the names that the app sees.
    result.output_names = list(signature_of(model).output_names)
    return QuantisedModel(result, tuple(float_layers), ranges)


class _Placement:
    """The places without rounding, where the converter makes one operator of two calls."""

    def __init__(self, source: Network):
        self.calls = Counter(id(call.operation) for call in source.calls)
        self._source = source
        self._producer = {n: call for call in source.calls for n in call.outputs}

    def is_followed(self, call: Call) -> bool:
        """Tells whether a call's output has one reader only, and the converter fuses the two."""
        if len(call.outputs) != 1 or call.outputs[0] in self._source.outputs:
            return False
        readers = self._source.readers(call.outputs[0])
        if len(readers) != 1 or self.calls[id(readers[0].operation)] > 1:
            return False
        return layers.is_fused(self._kinds(call), readers[0].operation)

    def _kinds(self, call: Call) -> list[Any]:
        """Returns a call's operation, and that of its only producer if there is just one."""
        before = [self._producer[n] for n in call.inputs if n in self._producer]
        return [call.operation, *(b.operation for b in before if len(before) == 1)]


def train_quantised(
    trained: keras.Model, quantised_model: QuantisedModel, task: Task, settings: QatSettings
) -> None:
    """Trains a quantised network in place.

    If the user gives a `Task.qat`, it gets the tf_keras model. Otherwise the loss on `task.train`
    is computed by `compute_loss` of the compiled Keras 3 model, and a new optimizer is made from
    the configuration of the compiled one. Augmentation that the user's `fit` adds to the data does
    not take part.

    Args:
        trained: the compiled Keras 3 model that `quantised_model` was made from.
        quantised_model: the quantised network, calibrated.
        task: the data.
        settings: see `QatSettings`.

    Raises:
        AmcError: the model's class has a training step of its own, or the loss becomes NaN.
    """
    own = getattr(task, "qat", None)
    if own is not None:
        own(quantised_model.model)
        return
    if settings.epochs == 0:
        return
    for step in own_steps(trained):
        if step in ("fit", "make_train_function", "train_step"):
            raise AmcError(
                f"{type(trained).__name__} has a {step} of its own, but int8_qat trains a Keras 2 "
                "model by the compiled loss; give Task(qat=...), or leave the format out"
            )
    data = _batches(task, settings.seed)
    steps = settings.epochs * max(1, int(data.cardinality())) if data.cardinality() > 0 else None
    step = _train_step(trained, quantised_model.model, _optimizer(trained, settings, steps))
    for epoch in range(settings.epochs):
        loss = None
        for batch in data:
            loss = step(*batch)
        if loss is None or not np.isfinite(float(loss)):
            raise AmcError(
                f"quantisation-aware training failed in epoch {epoch + 1}: the loss is "
                f"{'absent, as there are no batches' if loss is None else float(loss)}; lower "
                "config.export.qat_learning_rate or give Task(qat=...)"
            )


def _train_step(
    trained: keras.Model, model: Any, optimizer: keras.optimizers.Optimizer
) -> Callable[..., tf.Tensor]:
    weights = model.trainable_weights
    optimizer.build(weights)

    @tf.function
    def step(x, y, sample_weight=None):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = trained.compute_loss(x, y, outputs, sample_weight, training=True)
            loss += tf.add_n(model.losses) if model.losses else 0.0
        gradients = tape.gradient(loss, weights)
        pairs = [(g, w) for g, w in zip(gradients, weights, strict=True) if g is not None]
        optimizer.apply([g for g, _ in pairs], [w for _, w in pairs])
        return loss

    return step


def _optimizer(
    trained: keras.Model, settings: QatSettings, steps: int | None
) -> keras.optimizers.Optimizer:
    made = OptimizerSettings.of(trained.optimizer, trained)
    made = made.inner or made  # the quantised network computes in float32
    compiled = made.config["learning_rate"]
    first = float(compiled(0) if isinstance(compiled, _SCHEDULE) else compiled)
    rate = settings.learning_rate or 0.1 * first
    schedule = rate if steps is None else keras.optimizers.schedules.CosineDecay(rate, steps)
    made = dataclasses.replace(made, config={**made.config, "learning_rate": schedule})
    return made.make(trained)


def _batches(task: Task, seed: int) -> tf.data.Dataset:
    data = task.training_data
    if isinstance(data, tf.data.Dataset):
        return data
    return batches_of("train", data, task.batch_size).dataset(np.random.default_rng(seed))
