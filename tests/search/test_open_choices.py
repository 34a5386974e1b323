"""What is chosen where the settings say nothing of rounding and the least share."""

import json

import keras
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.search.open_choices import as_begun, roundings, told_choices
from amc_tf.search.problem import check, problem_of

OPEN = amc_tf.SearchSettings()


@pytest.fixture(scope="module")
def unet():
    """Convolutions of 8, 16, 32, 16 and 8 channels."""
    x = inputs = keras.Input((32, 32, 1))
    for width in (8, 16, 32):
        x = kl.MaxPooling2D()(kl.Conv2D(width, 3, padding="same", activation="relu")(x))
    for width in (16, 8):
        x = kl.Conv2D(width, 3, padding="same", activation="relu")(kl.UpSampling2D()(x))
    return amc_tf.analyze(keras.Model(inputs, kl.Conv2D(1, 1)(x)))


def least(problem):
    return problem.costs["macs"](problem.least) / problem.costs["macs"](problem.dense)


def test_narrow_groups_have_four_counts_to_choose_from(unet):
    assert roundings(unet, OPEN) == [2, 4, 8, 4, 2]
    problem = problem_of(unet, OPEN, amc_tf.Budget(macs=0.5))
    assert [counts.tolist() for counts in problem.choices[:2]] == [[2, 4, 6, 8], [4, 8, 12, 16]]
    told = told_choices(problem, OPEN)
    assert told == (
        "channel counts are multiples of 8 (1 groups), 4 (2 groups), 2 (2 groups); at least 25% "
        "of a group is kept"
    )


@pytest.mark.parametrize("macs", [0.5, 0.05, 0.02, 0.013])
def test_a_budget_that_can_be_met_is_met(unet, macs):
    budget = amc_tf.Budget(macs=macs)
    problem = problem_of(unet, OPEN, budget)
    check(problem, budget, OPEN)
    assert least(problem) <= macs


def test_what_cannot_be_met_is_refused(unet):
    budget = amc_tf.Budget(macs=0.0001)
    with pytest.raises(amc_tf.AmcError, match="cannot be reached"):
        check(problem_of(unet, OPEN, budget), budget, OPEN)


def test_what_the_user_says_stays(unet):
    given = amc_tf.SearchSettings(rounding=8, min_preserve=0.2)
    budget = amc_tf.Budget(macs=0.02)
    assert roundings(unet, given) == [8] * 5
    with pytest.raises(amc_tf.AmcError, match="cannot be reached"):
        check(problem_of(unet, given, budget), budget, given)
    half = amc_tf.SearchSettings(min_preserve=0.5)
    problem = problem_of(unet, half, amc_tf.Budget(params=0.3))
    assert [int(counts[0]) for counts in problem.choices] == [4, 8, 16, 8, 4]
    assert told_choices(problem, given) == ""
    single = amc_tf.Constraints(rounding={"conv2d*": 1})
    assert set(roundings(unet, amc_tf.SearchSettings(constraints=single))) == {1}


def test_wide_networks_keep_multiples_of_eight():
    graph = amc_tf.analyze(keras.applications.MobileNetV2((96, 96, 3), weights=None))
    wide = roundings(graph, OPEN)
    widths = [group.channels for group in graph.groups.values()]
    assert {r for r, width in zip(wide, widths, strict=True) if width >= 32} == {8}


def test_a_run_goes_on_with_what_it_began_with(tmp_path):
    assert as_begun(OPEN, tmp_path) == OPEN
    (tmp_path / "config.json").write_text(json.dumps({"search": {"rounding": 8}}))
    assert as_begun(OPEN, tmp_path) == amc_tf.SearchSettings(rounding=8)
    asked = amc_tf.SearchSettings(rounding=2)
    assert as_begun(asked, tmp_path) == asked
