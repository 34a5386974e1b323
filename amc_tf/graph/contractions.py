"""How channel ids pass through products of tensors: attention, and kernels with several axes.

A letter of an equation is an axis. In `abc,cde->abde`, a layer reads channels c and makes heads d
of width e. An operation without weights, such as the product of queries and keys, sums over
channels, too; what it reads is made zero there in a masked model, as it has no kernel whose rows
could be. Each function is the `connect` of rows of the layer table, or makes a row.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from amc_tf.graph.kernel_propagation import check_activation, check_kernel
from amc_tf.graph.layer_kinds import LayerKind, Product
from amc_tf.graph.layer_rule import (
    Connector,
    Ids,
    LayerRule,
    Refusal,
    Roles,
    Signal,
    axis_role,
    only,
    positions,
)
from amc_tf.graph.network import Call, Value
from amc_tf.graph.output_specs import is_plain
from amc_tf.graph.reshaping import joined_ids

_ELLIPSIS = "..."
_LEADING = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # axes that an ellipsis stands for, the last one first

_NO_ROW = LayerRule(lambda c, call, inputs, out_shape: _refuse("its equation is not understood"))


def _refuse(reason: str) -> Roles:
    raise Refusal(reason)


# --- layers with a kernel -----------------------------------------------------------------------


def einsum_dense(layer: Any) -> LayerRule:
    """Returns the row of an EinsumDense layer, which its equation gives."""
    return _row_of_equation(layer.equation.replace(" ", ""), layer.bias_axes)


@functools.cache
def _row_of_equation(equation: str, bias_axes: str | None) -> LayerRule:
    letters = _letters(equation)
    if letters is None:
        return _NO_ROW
    x, kernel, out = letters

    def role(letter: str) -> str:
        if letter in x:
            return axis_role("in", x.index(letter) - len(x))
        return axis_role("out", out.index(letter) - len(out))

    bias = out[min(map(out.index, bias_axes)) :] if bias_axes else ""
    mixed = tuple(role(letter) for letter in kernel if letter not in out)
    made = [role(letter) for letter in out if letter not in x]
    if not mixed or not made:
        return _NO_ROW
    return LayerRule(
        functools.partial(_connect_kernel, letters, frozenset(bias_axes or "")),
        weights={
            "kernel": tuple(map(role, kernel)),
            "bias": tuple(role(letter) if letter in (bias_axes or "") else None for letter in bias),
        },
        widths={"output_shape": tuple(map(role, out))},
        mixes={"kernel": mixed},
        # They are counted by the input, because the output's size is often left open.
        macs={"kernel": "in"},
        kind=LayerKind(Product(reads="flattened") if _is_flat(letters) else None),
        axes="own",
        keeps_zero=True,
    )


def _is_flat(letters: tuple[str, str, str]) -> bool:
    """Returns whether a kernel makes a last axis of the last axes of its input, in their order."""
    x, kernel, out = letters
    read = kernel[:-1]
    return x.endswith(read) and out == x[: len(x) - len(read)] + kernel[-1]


def _letters(equation: str) -> tuple[str, str, str] | None:
    """Returns the letters of input, kernel and output; None if a row cannot be made of them."""
    operands, _, out = equation.partition("->")
    x, _, kernel = operands.partition(",")
    if x.startswith(_ELLIPSIS) and out.startswith(_ELLIPSIS):
        x, out = ("".join(term.split(_ELLIPSIS, 1)) for term in (x, out))
    sound = all(term.isalpha() and len(set(term)) == len(term) for term in (x, kernel, out))
    known = sound and set(kernel) <= set(x + out) and set(out) <= set(x + kernel)
    return (x, kernel, out) if known and set(x) <= set(kernel + out) else None


def _connect_kernel(
    letters: tuple[str, str, str],
    bias_axes: frozenset[str],
    c: Connector,
    call: Call,
    inputs: Sequence[Signal],
    out_shape: Sequence[Any],
) -> Roles:
    """Makes an id for each position of each axis that only the kernel and the output have."""
    layer, signal = call.operation, only(inputs)
    check_kernel(layer)
    x, kernel, out = letters
    sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
    ids: dict[str, Ids] = {}
    for axis, letter in enumerate(x, -len(x)):
        found = signal.along(axis)
        if found is None and (letter in kernel or letter in bias_axes):
            size = sizes.get(letter, signal.shape[axis])
            if size is None:
                raise Refusal("its bias belongs to positions, whose number is not fixed")
            found = positions(c, size)
        if found is not None:
            ids[letter] = found
    ids.update((letter, c.fresh(sizes[letter])) for letter in kernel if letter not in x)
    roles = {axis_role("in", a): ids[k] for a, k in enumerate(x, -len(x)) if k in ids}
    roles.update((axis_role("out", a), ids[k]) for a, k in enumerate(out, -len(out)) if k in ids)
    roles.setdefault("out", positions(c, out_shape[-1]))
    for name, flat in (
        ("features", [letter for letter in kernel if letter not in out]),
        ("made", [letter for letter in kernel if letter not in x]),
    ):
        if len(flat) > 1:
            joined = joined_ids(c, [ids[k] for k in flat], [sizes[k] for k in flat])
            roles[name] = positions(c, 1) if joined is None else joined  # None: all are of size 1
    others = [ids for role, ids in roles.items() if role.startswith("out@")]
    check_activation(c, layer, roles["out"], out_shape, axes=others)
    return roles


# --- operations without weights -----------------------------------------------------------------


def einsum(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Follows each letter of an equation of one or two tensors."""
    read, arrow, out = call.operation.subscripts.replace(" ", "").partition("->")
    terms, operands = read.split(","), _operands(call, inputs)
    if not arrow or len(terms) != len(operands) or len(terms) > 2:
        raise Refusal("it is no product of two tensors with a given output")
    terms = [_spelt(term, len(x.shape)) for term, x in zip(terms, operands, strict=True)]
    spelt = list(zip(terms, operands, strict=True))
    return _contract(c, spelt, _spelt(out, len(out_shape)), out_shape)


