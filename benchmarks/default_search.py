"""One search with the default settings of the amc_tf in --tree, timed; a child of versus.py.

    PYTHONPATH=TREE python benchmarks/default_search.py --tree=TREE --data=DIR --folder=DIR

Only names that every version of amc_tf has are used, and memory is kept as the tree's commands keep
it. The clock runs from the call of `search_plan`, when network and images are in memory. The same
command resumes.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import resource

from absl import app, flags
from common import cases
from common.clock import SearchClock

import amc_tf

TREE = flags.DEFINE_string("tree", None, "Tree that amc_tf must come from.", required=True)
DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
MACS = flags.DEFINE_float("macs", 0.5, "Share of the dense MACs.")
EPISODES = flags.DEFINE_integer("episodes", None, "Episodes; default: that of the tree.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the search.")
FOLDER = flags.DEFINE_string("folder", None, "Folder of the results.", required=True)


def peak_mib(who: int) -> int:
    return round(resource.getrusage(who).ru_maxrss / 1024)


def main(argv):
    del argv
    if not pathlib.Path(amc_tf.__file__).resolve().is_relative_to(pathlib.Path(TREE.value)):
        raise app.UsageError(f"expected amc_tf of {TREE.value}, received {amc_tf.__file__}")
    with contextlib.suppress(ImportError):  # an older tree
        from amc_tf.cli import memory

        memory.keep_freed()
    folder = pathlib.Path(FOLDER.value)
    workdir = folder / "run"
    workdir.mkdir(parents=True, exist_ok=True)
    case = cases.load(NETWORK.value, DATA.value)
    episodes = {} if EPISODES.value is None else {"episodes": EPISODES.value}
    settings = amc_tf.SearchSettings(seed=SEED.value, rounding=case.rounding, **episodes)
    budget = amc_tf.Budget(macs=MACS.value)
    with SearchClock(workdir / "episodes.jsonl", folder / "clock.json") as clock:
        found = amc_tf.search_plan(case.model, case.task(), budget, workdir, settings)
    done = {
        "seconds": clock.whole,
        "set_up_seconds": clock.set_up,
        "ends": clock.ends,
        "peak_mib": peak_mib(resource.RUSAGE_SELF),
        "peak_mib_of_largest_child": peak_mib(resource.RUSAGE_CHILDREN),
        "chosen": found.chosen,
        "episodes": settings.episodes,
    }
    written = folder / "done.new"
    written.write_text(json.dumps(done))
    written.rename(folder / "done.json")


if __name__ == "__main__":
    app.run(main)
