"""Cases in which a result could be wrong without a word: each is right, or told in one sentence.

All of them are run by benchmarks/silent.py; here those that take a second or two, and the others if
slow tests are asked for.
"""

import json
import subprocess
import sys

import pytest
import silent_cases
from places import HELPERS

QUICK = [case for case in silent_cases.CASES if not case.slow]
SLOW = [case for case in silent_cases.CASES if case.slow]


def _verdicts(folder, cases, seconds):
    """In a process that has not computed anything yet, so that it may fork."""
    titles = folder / "titles.json"
    titles.write_text(json.dumps([case.title for case in cases]))
    done = subprocess.run(
        [sys.executable, HELPERS / "silent_cases.py", folder / "run", f"@{titles}"],
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    told = map(json.loads, done.stdout.splitlines())
    return {f"{v['section']}: {v['case']}": v for v in told}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return _verdicts(tmp_path_factory.mktemp("quick"), QUICK, 600)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return _verdicts(tmp_path_factory.mktemp("slow"), SLOW, 7200)


def _judge(verdict):
    assert verdict["word"] in ("right", "told"), verdict


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.title)
def test_right_or_told(quick, case):
    _judge(quick[case.title])


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.title)
def test_right_or_told_after_longer_work(slow, case):
    _judge(slow[case.title])


def test_every_part_of_the_table_is_known_by_its_title():
    titles = [case.title for case in silent_cases.CASES]
    assert len(set(titles)) == len(titles) > 200
    assert {case.section for case in silent_cases.CASES} == set("0ABCDEF")
