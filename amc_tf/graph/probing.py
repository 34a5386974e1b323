"""Whether an operation treats every channel alone, found by running it.

A rebuilt network calls an operation that has no weights on fewer channels. That is exact where the
operation gives, for these channels, what it gives for them among all. So it is run on random
inputs with all channels and with some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.errors import first_line
from amc_tf.graph.activations import is_elementwise, may_hold_weights
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.layer_rule import Connector, LayerRule, Refusal, Roles, Signal
from amc_tf.graph.network import Call, Value

_BATCH, _OPEN_SIZE = 2, 16
Draw = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _rectified(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns what a ReLU leaves: many zeros, and at some positions nothing, or one channel."""
    kept = rng.random((*x.shape[:-1], 1)) < rng.choice([0.1, 0.5, 1.0], (*x.shape[:-1], 1))
    one = rng.integers(0, x.shape[-1], x.shape[:-1])[..., None] == np.arange(x.shape[-1])
    return np.maximum(x, 0.0) * np.where(kept, 1.0, one * (rng.random(kept.shape) < 0.5))


# Of both signs; large; very large; positive and below 1; rectified; clipped at both ends.
_DRAWS: tuple[Draw, ...] = (
    lambda x, rng: x,
    lambda x, rng: 30.0 * x,
    lambda x, rng: 1e5 * x,
    lambda x, rng: 0.2 * np.abs(x),
    _rectified,
    lambda x, rng: np.clip(_rectified(5.0 * x, rng), 0.0, 1.0),
)
_SOFTMAXES = (keras.activations.softmax, keras.activations.log_softmax)
_RELATIVE = 1e-5  # sums over positions may be taken in another order


def _connect(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself if a run of the operation shows that it may."""
    width = out_shape[-1]
    wide = [len(x.ids) == width for x in inputs]
    if len(call.outputs) > 1 or not any(wide):
        raise Refusal("it changes the channel axis")

    def run(arrays: Sequence[np.ndarray]) -> Any:
        left = iter(arrays)
        args, kwargs = keras.tree.map_structure(
            lambda x: next(left) if isinstance(x, Value) else x, (call.args, call.kwargs)
        )
        return infer(call.operation, args, kwargs)

    reason = mixes_channels(run, [(x.shape, x.dtype) for x in inputs], wide)
    if reason:
        raise Refusal(f"{reason}; amc_tf.register_layer can add what it is")
    ids = [x.ids for x, is_wide in zip(inputs, wide, strict=True) if is_wide]
    for x, is_wide in zip(inputs, wide, strict=True):
        if not is_wide:
            c.freeze(x.ids, f"read for all channels by {call.operation.name!r}")
    for other in ids[1:]:
        c.unite(ids[0], other)
    return {"in": ids[0], "out": ids[0]}


PROBED = LayerRule(_connect)
"""The row of an operation without weights that the layer table does not know."""


def is_of_last_axis(activation: Any) -> bool:
    """Returns whether an activation is known to leave every axis alone but the last."""
    return is_elementwise(activation) or activation in _SOFTMAXES


def mixing(activation: Any, shape: Sequence[int | None]) -> str | None:
    """Returns what an activation does other than treat each channel alone; None if nothing.

    Args:
        activation: the function of a layer, or None.
        shape: shape of what it is applied to.
    """
    if is_elementwise(activation):
        return None
    if may_hold_weights(activation):
        return "may have weights of its own"
    if activation in _SOFTMAXES:
        return "mixes channels"
    reason = mixes_channels(lambda arrays: activation(*arrays), [(shape, "float32")], [True])
    return None if reason is None else f"may not treat each channel alone: {reason}"


def mixes_channels(
    function: Callable[[Sequence[np.ndarray]], Any],
    specs: Sequence[tuple[Sequence[int | None], str]],
    wide: Sequence[bool],
) -> str | None:
    """Runs a function with all channels and with some.

    Args:
        function: takes an array for each of `specs` and returns a tensor.
        specs: shape and dtype of each array; the first axis is the batch.
        wide: which arrays have the channels in their last axis.

    Returns:
        Why the function may not be called on fewer channels; None if it may.
    """

    def run(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(function(arrays)))

    width = next(s[-1] or 0 for (s, _), is_wide in zip(specs, wide, strict=True) if is_wide)
    try:
        return _found_to_mix(run, specs, wide, width)
    except Exception as error:
        return f"it does not run on fewer channels ({first_line(error)})"


def _found_to_mix(
    run: Callable[[Sequence[np.ndarray]], np.ndarray],
    specs: Sequence[tuple[Sequence[int | None], str]],
    wide: Sequence[bool],
    width: int,
) -> str | None:
    rng = np.random.default_rng(0)
    # What the calls change stays as it is; the seeds of random numbers go on from call to call.
    with keras.StatelessScope():
        for draw in _DRAWS:
            arrays = [_random(shape, dtype, rng, draw) for shape, dtype in specs]
            whole = run(arrays)
            if whole.shape[:1] != (_BATCH,) or whole.shape[-1:] != (width,):
                return "it changes the batch or the channel axis"
            if not _close(whole, run(arrays)):
                return "it is random"
            if not _close(whole[:1], run([a[:1] for a in arrays])):
                return "what it gives for a sample depends on the others"
            for count in {1, max(1, width // 2), max(1, width - 1)}:
                kept = np.sort(rng.choice(width, count, replace=False))
                some = [a[..., kept] if w else a for a, w in zip(arrays, wide, strict=True)]
                if not _close(whole[..., kept], run(some)):
                    return "what it gives for a channel depends on the others"
    return None


def _random(
    shape: Sequence[int | None], dtype: str, rng: np.random.Generator, draw: Draw
) -> np.ndarray:
    sizes = [_BATCH, *(_OPEN_SIZE if size is None else size for size in shape[1:])]
    if keras.backend.is_float_dtype(dtype):
        return draw(rng.normal(size=sizes), rng).astype("float32")
    return rng.integers(0, 2, sizes).astype(dtype)


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind not in "fc":
        return bool((a == b).all())
    finite = np.abs(a[np.isfinite(a)])
    atol = _RELATIVE * float(finite.max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=atol, equal_nan=True))
