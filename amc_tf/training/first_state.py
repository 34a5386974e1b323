"""A model whose training fails has the state that it had before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np


@contextlib.contextmanager
def first_state_on_error(model: keras.Model) -> Iterator[None]:
    """Returns a context that, when it ends by an exception, gives a model's variables back.

    These are its weights, the states of its random layers, and the variables that its optimizer
    has by now, with the learning rate. So the same training can be called again, with the same
    result.
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else ())]
    kept = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    try:
        yield
    except BaseException:  # also Ctrl-C in a notebook
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
        raise