def _operands(call: Call, inputs: Sequence[Signal]) -> list[Signal]:
    """Returns what a product reads: tensors of the network, and arrays, whose axes have no ids."""
    return [_signal(x, inputs) for x in (*call.args, *call.kwargs.values())]


def _signal(x: Any, inputs: Sequence[Signal]) -> Signal:
    if isinstance(x, Value):
        return next(signal for signal in inputs if signal.number == x.number)
    return Signal(None, tuple(np.shape(x)))


def _spelt(term: str, rank: int) -> str:
    """Returns a term with letters for its ellipsis; raises `Refusal` if it does not fit."""
    before, dots, after = term.partition(_ELLIPSIS)
    more = rank - len(before) - len(after) if dots else 0
    spelt = before + _LEADING[:more][::-1] + after
    if len(spelt) != rank or len(set(spelt)) != rank:
        raise Refusal(f"its equation's term {term!r} is not understood")
    return spelt


def matmul(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Follows a product of the last two axes of two tensors."""
    operands = _operands(call, inputs)
    if len(operands) != 2 or any(len(x.shape) < 2 for x in operands):
        raise Refusal("it is no product of two tensors with rows and columns")
    a, b = (_LEADING[: len(x.shape) - 2][::-1] for x in operands)
    out = _LEADING[: len(out_shape) - 2][::-1] + "ik"
    return _contract(c, [(a + "ij", operands[0]), (b + "jk", operands[1])], out, out_shape)


def convolution(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Follows a convolution whose kernel (..., in, out) is a tensor."""
    x, kernel = _with_kernel(c, call, inputs)
    read = _alike(c, [(x.ids, x.shape[-1]), (kernel.along(-2), kernel.shape[-2])])
    if read is None or kernel.ids is None:
        raise Refusal("its kernel is an array")
    held = ((x.ids, x.number), (kernel.along(-2), kernel.number))
    c.sum_over([(ids, number) for ids, number in held if ids is not None])
    roles = {"in": x.ids, "out": kernel.ids, "sum:channels": read}
    return {**roles, "work0:channels": read, "work0:filters": kernel.ids}


def depthwise_convolution(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Follows a depthwise convolution whose kernel (..., in, 1) is a tensor."""
    x, kernel = _with_kernel(c, call, inputs)
    if kernel.shape[-1] != 1:
        raise Refusal("it makes several channels of each")
    channels = _alike(c, [(x.ids, x.shape[-1]), (kernel.along(-2), kernel.shape[-2])])
    if channels is None:
        raise Refusal("it has no channels of known size")
    return {"in": x.ids, "out": channels, "work0:channels": channels}


def _with_kernel(c: Connector, call: Call, inputs: Sequence[Signal]) -> tuple[Signal, Signal]:
    """Returns what a convolution reads and its kernel, whose other axes are frozen."""
    operation = call.operation
    given = inspect.signature(operation.call).bind(*call.args, **call.kwargs).arguments
    x, kernel = (_signal(given[name], inputs) for name in ("inputs", "kernel"))
    if operation.data_format not in (None, "channels_last"):
        raise Refusal("its channels come first")
    if x.ids is None:
        raise Refusal("it reads an array")
    for signal, own in ((x, ()), (kernel, (-2,))):
        for axis, ids in signal.axes.items():
            if axis not in own:
                c.freeze(ids, f"{operation.name!r} slides along their axis")
    return x, kernel


def dot_product_attention(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Follows heads, the widths of queries and keys, and those of values.

    Each head's scores are a sum over the width of its queries and keys; its output has the width of
    its values.
    """
    operation = call.operation
    given = inspect.signature(operation.call).bind(*call.args, **call.kwargs).arguments
    tensors = {
        name: _signal(x, inputs) for name, x in given.items() if name != "scale" and x is not None
    }
    query, key, value = (tensors[name] for name in ("query", "key", "value"))
    if any(x.ids is None for x in (query, key, value)):
        raise Refusal("it attends to an array")
    if len({x.shape[-2] for x in (query, key, value)}) > 1:
        raise Refusal("several of its queries share a head of keys")
    for x in (query, key, value):  # along its tokens, attention mixes
        for axis, ids in x.axes.items():
            if axis != -2:
                c.freeze(ids, f"{operation.name!r} attends along their axis")
    heads = _alike(c, [(x.along(-2), x.shape[-2]) for x in (query, key, value)])
    for other in (tensors.get("bias"), tensors.get("mask")):
        if other is None:
            continue
        own = other.along(-3) if len(other.shape) > 2 else None
        if own is not None and heads is not None and len(own) == len(heads):
            c.unite(own, heads)
        elif len(other.shape) > 2 and other.shape[-3] != 1 and heads is not None:
            c.freeze(heads, f"the heads of {call.operation.name!r} have biases of their own")
        _freeze_all(c, other, but=(-3,))
    width = _alike(c, [(x.ids, x.shape[-1]) for x in (query, key)])
    if width is None:
        raise Refusal("the width of its heads has no known size")
    if not is_plain(operation, given):
        # What the rebuilt network would call in its place is written for plain attention alone.
        if len(width) == len(value.ids):
            c.unite(width, value.ids)
        else:
            c.freeze(np.concatenate([width, value.ids]), f"{operation.name!r} is called as a whole")
    c.sum_over([(x.ids, x.number) for x in (query, key)])
    roles = {"in": query.ids, "out": value.ids, "sum:width": width, "work0:width": width}
    roles["work1:values"] = value.ids
    if heads is not None:
        roles.update(dict.fromkeys(("in@-2", "out@-2", "work0:heads", "work1:heads"), heads))
    return roles


def _contract(
    c: Connector, operands: Sequence[tuple[str, Signal]], out: str, out_shape: Sequence[Any]
) -> Roles:
    """Follows each letter; sums over those that the output does not have."""
    roles: Roles = {}
    for letter in dict.fromkeys("".join(term for term, _ in operands)):
        readers = [
            (x.along(term.index(letter) - len(term)), x.shape[term.index(letter)], x.number)
            for term, x in operands
            if letter in term
        ]
        ids = _alike(c, [(own, size) for own, size, _ in readers])
        if ids is None:
            continue
        roles[f"work0:{letter}"] = ids
        if letter in out:
            roles[axis_role("out", out.index(letter) - len(out))] = ids
        else:
            roles[f"sum:{letter}"] = ids
            c.sum_over([(own, number) for own, _, number in readers if own is not None])
    roles.setdefault("out", positions(c, out_shape[-1]))
    roles["in"] = next(x.ids for _, x in operands if x.ids is not None)
    return roles


def _alike(c: Connector, readers: Sequence[tuple[Ids | None, int | None]]) -> Ids | None:
    """Unites the ids that several tensors have of one axis; freezes them if one has none."""
    found = [ids for ids, _ in readers if ids is not None and len(ids)]
    if not found:
        return None
    longest = max(found, key=len)
    for ids, size in readers:
        if ids is None or len(ids) != len(longest):
            # It holds positions there, or one for all; the latter repeats what it holds.
            if size != 1:
                c.freeze(longest, "")
            if ids is not None:
                c.freeze(ids, "")
        elif ids is not longest:
            c.unite(longest, ids)
    return longest


def _freeze_all(c: Connector, signal: Signal, but: Sequence[int] = ()) -> None:
    if signal.ids is not None:
        c.freeze(signal.ids, "")
    for axis, ids in signal.axes.items():
        if axis not in but:
            c.freeze(ids, "")
