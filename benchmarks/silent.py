"""Cases in which a result could be wrong without a word: right, told, silent or wrong.

    python benchmarks/silent.py --jobs=2

The cases are in tests/helpers/silent_cases.py. `--log=FILE` keeps the verdicts, so that this script
resumes; `--only=PATTERN` chooses cases by `SECTION: NAME`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags
from common import record

sys.path.append(str(record.HERE.parent / "tests/helpers"))
import silent_cases  # noqa: E402 - from tests/helpers

JOBS = flags.DEFINE_integer("jobs", 1, "Number of cases at a time.")
ONLY = flags.DEFINE_list("only", [], "Patterns of the cases that run; by default all do.")
LOG = flags.DEFINE_string("log", None, "File to which each verdict is appended at once.")


def _commit() -> str:
    command = ["git", "-C", str(record.HERE), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def main(argv: list[str]) -> None:
    del argv
    commit = _commit()
    log = pathlib.Path(LOG.value) if LOG.value else None
    lines = log.read_text().splitlines() if log and log.exists() else []
    known = {(v["section"], v["case"]): v for v in map(json.loads, lines)}
    cases = silent_cases.chosen(ONLY.value)
    left = [case for case in cases if (case.section, case.name) not in known]
    with tempfile.TemporaryDirectory() as folder:
        for verdict in silent_cases.verdicts(left, pathlib.Path(folder) / "run", JOBS.value):
            entry = dataclasses.asdict(verdict)
            known[verdict.section, verdict.case] = entry
            print(json.dumps(entry), file=sys.stderr, flush=True)
            if log:
                with open(log, "a") as file:
                    file.write(json.dumps(entry) + "\n")
    found = [known[case.section, case.name] for case in cases]
    record.append("silent", {"commit": commit, "cases": found})


if __name__ == "__main__":
    app.run(main)
