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

from amc_tf.graph.activations import is_elementwise
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.layer_rule import Connector, LayerRule, Refusal, Roles, Signal
from amc_tf.graph.network import Call, Value

_BATCH, _OPEN_SIZE = 2, 16
_DRAWS = 3
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


def mixing(activation: Any, shape: Sequence[int | None]) -> str | None:
    """Returns what an activation does other than treat each channel alone; None if nothing.

    Args:
        activation: the function of a layer, or None.
        shape: shape of what it is applied to.
    """
    if is_elementwise(activation):
        return None
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
    rng = np.random.default_rng(0)
    width = next(s[-1] or 0 for (s, _), is_wide in zip(specs, wide, strict=True) if is_wide)
    try:
        for draw in range(_DRAWS):
            arrays = [_random(shape, dtype, rng, draw) for shape, dtype in specs]
            whole = _numpy(function(arrays))
            if whole.shape[:1] != (_BATCH,) or whole.shape[-1:] != (width,):
                return "it changes the batch or the channel axis"
            if not _close(whole, _numpy(function(arrays))):
                return "it is random"
            if not _close(whole[:1], _numpy(function([a[:1] for a in arrays]))):
                return "what it gives for a sample depends on the others"
            for count in {1, max(1, width // 2), max(1, width - 1)}:
                kept = np.sort(rng.choice(width, count, replace=False))
                some = [a[..., kept] if w else a for a, w in zip(arrays, wide, strict=True)]
                if not _close(whole[..., kept], _numpy(function(some))):
                    return "what it gives for a channel depends on the others"
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"it does not run on fewer channels ({lines[0] if lines else type(error).__name__})"
    return None


def _random(shape: Sequence[int | None], dtype: str, rng: np.random.Generator, draw: int) -> Any:
    sizes = [_BATCH, *(_OPEN_SIZE if size is None else size for size in shape[1:])]
    if dtype.startswith(("float", "bfloat")):
        # Of both signs; large; all positive and below 1.
        values = rng.normal(size=sizes) * (1.0, 30.0, 0.2)[draw]
        return (np.abs(values) if draw == 2 else values).astype("float32")
    return rng.integers(0, 2, sizes).astype(dtype)


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind not in "fc":
        return bool((a == b).all())
    finite = np.abs(a[np.isfinite(a)])
    atol = _RELATIVE * float(finite.max(initial=0.0))
    return bool(np.allclose(a, b, rtol=0.0, atol=atol, equal_nan=True))
