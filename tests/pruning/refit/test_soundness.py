"""Refits that one sample decides are refused; weights that no refit should give are not used."""

import logging

import blobs
import numpy as np
import pytest

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.pruning.verification import halved

X, Y = blobs.data(96, 0)
REAL = [name for name in REFITS if name != "none"]


@pytest.fixture(scope="module")
def graph():
    return amc_tf.analyze(blobs.trained(2))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("factor", [1e5, 1e15, 1e25, np.nan])
def test_a_sample_that_outweighs_all_others_is_named(graph, name, factor):
    images = X.copy()
    images[41] *= factor
    with pytest.raises(amc_tf.AmcError, match="calibration sample 41 of the input"):
        REFITS[name](graph, [images], 0)


@pytest.mark.parametrize("name", REAL)
def test_weights_beyond_reason_are_not_used(graph, name, caplog):
    """All images overflow float32's products, so that none stands out."""
    plan = halved(graph)
    assert REFITS[name](graph, [X], 0).refit(plan)
    refit = REFITS[name](graph, [X * 1e24], 0)
    with caplog.at_level(logging.WARNING), np.errstate(all="ignore"):
        for _ in range(2):
            weights = refit.refit(plan)
    assert all(np.isfinite(v).all() and np.abs(v).max() < 1e5 for v in weights.values())
    told = [r.getMessage() for r in caplog.records if "keeps its old weights" in r.getMessage()]
    assert told and len(told) == len(set(told))
