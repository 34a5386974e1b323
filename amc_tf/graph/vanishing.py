"""Which values are 0 in a channel when all weights of that channel are.

An operation without weights may sum over channels: attention over the width of queries and keys. In
a masked network nothing of a dropped channel may reach it, and there is no kernel whose rows could
be zero. So the weights that make the channel are, which does where all operations in between keep
zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from amc_tf.graph.activations import keeps_zero
from amc_tf.graph.channel_classes import Classes
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


def is_product(roles: Collection[str]) -> bool:
    """Returns whether roles are those of an operation without weights that multiplies tensors."""
    return any(role.startswith(("sum:", "work")) for role in roles)


def vanishes(
    number: int, channels: np.ndarray, followed: Mapping[int, Followed], classes: Classes
) -> bool:
    """Returns whether a value is 0 in channels whose weights are all 0.

    Args:
        number: number of the value.
        channels: ids of the channels.
        followed: the call that made each value, by the value's number.
        classes: the classes of the ids.
    """
    asked = set(classes.of_id[channels].tolist())
    asked |= {whole for whole, parts in classes.parts.items() if not asked.isdisjoint(parts)}

    def holds(ids: np.ndarray) -> bool:
        return not asked.isdisjoint(classes.of_id[ids].tolist())

    def is_zero(number: int) -> bool:
        if number not in followed:
            return False
        step = followed[number]
        call, rule = step.call, step.rule
        if not rule.vanishes(call) or not keeps_zero(getattr(call.operation, "activation", None)):
            return False
        weights = [
            (weight.name, any(role is not None and holds(step.roles[role]) for role in axes))
            for weight, axes in rule.weight_axes(call.operation)
        ]
        scaled = any(own for name, own in weights if name not in _SHIFTS)
        if scaled and all(own for _, own in weights):
            return True
        # What the channels' weights do not make, is 0 where what it reads is, but for a bias.
        if any(not own and name not in rule.mixes for name, own in weights):
            return False
        read = call.inputs
        if is_product(step.roles):  # it is 0 where the operand is that holds the channels
            read = [n for n in read if n not in followed or holds(followed[n].made())]
        return bool(read) and all(map(is_zero, read))

    return is_zero(number)


# Weights that alone do not make 0 of what is read.
_SHIFTS = ("bias", "beta", "moving_mean", "moving_variance", "mean", "variance")
