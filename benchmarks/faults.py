"""Faults in a tiny search at random moments, each followed by the same call again.

    python benchmarks/faults.py --runs=5 --kills=100

A search of 27 episodes on a made-up task is killed and left without disk space or memory, its files
are damaged, and its rewards are made invalid (tests/helpers/fault_kinds.py). After each fault the
same call must end with the plan of the undisturbed search. Its log must still hold all it held
before, and every error must be one clear sentence. `--log=FILE` keeps the verdicts, so that this
script resumes too.
"""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import sys
import tempfile

from absl import app, flags
from common import record

sys.path.append(str(record.HERE.parent / "tests/helpers"))
import fault_kinds  # noqa: E402
import fault_runs  # noqa: E402
import forked_agents  # noqa: E402 - from tests/helpers

RUNS = flags.DEFINE_integer("runs", 5, "Runs of each fault except kill -9.")
KILLS = flags.DEFINE_integer("kills", 100, "Runs of kill -9: parent, agent and both together.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of moments and places.")
LOG = flags.DEFINE_string("log", None, "File to which each verdict is appended at once.")


def planned(runs: int, kills: int) -> list[tuple[str, int]]:
    """Lists fault and number of every run; kills are shared among the three kinds of kill."""
    killed = [name for name in fault_kinds.FAULTS if name.startswith("kill")]
    counts = {name: kills * (i + 1) // len(killed) for i, name in enumerate(killed)}
    before = 0
    found = []
    for name in fault_kinds.FAULTS:
        count = runs
        if name in counts:
            count, before = counts[name] - before, counts[name]
        found += [(name, number) for number in range(count)]
    # In this order all faults had their share wherever the script is stopped.
    return sorted(found, key=lambda entry: entry[1])


def main(argv: list[str]) -> None:
    del argv
    done = pathlib.Path(LOG.value) if LOG.value else None
    told = done.read_text().splitlines() if done and done.exists() else []
    verdicts = {(v["fault"], v["number"]): v for v in map(json.loads, told)}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        with forked_agents.Agents(root / "agents") as agents:
            reference = fault_runs.Reference.made(root, agents.path)
            for name, number in planned(RUNS.value, KILLS.value):
                if (name, number) in verdicts:
                    continue
                rng = random.Random(f"{SEED.value} {name} {number}")
                run = reference.run(f"{list(fault_kinds.FAULTS).index(name)}_{number}", rng)
                with fault_runs.judged(name, run, reference) as verdict:
                    fault_kinds.FAULTS[name](run, reference, verdict)
                shutil.rmtree(run.root)
                sentence = verdict.error.split(". The end of its log:")[0]
                verdict.error = sentence.replace(str(run.workdir), "WORKDIR")
                verdicts[name, number] = {**vars(verdict), "number": number}
                print(json.dumps(verdicts[name, number]), file=sys.stderr, flush=True)
                if done:
                    with open(done, "a") as file:
                        file.write(json.dumps(verdicts[name, number]) + "\n")
            episodes = len(reference.records)
    by_fault: dict[str, list[dict]] = {}
    for verdict in verdicts.values():
        by_fault.setdefault(verdict["fault"], []).append(verdict)
    record.append(
        "faults",
        {
            "seed": SEED.value,
            "episodes": episodes,
            "seconds": round(sum(v["seconds"] for v in verdicts.values())),
            "faults": [
                {
                    "fault": name,
                    "runs": len(by_fault.get(name, [])),
                    "errors": sum(bool(v["error"]) for v in by_fault.get(name, [])),
                    "resumed": sum(v["resumed"] for v in by_fault.get(name, [])),
                    "unclear": sum(bool(v["unclear"]) for v in by_fault.get(name, [])),
                    "wrong": sum(v["wrong"] for v in by_fault.get(name, [])),
                    "lost": sum(v["lost"] for v in by_fault.get(name, [])),
                    "said": next((v["error"] for v in by_fault.get(name, []) if v["error"]), ""),
                }
                for name in fault_kinds.FAULTS
            ],
        },
    )


if __name__ == "__main__":
    app.run(main)
