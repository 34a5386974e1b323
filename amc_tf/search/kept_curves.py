"""What the groups lose, the same whenever a search is resumed."""

from __future__ import annotations

import numpy as np

from amc_tf import files
from amc_tf.pruning.importance.criteria import Importance
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.importance.refit_curves import Curve, refit_curves
from amc_tf.runs import layout
from amc_tf.runs.model_files import fingerprint
from amc_tf.runs.workdir import Workdir
from amc_tf.search.kept_importance import ranks_of
from amc_tf.training.fingerprint import of_data


def kept_curves(halves: Halves, importance: Importance, workdir: Workdir) -> dict[str, Curve]:
    """Returns the curves of all groups, read from `workdir` if they were computed before.

    They are not computed again: sums in another order would differ in their last digits, and a
    plan that rests on them might be another one than the log's.

    Args:
        halves: statistics of the network on calibration images.
        importance: scores that say which channels are kept.
        workdir: work directory, where `curves.json` is read, or written if it is absent or of
            another network, other images, other ranks or another seed.

    Raises:
        AmcError: see `refit_curves`.
    """
    of = files.checksum(
        {
            "model": fingerprint(halves.graph.network.model),
            "images": of_data((list(halves.images),)),
            "ranks": ranks_of(importance),
            "seed": halves.seed,
        }
    )
    known = workdir.read_json(layout.CURVES, {})
    if known.get("of") == of:
        return {
            name: Curve(np.array(curve["counts"]), np.array(curve["losses"]))
            for name, curve in known["curves"].items()
        }
    curves = refit_curves(halves, importance)
    lists = {
        name: {"counts": curve.counts.tolist(), "losses": curve.losses.tolist()}
        for name, curve in curves.items()
    }
    workdir.write_json(layout.CURVES, {"of": of, "curves": lists})
    return curves
