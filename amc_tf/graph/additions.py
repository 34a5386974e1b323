"""Where Keras adds along another axis than NumPy would.

The TensorFlow backend of Keras takes a second summand all of whose axes but one are of size 1 for a
bias, and adds it along the channels, or along axis 1, whichever is as long, wherever its own long
axis lies (Keras 3.15.1, findings/keras_add_takes_tables_for_biases.sh). So a column of positions is
added along the channels of a network that has as many channels as positions; and a network becomes
one by pruning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from amc_tf.graph.keras_structure import numpy_ops

Sizes = Sequence[int | None]


def is_misplaced(first: Sizes, second: Sizes) -> bool:
    """Returns whether Keras adds a tensor of the second shape along an axis that is not its own."""
    long = [axis for axis in range(-len(second), 0) if second[axis] is None or second[axis] != 1]
    if len(long) != 1 or len(first) < 2 or second[long[0]] is None:
        return False
    size = second[long[0]]
    if size not in (first[1], first[-1]):
        return False
    return long[0] != (-1 if first[-1] == size else 1 - len(first))


def adds(operation: Any) -> bool:
    """Returns whether an operation is one of the additions in question."""
    return type(operation) in (numpy_ops.Add, keras.layers.Add)


def placed(operation: Any, args: tuple) -> tuple:
    """Returns the arguments of an addition so that each summand is added along its own axes.

    Of two summands, the one that would be taken for a bias comes first.

    Args:
        operation: any operation of a network.
        args: its positional arguments, tensors and arrays.
    """
    summands = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    if not adds(operation) or len(summands) != 2:
        return args
    first, second = (getattr(x, "shape", ()) for x in summands)
    if not is_misplaced(tuple(first), tuple(second)):
        return args
    turned = tuple(summands[::-1])
    return turned if summands is args else (list(turned),)
