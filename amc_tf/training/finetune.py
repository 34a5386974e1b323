"""Fine-tuning pruned models with the user's training code."""

from __future__ import annotations

import dataclasses

import keras

from amc_tf.errors import AmcError
from amc_tf.training.task import Task


@dataclasses.dataclass(frozen=True)
class FineTuneSettings:
    """Which networks are fine-tuned, and with which seed.

    Attributes:
        compare: policies whose networks are fine-tuned like the chosen one, so
            that the final table shows what the search gained after fine-tuning.
        seed: seed that is set before each fine-tuning.
    """

    compare: tuple[str, ...] = ()
    seed: int = 0


def fine_tune(model: keras.Model, dense: keras.Model, task: Task, seed: int = 0) -> float:
    """Trains a pruned model in place with the user's compile and fit.

    Args:
        model: the pruned model; it is compiled here.
        dense: the model it was pruned from, for its compile settings.
        task: data and training code.
        seed: seed of the random numbers of Python, NumPy and the backend.

    Returns:
        The accuracy of the trained model on the test data.

    Raises:
        AmcError: the training left weights that are not finite.
    """
    keras.utils.set_random_seed(seed)
    task.compiled(model, dense)
    task.train_pruned(model)
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if values.dtype.kind == "f" and not keras.ops.all(keras.ops.isfinite(values)):
            raise AmcError(
                f"fine-tuning left values that are not finite in {weight.path!r}; lower the "
                "learning rate of your fine_tune"
            )
    return task.score(model, task.test_data)
