"""Training a pruned network towards the dense network, on images without labels."""

from __future__ import annotations

import dataclasses
import logging
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.features import with_features
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.refit.runner import Images
from amc_tf.pruning.weights import numpy_of
from amc_tf.recovery.errors import of_outputs, relative
from amc_tf.recovery.imitation import features, teacher
from amc_tf.recovery.progress import Progress
from amc_tf.recovery.settings import RecoverySettings
from amc_tf.recovery.views import steps_of, views
from amc_tf.training.data import evenly_spaced
from amc_tf.training.divergence import Divergence, divergence

_LOG = logging.getLogger(__name__)

# Share of the steps in which the learning rate rises.
_WARM_UP = 20
# Share of the epochs without an improvement after which the rest is left out.
_PATIENCE = 0.4
# Share of a feature's mean square that counts as variance.
_LEAST_VARIANCE = 1e-3
# Images of a forward pass that is not trained on.
_AT_ONCE = 64

Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Recovered:
    """What a recovery did.

    Attributes:
        images: number of images that were trained on.
        held_out: number of others, on which the errors are measured.
        measure: what the errors are.
        before: how far the outputs were from the dense network's before.
        after: how far they are now; not more than before.
        epochs: number of epochs.
        kept: epoch whose weights are kept; 0 if none was better than those of before.
    """

    images: int
    held_out: int
    measure: str
    before: float
    after: float
    epochs: int
    kept: int


def recover(
    pruned: keras.Model,
    graph: ChannelGraph,
    plan: PruningPlan,
    images: Arrays,
    held_out: Arrays,
    compiled: keras.Model,
    settings: RecoverySettings | None = None,
    backup: pathlib.Path | None = None,
    of: str = "",
) -> Recovered:
    """Trains a pruned network in place to give what the dense network gives.

    The weights that are kept are those whose outputs are nearest the dense network's on the images
    held out, or the first ones.

    Args:
        pruned: the pruned network, made by `rebuild`.
        graph: the analysed dense model.
        plan: the plan of the pruned network.
        images: one array (images, ...) for each input; unlabelled.
        held_out: others, likewise. They must be new to the pruned network: on images that a refit
            has seen, it is several times nearer to the dense one than on others.
        compiled: a model compiled as the dense one is, whose losses say what outputs hold, and so
            how far they are from the dense network's.
        settings: see `RecoverySettings`.
        backup: file of the progress, from which an interrupted call goes on; None for none.
        of: what tells this recovery from others that may have left the file.

    Returns:
        What it did.

    Raises:
        AmcError: the outputs are not finite.
    """
    settings = settings or RecoverySettings()
    measure = divergence(compiled)
    dtypes = [tensor.dtype for tensor in graph.network.model.inputs]
    used, held = Images(images, dtypes), Images(held_out, dtypes)
    size = min(settings.batch_size, len(used))
    steps = steps_of(used, size)
    epochs = math.ceil(settings.views / (steps * size))
    training = _Training(pruned, graph, plan, used, held, measure, settings, epochs * steps)
    progress = None if backup is None else Progress.load(backup, of)
    if progress is None:
        progress = training.start()
        if not math.isfinite(progress.errors[0]):
            raise AmcError(
                f"the {measure.name} of the outputs on the images held out is "
                f"{progress.errors[0]} before the recovery; mend the inputs or the network, or use "
                "RecoverySettings(when='never')"
            )
    else:
        training.go_on(progress)
    with story.bar(epochs, "recovery", "epoch", progress.epoch, _told(progress)) as bar:
        while not _ended(progress, epochs):
            drawn = views(used, size, settings.seed, progress.epoch, settings.distort)
            progress = training.epoch(progress, drawn)
            bar.update()
            bar.set_postfix_str(_told(progress))
            if backup is not None:
                progress.save(backup, of)
    if not math.isfinite(progress.errors[-1]):
        _LOG.warning(
            "the recovery diverged in epoch %s and ended there; lower RecoverySettings(rate=%s)",
            progress.epoch,
            settings.rate,
        )
    training.put(progress.best)
    errors, kept = progress.errors, progress.kept
    return Recovered(
        len(used), len(held), measure.name, errors[0], errors[kept], progress.epoch, kept
    )


def _ended(progress: Progress, epochs: int) -> bool:
    """Returns whether all epochs are done, training diverged, or it gains nothing any more."""
    idle = progress.epoch - progress.kept
    return (
        progress.epoch >= epochs
        or not math.isfinite(progress.errors[-1])
        or idle > epochs * _PATIENCE
    )


def _told(progress: Progress) -> str:
    best = progress.errors[progress.kept]
    return f"error on held-out images {best:.4g} of {progress.errors[0]:.4g}"


def _values(
    teach: Callable[..., list[tf.Tensor]], images: Images, which: slice
) -> list[np.ndarray]:
    """Returns some of what a teacher gives for images, one array (images, ...) for each value."""
    parts = [[value.numpy() for value in teach(x)[which]] for x in _in_parts(images)]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def _in_parts(images: Images) -> Iterator[list[np.ndarray]]:
    for first in range(0, len(images), _AT_ONCE):
        yield images.part(slice(first, first + _AT_ONCE))


def _sizes(weight: keras.Variable) -> np.ndarray:
    """Returns the root mean square of a kernel's weights to each output, of others of all."""
    value = numpy_of(weight).astype(np.float64)
    axes = tuple(range(value.ndim - 1)) if value.ndim > 1 else None
    if weight.name == "depthwise_kernel":  # (..., channels, multiplier)
        axes = tuple(range(value.ndim - 2))
    size = np.sqrt(np.square(value).mean(axis=axes, keepdims=True))
    return np.maximum(size, 1e-3 * size.mean() + 1e-12).astype(np.float32)


