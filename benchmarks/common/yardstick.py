"""One measure for plans of any search: accuracy on the test images, with the refit in order."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING

import numpy as np

import amc_tf
from amc_tf import files
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.scoring.scorer import fastest_scorer

if TYPE_CHECKING:  # scripts know these modules as common.cases, tests as benchmarks.common.cases
    from benchmarks.common.cases import Case

REFIT = "in_order"


class Yardstick:
    """Scores plans on a case's test images; no plan twice.

    Args:
        graph: the analysed network.
        case: the network's images.
        seed: seed of the positions sampled for the refit.
        kept: file of the answers so far, so that a resumed study goes on; None for no file.
    """

    def __init__(
        self, graph: ChannelGraph, case: Case, seed: int = 0, kept: pathlib.Path | None = None
    ):
        self._labels, self._kept = case.test[1], kept
        self._known = json.loads(kept.read_text()) if kept and kept.exists() else {}
        self._seed = seed
        refit = REFITS[REFIT](graph, [case.calibration], seed)
        self._score = fastest_scorer(graph, case.task(case.test), refit)

    def right(self, plan: amc_tf.PruningPlan | None) -> np.ndarray:
        """Returns which images are classified right, bool (images,); None is the dense network."""
        keep = None if plan is None else {name: list(kept) for name, kept in plan.keep.items()}
        key = files.checksum({"keep": keep, "seed": self._seed, "images": len(self._labels)})
        if key not in self._known:
            right = np.argmax(self._score.outputs(plan)[0], axis=-1) == self._labels
            self._known[key] = np.packbits(right).tobytes().hex()
            if self._kept:
                files.write_json(self._kept, self._known)
        bits = np.frombuffer(bytes.fromhex(self._known[key]), np.uint8)
        return np.unpackbits(bits, count=len(self._labels)).astype(bool)

    def accuracy(self, plan: amc_tf.PruningPlan | None) -> float:
        """Returns the share of images classified right."""
        return float(self.right(plan).mean())
