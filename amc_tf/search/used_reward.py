"""Which reward guides a search: that of the settings, or the error where outputs say no more."""

from __future__ import annotations

import logging

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.runs import identity
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.base import Scorer
from amc_tf.search.env.rewards import DIVERGENCE, ERROR

_LOG = logging.getLogger(__name__)


def used_reward(wanted: str, score: Scorer, workdir: Workdir, begun: bool) -> str:
    """Returns the reward that guides a search, and says so where it is another than wanted.

    It is noted in the folder: a search goes on with the reward that it began with, although the
    task may score plans in another way now (by an `evaluate`, or with another `keep_bytes`).

    Args:
        wanted: the reward of the settings, a name of `REWARDS`.
        score: scorer that scored the dense network, and was asked to compare outputs if the
            divergence is wanted.
        workdir: the search's folder.
        begun: whether its log has rewards already.

    Raises:
        AmcError: the search began with the divergence, which cannot be measured any more.
    """
    if wanted != DIVERGENCE:
        return wanted
    reason = score.no_divergence()
    known = workdir.noted(identity.REWARD) if begun else None
    if known == DIVERGENCE and reason is not None:
        raise AmcError(
            f"the search in {workdir.path} began with the divergence of the outputs as its reward, "
            f"which cannot be measured now: {reason}; go back to the task that it began with, or "
            "use another workdir"
        )
    if known == ERROR and reason is None:
        reason = "the search began with it"
    used = DIVERGENCE if reason is None else ERROR
    if reason is not None:
        story.remark(
            _LOG,
            "the reward is the error of the metric, not the divergence of the outputs: %s",
            reason,
        )
    if not begun:
        workdir.note(identity.REWARD, used)
    return used
