"""Fine-tuning pruned models with the user's training code."""

from __future__ import annotations

import dataclasses
import logging

import keras

from amc_tf.errors import AmcError, choice
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)
_KEEP = ("better", "last")


@dataclasses.dataclass(frozen=True)
class FineTuneSettings:
    """Which networks are fine-tuned, and with which seed.

    Attributes:
        compare: policies whose networks are fine-tuned like the chosen one, so
            that the final table shows what the search gained after fine-tuning.
        seed: seed that is set before each fine-tuning.
        keep: `better`: of the network before and after fine-tuning, the one that scores better
            on the validation data is kept; `last`: the one after it, whatever it scores.
    """

    compare: tuple[str, ...] = ()
    seed: int = 0
    keep: str = "better"

    def __post_init__(self) -> None:
        choice("keep", self.keep, _KEEP)


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning did.

    Attributes:
        undone: whether the network from before fine-tuning was kept.
        before: score before fine-tuning, on the validation data; None if it was done earlier.
        after: score after it, on the same data, likewise.
    """

    undone: bool
    before: float | None = None
    after: float | None = None


def fine_tune(
    model: keras.Model,
    dense: keras.Model,
    task: Task,
    settings: FineTuneSettings | None = None,
    metric: Metric | None = None,
) -> FineTuned:
    """Trains a pruned model in place with the user's compile and fit.

    Args:
        model: the pruned model; it is compiled here.
        dense: the model it was pruned from, for its compile settings.
        task: data and training code.
        settings: the seed, of the random numbers of Python, NumPy and the backend, and which
            network is kept.
        metric: what the scores are, if the caller knows it.

    Returns:
        The scores before and after.

    Raises:
        AmcError: the training left weights that are not finite.
    """
    settings = settings or FineTuneSettings()
    keras.utils.set_random_seed(settings.seed)
    task.compiled(model, dense)
    metric = metric or task.metric_of(model)
    before, weights = task.score(model, task.validation), model.get_weights()
    task.train_pruned(model)
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind == "f" and not keras.ops.all(keras.ops.isfinite(values)):
            raise AmcError(
                f"fine-tuning left values that are not finite in {weight.path!r}; lower the "
                "learning rate of your fine_tune"
            )
    after = task.score(model, task.validation)
    undone = settings.keep == "better" and metric.gain(after) < metric.gain(before)
    if undone:
        model.set_weights(weights)
        _LOG.warning(
            "fine-tuning made the network worse (%s on the validation data before it, %s after): "
            "the network from before it is kept; FineTuneSettings(keep='last') keeps the last",
            metric.written(before),
            metric.number(after),
        )
    return FineTuned(undone, before, after)
