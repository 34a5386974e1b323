"""Which reward guides a search: that of the settings, or the error where outputs say no more."""

from __future__ import annotations

import logging

from amc_tf.errors import AmcError
from amc_tf.runs import identity
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.base import Scorer
from amc_tf.search.env.rewards import DIVERGENCE, ERROR

_LOG = logging.getLogger(__name__)


def used_reward(wanted: str, score: Scorer) -> str:
    """Returns the reward that guides a search, and says so where it is another than wanted.

    Args:
        wanted: the reward of the settings, a name of `REWARDS`.
        score: scorer that scored the dense network, and was asked to compare outputs if the
            divergence is wanted.
    """
    reason = score.no_divergence() if wanted == DIVERGENCE else None
    if reason is None:
        return wanted
    _LOG.info(
        "the reward is the error of the metric, not the divergence of the outputs: %s", reason
    )
    return ERROR


def check_reward(workdir: Workdir, begun: bool, used: str) -> None:
    """Notes the reward that guides a search, or compares it with that which it began with.

    The settings may be the same, and yet the outputs are compared now, or no more: the task's
    evaluate or its `keep_bytes` may be others.

    Args:
        workdir: the search's folder.
        begun: whether its log has rewards already.
        used: see `used_reward`.

    Raises:
        AmcError: the logged rewards are of another kind.
    """
    known = workdir.noted(identity.REWARD)
    if not begun:
        workdir.note(identity.REWARD, used)
    elif known not in (None, used):
        raise AmcError(
            f"the search in {workdir.path} began with the reward {known!r} and would go on with "
            f"{used!r}, as the task scores plans in another way now; go back to the task that it "
            "began with, or use another workdir"
        )
