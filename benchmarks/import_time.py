"""How long `import amc_tf` and `amc-inspect --help` take, against an older commit.

    python benchmarks/import_time.py --base=8d9e2c0

The commit is checked out into a temporary `git worktree`, removed at the end. Each round starts a
fresh process of this interpreter for each tree, with PYTHONPATH set to the tree; the trees take
turns to go first. Rounds of warm-up before them fill the caches of bytecode and of the disk. A
ratio is the median over rounds of present / base, with its quartiles. `import` and `help` are whole
processes, including the start of the interpreter; `statement` is the import alone, timed within the
process.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
from absl import app, flags
from common import record, trees

BASE = flags.DEFINE_string("base", "8d9e2c0", "Commit to compare with.")
ROUNDS = flags.DEFINE_integer("rounds", 40, "Pairs of processes of each kind.")
WARM_UP = flags.DEFINE_integer("warm_up", 3, "Pairs of processes before them, not counted.")

COMMANDS = {
    "import": ["-c", "import amc_tf"],
    # This name exists in old commits too.
    "help": ["-m", "amc_tf.run_inspect", "--help"],
    "statement": [
        "-c",
        "import time; start = time.perf_counter(); import amc_tf; "
        "print(time.perf_counter() - start, amc_tf.__file__)",
    ],
}


def seconds(kind: str, tree: pathlib.Path) -> float:
    """Times one process; fails if it does not do what it should, or imports another tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, *COMMANDS[kind]],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - start
    # absl's --help exits with 1.
    if process.returncode != (kind == "help") or (kind == "help" and "--" not in process.stdout):
        raise app.UsageError(f"{COMMANDS[kind]} failed in {tree}: {process.stderr[-2000:]}")
    if kind != "statement":
        return taken
    statement, file = process.stdout.split(maxsplit=1)
    assert pathlib.Path(file.strip()).is_relative_to(tree), (file, tree)
    return float(statement)


def compared(kind: str, present: pathlib.Path, base: pathlib.Path) -> dict:
    """Compares one command in both trees: ratio and milliseconds."""
    rounds = []
    for number in range(WARM_UP.value + ROUNDS.value):
        trees = (present, base) if number % 2 else (base, present)
        taken = {tree: seconds(kind, tree) for tree in trees}
        rounds.append((taken[present], taken[base]))
    times = np.array(rounds[WARM_UP.value :])
    low, middle, high = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75])
    ms = np.median(1e3 * times, axis=0)
    return {
        f"{kind}_ratio": round(float(middle), 4),
        f"{kind}_ratio_quartiles": [round(float(v), 4) for v in (low, high)],
        f"{kind}_ms": dict(zip(("present", "base"), ms.round(2).tolist(), strict=True)),
    }


def main(argv):
    del argv
    # So that the worktree is removed after a signal too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found = {
        **trees.present(),
        "base": trees.git("rev-parse", f"{BASE.value}^{{commit}}"),
        "rounds": ROUNDS.value,
    }
    with trees.checked_out(found["base"]) as base:
        for kind in COMMANDS:
            found |= compared(kind, trees.ROOT, base)
    record.append("import_time", found)


if __name__ == "__main__":
    app.run(main)
