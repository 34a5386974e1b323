"""The plan of a search, which nobody else may have written."""

from __future__ import annotations

import json
from typing import Any

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.graph.plan import PruningPlan
from amc_tf.runs import identity, layout
from amc_tf.runs.workdir import Workdir


def check_plan(workdir: Workdir) -> None:
    """Checks that `plan.json`, if it is there, is the search's own.

    A file that is cut off or empty is no plan of anyone's; the search writes it again.

    Raises:
        AmcError: the file was changed by hand.
    """
    path = workdir / layout.PLAN
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(content, dict):
        return
    known = workdir.noted(identity.PLAN)
    try:
        sealed = files.SEAL in content and files.unsealed(content) is not None
    except ValueError:
        sealed = False
    if not sealed or known not in (None, _checksum(content.get("keep"))):
        raise AmcError(
            f"{path} is not as the search wrote it; for a plan of your own, build its network "
            f"(amc_tf.rebuild(model, amc_tf.analyze(model), amc_tf.PruningPlan.load({path.name!r}))"
            ") and fine-tune that; to go on with the search's plan, remove the file and run again"
        )


def keep_plan(workdir: Workdir, plan: PruningPlan) -> None:
    """Writes `plan.json`, and a checksum of it beside the configuration."""
    plan.save(workdir / layout.PLAN)
    workdir.note(identity.PLAN, _checksum(plan.keep))


def is_kept(workdir: Workdir, plan: PruningPlan) -> bool:
    """Returns whether a plan is the one that an earlier search ended with, if any did."""
    return workdir.noted(identity.PLAN) in (None, _checksum(plan.keep))


def _checksum(keep: Any) -> str:
    return files.checksum({"keep": keep})