class _Training:
    """The networks, the errors and the optimizer of a recovery."""

    def __init__(
        self,
        pruned: keras.Model,
        graph: ChannelGraph,
        plan: PruningPlan,
        images: Images,
        held: Images,
        measure: Divergence,
        settings: RecoverySettings,
        steps: int,
    ):
        wanted = features(graph, plan) if settings.features else []
        self._held = held
        self._average = settings.average
        self._teach = teacher(graph, wanted)
        self._outputs = len(graph.network.outputs)
        self._student = with_features(pruned, wanted)
        # The features of all images would fill gigabytes.
        few = images.at(evenly_spaced(len(images), _AT_ONCE))
        of_few = _values(self._teach, few, slice(self._outputs, None))
        of_all = _values(self._teach, images, slice(self._outputs))
        of_features = [relative(values, _LEAST_VARIANCE) for values in of_few]
        self._errors = [*of_outputs(measure, of_all), *of_features]
        self._weights = self._student.trainable_variables
        warm = max(1, steps // _WARM_UP)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warm), warmup_target=settings.rate, warmup_steps=warm
        )
        self._optimizer = keras.optimizers.Adam(schedule)
        # Trained in place of the weights, so that a step changes all of them by the same share:
        # with batch norms folded, the kernels of channels differ in size by powers of ten.
        self._sizes = [_sizes(weight) for weight in self._weights]
        self._trained = [
            keras.Variable(value / size, trainable=True, dtype="float32")
            for value, size in zip(self._now(), self._sizes, strict=True)
        ]
        self._optimizer.build(self._trained)
        self._step = tf.function(self._stepped(settings.features))
        self._judge = tf.function(lambda x, y: self._error(x, y)[0])

    def _error(self, x: Sequence[Any], dense: Sequence[Any]) -> tuple[Any, Any]:
        """Returns the errors of the outputs and of the features, in inference mode.

        Batch norms keep their statistics: those of few images would be noise.
        """
        found = keras.tree.flatten(self._student(list(x), training=False))
        each = [e(d, f) for e, d, f in zip(self._errors, dense, found, strict=True)]
        of_features = each[self._outputs :]
        rest = tf.add_n(of_features) / len(of_features) if of_features else 0.0
        return tf.add_n(each[: self._outputs]), rest

    def _stepped(self, share: float) -> Callable[..., None]:
        def step(x: Sequence[Any], dense: Sequence[Any]) -> None:
            with tf.GradientTape() as tape:
                of_outputs, of_features = self._error(x, dense)
                loss = of_outputs + share * of_features
            gradients = tape.gradient(loss, self._weights)
            parts = zip(gradients, self._weights, self._trained, self._sizes, strict=True)
            known = [part for part in parts if part[0] is not None]
            # A gradient of an embedding has rows only for what was looked up.
            scaled = [tf.convert_to_tensor(gradient) * size for gradient, _, _, size in known]
            self._optimizer.apply(scaled, [trained for _, _, trained, _ in known])
            for _, weight, trained, size in known:
                weight.assign(trained * size)

        return step

    def _held_error(self) -> float:
        total = 0.0
        for x in _in_parts(self._held):
            total += float(self._judge(tuple(x), tuple(self._teach(x)))) * len(x[0])
        return total / len(self._held)

    def _now(self) -> list[np.ndarray]:
        return [numpy_of(weight) for weight in self._weights]

    def put(self, values: Arrays) -> None:
        """Sets the weights of the pruned network."""
        every = zip(self._weights, self._trained, self._sizes, values, strict=True)
        for weight, trained, size, value in every:
            weight.assign(value)
            trained.assign(value / size)

    def start(self) -> Progress:
        """Returns the state before the first epoch."""
        first = self._now()
        optimizer = [numpy_of(variable) for variable in self._optimizer.variables]
        return Progress(0, (self._held_error(),), 0, first, first, first, optimizer)

    def go_on(self, progress: Progress) -> None:
        """Sets the optimizer as it was; `epoch` sets the weights."""
        for variable, value in zip(self._optimizer.variables, progress.optimizer, strict=True):
            variable.assign(value)

    def epoch(self, progress: Progress, batches: Iterable[list[np.ndarray]]) -> Progress:
        """Trains for one epoch and returns the state after it."""
        self.put(progress.trained)
        average = progress.average
        for x, dense in self._taught(batches):
            self._step(tuple(x), tuple(dense))
            now = zip(average, self._now(), strict=True)
            average = [self._average * a + (1 - self._average) * w for a, w in now]
        trained = self._now()
        self.put(average)
        errors = (*progress.errors, self._held_error())
        better = errors[-1] < errors[progress.kept]
        return Progress(
            progress.epoch + 1,
            errors,
            progress.epoch + 1 if better else progress.kept,
            trained,
            average,
            average if better else progress.best,
            [numpy_of(variable) for variable in self._optimizer.variables],
        )

    def _taught(self, batches: Iterable[list[np.ndarray]]) -> Iterator[tuple[list, list]]:
        """Yields batches and what the dense network gives for them, made one ahead."""
        left = iter(batches)

        def following() -> tuple[list, list] | None:
            x = next(left, None)
            return None if x is None else (x, self._teach(x))

        with ThreadPoolExecutor(1) as ahead:
            made = ahead.submit(following)
            while (batch := made.result()) is not None:
                made = ahead.submit(following)
                yield batch
