"""Whether a search that goes on computes what it computed before it was interrupted."""

from __future__ import annotations

import logging
import math

from amc_tf.errors import AmcError
from amc_tf.runs import identity
from amc_tf.runs.conditions import conditions, told
from amc_tf.runs.workdir import Workdir
from amc_tf.training.fingerprint import of_code
from amc_tf.training.task import Task

_LOG = logging.getLogger(__name__)


def check_conditions(workdir: Workdir, begun: bool) -> None:
    """Notes the versions and the machine of a search, or compares them with those it began with.

    On another machine, or with another number of threads, the last digits of scores may
    differ, and then the agent may turn elsewhere. That is said, not refused.

    Args:
        workdir: the search's folder.
        begun: whether its log has scores already.

    Raises:
        AmcError: the search began with other versions of what computes its numbers.
    """
    now, before = conditions(), workdir.noted(identity.CONDITIONS)
    if not begun:
        workdir.note(identity.CONDITIONS, now)
        return
    if before is None:
        return  # of an earlier version, which noted nothing
    other = told(before["versions"], now["versions"])
    if other:
        raise AmcError(
            f"the search in {workdir.path} began with other versions ({other}), whose scores "
            "cannot be told apart from those of these; install those again, or use another workdir"
        )
    other = told(before["machine"], now["machine"])
    if other:
        _LOG.warning(
            "%s: the search goes on under other conditions than it began (%s): it takes the known "
            "scores from its log, but may end with another plan than it would have there",
            workdir.path,
            other,
        )


def check_evaluate(workdir: Workdir, begun: bool, task: Task, score: float) -> None:
    """Notes the code of evaluate, or compares what it gives for the dense network.

    Code may be mended between two calls. Where it is other code, the dense network must
    have the score that it had.

    Args:
        workdir: the search's folder.
        begun: whether its log has scores already.
        task: the task with the code.
        score: score of the dense network now.

    Raises:
        AmcError: other code gives another score, so that the logged ones are of another measure.
    """
    code = of_code(task.evaluate)
    known = workdir.noted(identity.EVALUATE)
    if not begun:
        workdir.note(identity.EVALUATE, {"code": code, "dense": score})
        return
    if known is None:
        return
    if known["code"] == code or math.isclose(known["dense"], score, rel_tol=1e-4, abs_tol=1e-6):
        return
    raise AmcError(
        f"the code of evaluate is another than when the search in {workdir.path} began, and "
        f"gives the dense network a score of {score:.6g}, which had {known['dense']:.6g}; use "
        "another workdir, or go back to that code"
    )
