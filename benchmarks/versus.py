"""The default search of this tree beside that of another commit, in one run.

    python benchmarks/versus.py --base=COMMIT --data=DIR --network=resnet56 --workdir=DIR

The commit is checked out into a temporary `git worktree`, removed at the end. For each seed both
trees search in fresh processes of this interpreter, one after the other; they take turns to go
first. Then the plans of both are scored by one measure: this tree's refit in order, on images that
decide nothing (except for ImageNet; see common/cases.py). Accuracies are before fine-tuning.

- `episode_ratio`: median seconds of an episode of AMC whose plan was new, ours / base;
  `episode_mean_ratio`: of means.
- `time_to_equal_ratio`: seconds until our best plan so far (by reward) is by the one measure at
  least as good as the plan with which the base's search ended, set-up included, over the seconds
  of the base's whole search; null if it never is. `base_found_seconds`: when the base first had
  that plan itself.
- `peak_memory_ratio`: largest resident memory of the searching process. Its largest child, the
  agent, is given apart.
- `floor_ratio`: score and refit over the floor, by benchmarks/episode.py, which records it, too.

The same command resumes an interrupted run. Run it when the machine is idle.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys

from absl import app, flags
from common import cases, comparison, record, trees
from common.intervals import difference
from common.yardstick import Yardstick

import amc_tf
from amc_tf import files
from amc_tf.pruning.importance.criteria import strongest
from amc_tf.pruning.importance.halves import Halves
from amc_tf.runs import layout
from amc_tf.runs.episode_log import read_log
from amc_tf.runs.vocabulary import AGENT
from amc_tf.runs.workdir import Workdir
from amc_tf.search.kept_importance import kept_importance
from amc_tf.search.settings import SearchSettings

BASE = flags.DEFINE_string("base", "8d9e2c0", "Commit to compare with.")
DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the searches.")
MACS = flags.DEFINE_float("macs", 0.5, "Share of the dense MACs.")
EPISODES = flags.DEFINE_integer("episodes", None, "Episodes of both; default: that of each tree.")
FLOOR = flags.DEFINE_boolean("floor", True, "Whether episode.py is run, too.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of both searches.", required=True)

MEDIANS = (
    "episode_ratio",
    "episode_mean_ratio",
    "time_to_equal_ratio",
    "peak_memory_ratio",
    "accuracy",
    "base_accuracy",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """A finished search.

    Attributes:
        workdir: folder of its log.
        done: what default_search.py wrote.
        episodes: records of its log.
        plan: the plan that it ended with.
    """

    workdir: pathlib.Path
    done: dict
    episodes: list[dict]
    plan: amc_tf.PruningPlan

    @classmethod
    def read(cls, folder: pathlib.Path) -> Search:
        workdir = folder / "run"
        found = cls(
            workdir,
            json.loads((folder / "done.json").read_text()),
            read_log(workdir / layout.EPISODES),
            amc_tf.PruningPlan.load(workdir / layout.PLAN),
        )
        if not found.seconds_of_episodes:
            raise app.UsageError(
                f"expected episodes of {AGENT!r} with plans of its own in {workdir}, received "
                "none; use more --episodes and another --workdir"
            )
        return found

    @property
    def seconds_of_episodes(self) -> list[float]:
        return comparison.scored_seconds(self.episodes, AGENT)

    def found_seconds(self) -> float | None:
        """Returns when an episode first had the channel counts of the last plan."""
        ends = zip(self.episodes, self.done["ends"], strict=True)
        return next((s for e, s in ends if tuple(e["counts"]) == self.plan.counts), None)

    def one_shot(self) -> dict[str, amc_tf.PruningPlan]:
        """Returns the best plans of the policies that need no search."""
        names = [e["policy"] for e in self.episodes]
        return {
            name: amc_tf.PruningPlan.load(self.workdir / layout.plan_file(name))
            for name in dict.fromkeys(names)
            if names.count(name) < self.done["episodes"]
        }

    def facts(self) -> dict:
        return {
            "seconds": round(self.done["seconds"], 1),
            "set_up_seconds": round(self.done["set_up_seconds"], 1),
            "episodes": self.done["episodes"],
            "episode_seconds": round(statistics.median(self.seconds_of_episodes), 3),
            "peak_mib": self.done["peak_mib"],
            "peak_mib_of_largest_child": self.done["peak_mib_of_largest_child"],
            "chosen": self.done["chosen"],
        }


def shared_flags() -> list[str]:
    data = [] if DATA.value is None else [f"--data={pathlib.Path(DATA.value).resolve()}"]
    return [*data, f"--network={NETWORK.value}"]


def child(script: str, tree: pathlib.Path, arguments: list[str], log: pathlib.Path) -> str:
    """Runs a script of this tree with the amc_tf of a tree; returns what it printed."""
    with open(log, "a") as errors:
        process = subprocess.run(
            [sys.executable, str(record.HERE / script), *shared_flags(), *arguments],
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
    if process.returncode:
        raise app.UsageError(f"{script} failed with {tree}; see the end of {log}")
    return process.stdout


def search(side: str, tree: pathlib.Path, seed: int, folder: pathlib.Path) -> None:
    """Searches, unless that is done."""
    if (folder / "done.json").exists():
        return
    folder.mkdir(exist_ok=True)
    print(f"seed {seed}: {side}", file=sys.stderr, flush=True)
    episodes = [] if EPISODES.value is None else [f"--episodes={EPISODES.value}"]
    what = [f"--tree={tree}", f"--macs={MACS.value}", f"--seed={seed}", f"--folder={folder}"]
    child("default_search.py", tree, [*what, *episodes], folder / "log.txt")


def compared(seed: int, ours: Search, base: Search, case: cases.Case, graph, judge) -> dict:
    """Compares two searches with the same seed."""
    criterion = SearchSettings().importance
    importance = kept_importance(
        Halves(graph, [case.calibration]), case.task(), criterion, Workdir(ours.workdir)
    )

    def plan_of(episode: dict) -> amc_tf.PruningPlan:
        return strongest(importance, dict(zip(graph.groups, episode["counts"], strict=True)))

    wanted = judge.accuracy(base.plan)
    best = comparison.best_so_far(ours.episodes, ours.done["ends"])
    plans = ((seconds, plan_of(episode)) for seconds, episode in best)
    equal = comparison.reached(plans, judge.accuracy, wanted)
    if equal is None:  # the refit of the last plans may have chosen a better one
        equal = comparison.reached([(ours.done["seconds"], ours.plan)], judge.accuracy, wanted)
    found = base.found_seconds()
    middle, mean = (
        comparison.ratio(of(ours.seconds_of_episodes), of(base.seconds_of_episodes))
        for of in (statistics.median, statistics.mean)
    )
    return {
        "seed": seed,
        "episode_ratio": middle,
        "episode_mean_ratio": mean,
        "time_to_equal_ratio": comparison.ratio(equal, base.done["seconds"]),
        "time_to_equal_seconds": None if equal is None else round(equal, 1),
        "base_found_seconds": None if found is None else round(found, 1),
        "peak_memory_ratio": comparison.ratio(ours.done["peak_mib"], base.done["peak_mib"]),
        "accuracy": judge.accuracy(ours.plan),
        "base_accuracy": wanted,
        "better_by": difference(judge.right(ours.plan), judge.right(base.plan)),
        "one_shot": {name: judge.accuracy(plan) for name, plan in ours.one_shot().items()},
        "ours": ours.facts(),
        "base": base.facts(),
    }


def floor(workdir: pathlib.Path) -> dict:
    """Returns what episode.py measures with the default refit."""
    kept = workdir / "floor.json"
    if not kept.exists():
        refit = [f"--refit={SearchSettings().refit}"]
        printed = child("episode.py", trees.ROOT, refit, workdir / "floor.txt")
        files.write_json(kept, json.loads(printed.splitlines()[-1]))
    return json.loads(kept.read_text())


def claim(workdir: pathlib.Path, what: dict) -> None:
    """Makes the folder, or checks that it is of the same comparison."""
    workdir.mkdir(parents=True, exist_ok=True)
    kept = workdir / "versus.json"
    if kept.exists() and (found := json.loads(kept.read_text())) != what:
        raise app.UsageError(
            f"{workdir} holds another comparison, {found}; expected {what}: use another --workdir"
        )
    files.write_json(kept, what)


def main(argv):
    del argv
    # So that the worktree is removed after a signal too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    workdir = pathlib.Path(WORKDIR.value).resolve()
    what = {
        "base_commit": trees.git("rev-parse", f"{BASE.value}^{{commit}}"),
        "network": NETWORK.value,
        "macs": MACS.value,
        "episodes": EPISODES.value,
    }
    claim(workdir, {**what, "package": trees.state_of("amc_tf")})
    seeds = [int(seed) for seed in SEEDS.value]
    with trees.checked_out(what["base_commit"]) as tree:
        turn = [("ours", trees.ROOT), ("base", tree)]
        for seed in seeds:
            turn.reverse()
            for side, of in turn:
                search(side, of, seed, workdir / f"{side}{seed}")

    measured = floor(workdir) if FLOOR.value else {}
    case = cases.load(NETWORK.value, DATA.value)
    graph = amc_tf.analyze(case.model)
    judge = Yardstick(graph, case, kept=workdir / "yardstick.json")
    rows = []
    for seed in seeds:
        ours, base = (Search.read(workdir / f"{side}{seed}") for side in ("ours", "base"))
        rows.append(compared(seed, ours, base, case, graph, judge))
    record.append(
        "versus",
        {
            **trees.present(),
            **what,
            "test_images": len(case.test[1]),
            "dense_accuracy": judge.accuracy(None),
            "seeds": rows,
            **{name: comparison.median([row[name] for row in rows]) for name in MEDIANS},
            "floor_ratio": measured.get("score_refit_over_floor"),
        },
    )


if __name__ == "__main__":
    app.run(main)
