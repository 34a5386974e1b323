"""The kept plans of the benchmarks: all that results and documents cite, none damaged."""

from __future__ import annotations

import pathlib
import re

import pytest

import amc_tf
from benchmarks.common import plans

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = amc_tf.PruningPlan({"conv": (0, 2), "dense": (1,)})
OTHER = amc_tf.PruningPlan({"conv": (1,)})


def cited() -> set[str]:
    """The names of the plans that a result, a document or a configuration cites."""
    places = ("benchmarks/results/*.jsonl", "benchmarks/*.md", "*.md", "configs/*.py")
    text = "\n".join(path.read_text() for place in places for path in ROOT.glob(place))
    return set(re.findall(r"\bplans/([\w.]+)\.json\b", text))


def test_every_cited_plan_can_be_loaded():
    names = cited()
    assert len(names) > 90
    assert names == set(plans.names())
    assert all(plans.load(name).keep for name in names)


@pytest.mark.parametrize("path", ["{}", "{}.json", "plans/{}.json", "benchmarks/plans/{}.json"])
def test_a_kept_plan_is_found_by_its_name_whatever_folder_it_is_cited_in(path):
    plan = plans.load(path.format("resnet56_0.5_amc_0"))
    assert plan == plans.load("resnet56_0.5_amc_0")
    assert len(plan.keep) > 20


def test_a_file_goes_before_a_kept_plan(tmp_path):
    file = tmp_path / "resnet56_0.5_amc_0.json"
    SMALL.save(file)
    assert plans.load(file) == SMALL
    assert plans.cited(file) == "plans/resnet56_0.5_amc_0.json"


def test_an_absent_plan_is_told_with_the_names_close_to_it():
    with pytest.raises(amc_tf.AmcError, match="'resnet56_0.5_amc_9'.*plans.tar.xz.* resnet56_0.5"):
        plans.load("resnet56_0.5_amc_9")


def test_plans_are_added_and_replaced(tmp_path):
    archive = tmp_path / "plans.tar.xz"
    plans.keep({"b_0.5": SMALL}, archive)
    plans.keep({"a": SMALL, "b_0.5": OTHER}, archive)
    assert plans.names(archive) == ["a", "b_0.5"]
    assert plans.load("a", archive) == SMALL
    assert plans.load("b_0.5", archive) == OTHER


def test_the_same_plans_give_the_same_bytes_in_whatever_order_they_came(tmp_path):
    one, two = tmp_path / "one.tar.xz", tmp_path / "two.tar.xz"
    plans.keep({"a": SMALL, "b": OTHER}, one)
    plans.keep({"b": OTHER}, two)
    plans.keep({"a": SMALL}, two)
    assert one.read_bytes() == two.read_bytes()
