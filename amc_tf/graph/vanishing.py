"""Which values are 0 in a channel when all weights of that channel are.

An operation without weights may sum over channels: attention over the width of queries and keys. In
a masked network nothing of a dropped channel may reach it, and there is no kernel whose rows could
be zero. So the weights that make the channel are, which does where all operations in between keep
zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from amc_tf.graph.activations import keeps_zero
from amc_tf.graph.layer_rule import LayerRule, Roles
from amc_tf.graph.network import Call


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
    """A call that the analysis followed, its row and the ids of its roles."""

    call: Call
    rule: LayerRule
    roles: Roles

    def made(self) -> np.ndarray:
        """Returns the ids of what it returns."""
        return np.concatenate([ids for role, ids in self.roles.items() if role.startswith("out")])


def is_product(roles: Roles) -> bool:
    """Returns whether roles are those of an operation without weights that multiplies tensors."""
    return any(role.startswith(("sum:", "work")) for role in roles)


def vanishes(number: int, followed: Mapping[int, Followed]) -> bool:
    """Returns whether a value is 0 in a channel where all weights of the channel are 0.

    Args:
        number: number of the value.
        followed: the call that made each value, by the value's number.
    """
    if number not in followed:
        return False
    step = followed[number]
    call, rule = step.call, step.rule
    if not rule.vanishes(call) or not keeps_zero(getattr(call.operation, "activation", None)):
        return False
    if any(
        role is not None and role.startswith("out")
        for _, axes in rule.weight_axes(call.operation)
        for role in axes
    ):
        return True
    read = call.inputs
    if is_product(step.roles):  # it is 0 where the operand is that holds the channel
        read = [n for n in read if n not in followed or _meet(step, followed[n])]
    return bool(read) and all(vanishes(n, followed) for n in read)


def _meet(step: Followed, before: Followed) -> bool:
    return bool(np.isin(step.made(), before.made()).any())
