"""The table of cases in which a result was once wrong without a word, and the program that runs it.

    python tests/helpers/silent_cases.py FOLDER [PATTERN ...]

It prints a line of JSON for each case whose title (section: name) a pattern matches, or which the
list of titles in the JSON file @FILE names.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence

import silent_data
import silent_files
import silent_labels
import silent_macs
import silent_models
import silent_numbers
import silent_restarts
import silent_reward
import silent_runs
import silent_shared
import silent_small
import silent_streams
import silent_work
from silent_judge import Case, Verdict

# The section of the issue, and its tables.
_TABLES = (
    ("0", silent_numbers.REHEARSAL),
    ("A", silent_reward.CASES),
    ("B", silent_macs.CASES),
    ("B", silent_work.CASES),
    ("C", silent_runs.CASES),
    ("C", silent_restarts.CASES),
    ("D", silent_data.CASES),
    ("D", silent_streams.CASES),
    ("D", silent_models.CASES),
    ("D", silent_labels.CASES),
    ("D", silent_numbers.CASES),
    ("E", silent_files.CASES),
    ("F", silent_small.CASES),
)
# Seconds after which a case counts as hung, where it is not the usual number.
_SECONDS: dict[str, float] = {name: 300.0 for name in silent_streams.CASES if "endless" in name}

# Cases without a search, or whose search is refused; the others take from five seconds on.
_QUICK = (
    *silent_macs.CASES,
    "amc-inspect says 100 % prunable",
    "work that cannot be counted",
    "outputs of a backbone that nobody reads",
    "data as a generator",
    "two losses of one factory",
    "calibration from a dataset sorted by class",
    "no calibration inputs",
    "NaN in calibration data",
    "NaN weights",
    "a negative variance",
    "a .keras file without config.json",
)

CASES: tuple[Case, ...] = tuple(
    Case(section, name, run, _SECONDS.get(name, Case.seconds), name not in _QUICK)
    for section, table in _TABLES
    for name, run in table.items()
)


def chosen(patterns: Sequence[str]) -> list[Case]:
    """Returns the cases whose title holds one of the patterns; all if there is none."""
    return [
        case
        for case in CASES
        if not patterns or any(re.search(pattern, case.title) for pattern in patterns)
    ]


def verdicts(cases: Sequence[Case], root: pathlib.Path, jobs: int = 1) -> Iterator[Verdict]:
    """Runs cases in new folders, so many at a time; yields in the order of the cases."""
    with (
        silent_shared.bench_of(root) as bench,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        number = itertools.count()
        yield from pool.map(lambda case: silent_shared.run(case, bench, next(number)), cases)


def main() -> None:
    folder, *patterns = sys.argv[1:]
    if patterns and patterns[0].startswith("@"):
        titles = json.loads(pathlib.Path(patterns[0][1:]).read_text())
        cases = [case for case in CASES if case.title in titles]
    else:
        cases = chosen(patterns)
    for verdict in verdicts(cases, pathlib.Path(folder)):
        print(json.dumps(dataclasses.asdict(verdict)), flush=True)


if __name__ == "__main__":
    main()
