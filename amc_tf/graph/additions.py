"""Where Keras adds along another axis than NumPy would.

The TensorFlow backend of Keras takes a second summand all of whose axes but one are of size 1 for a
bias, and adds it along the channels, or along axis 1, whichever is as long, wherever its own long
axis lies (Keras 3.15.1, findings/keras_add_takes_tables_for_biases.sh). So a column of positions is
added along the channels of a network that has as many channels as positions; and a network becomes
one by pruning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.graph.keras_structure import numpy_ops
from amc_tf.graph.network import Call, Value

Sizes = Sequence[int | None]
_ADDS = (numpy_ops.Add, keras.layers.Add)


def _is_misplaced(first: Sizes, second: Sizes) -> bool:
    """Returns whether Keras adds a tensor of the second shape along an axis that is not its own."""
    long = [axis for axis in range(-len(second), 0) if second[axis] is None or second[axis] != 1]
    if len(long) != 1 or len(first) < 2 or second[long[0]] is None:
        return False
    size = second[long[0]]
    if size not in (first[1], first[-1]):
        return False
    return long[0] != (-1 if first[-1] == size else 1 - len(first))


def misplaces(call: Call, shapes: Mapping[int, Sizes], out_shape: Sizes) -> bool:
    """Returns whether Keras adds one of the summands of a call along an axis that is not its own.

    Args:
        call: a call of any operation.
        shapes: shapes of the values that it reads, by their numbers.
        out_shape: shape of what it returns.
    """
    if type(call.operation) not in _ADDS:
        return False
    first, *others = (
        shapes[x.number] if isinstance(x, Value) else np.shape(x)
        for x in keras.tree.flatten((call.args, call.kwargs))
    )
    return any(_is_misplaced(out_shape if i else first, x) for i, x in enumerate(others))


def placed(operation: Any, args: tuple) -> tuple:
    """Returns the arguments of an addition so that each summand is added along its own axes.

    Of two summands, the one that would be taken for a bias comes first.

    Args:
        operation: any operation of a network.
        args: its positional arguments, tensors and arrays.
    """
    summands = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    if type(operation) not in _ADDS or len(summands) != 2:
        return args
    first, second = (getattr(x, "shape", ()) for x in summands)
    if not _is_misplaced(tuple(first), tuple(second)):
        return args
    turned = tuple(summands[::-1])
    return turned if summands is args else (list(turned),)
