"""Searchers alone, at equal evaluations: DDPG, CMA-ES, a model of the reward, random draws.

    python benchmarks/searchers.py --data=DIR --networks=resnet56,mobilenet_v1 --episodes=100 \
        --seeds=0,1,2 --policies=ddpg,cmaes,response,random --workdir=DIR

Rewards are real. `ddpg` is AMC's agent alone: it corrects the proposals of the model of the reward
in every episode (`response_share=0`). `paper` is an agent that does not know what the groups lose,
either (`sensitivity=False`). Both begin with the demonstrations of `warm_start`. `amc` is AMC as it
is, `response` the model alone. All but `paper` begin with the best plan of `knapsack`, which is
played before them. A search is a folder of `--workdir`: the same command resumes. Searchers whose
settings are the same play in one search, in which no plan is scored twice. Seconds until N
evaluations are those of a searcher's own episodes, of the scoring of its plans by others before it,
and of the search's set-up (importance, statistics, what the groups lose), which each pays whole.
Best plans are by the reward, by its refit and on its samples; there is no final refit, unless
`--set` names another one. The table tells the score and the reward of the best plan so far, and
`last` the mean reward of a searcher's last ten episodes: how good its own plans have become.
`--set` changes any of amc_tf.SearchSettings, such as `--set=ddpg.sigma=0.25`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import app, flags
from common import cases, record
from common.clock import SearchClock
from common.comparison import seconds_alone
from common.overrides import overridden

import amc_tf
from amc_tf import files
from amc_tf.errors import choices
from amc_tf.runs import layout
from amc_tf.runs.episode_log import read_log
from amc_tf.runs.vocabulary import AGENT
from amc_tf.search.plan_search import search_plan
from amc_tf.search.settings import KNAPSACK, POLICIES, SearchSettings

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORKS = flags.DEFINE_list("networks", ["resnet56"], "Names of common/cases.py.")
MACS = flags.DEFINE_float("macs", 0.5, "Share of the dense MACs.")
EPISODES = flags.DEFINE_integer("episodes", 100, "Episodes of each searcher.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the searches.")
POLICY = flags.DEFINE_list(
    "policies", ["ddpg", "cmaes", "response", "random"], "ddpg, paper, or any of amc_tf's policies."
)
SET = flags.DEFINE_multi_string("set", [], "FIELD=VALUE of SearchSettings (repeatable).")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the searches' logs.", required=True)

CHECKPOINTS = (5, 10, 25, 50, 100, 150, 200, 400)


@dataclasses.dataclass(frozen=True)
class Searcher:
    """A searcher of the study.

    Attributes:
        policy: its policy in the log.
        changes: settings of its search.
    """

    policy: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# The others play beside whichever agent is asked for, as AMC's always plays.
SEARCHERS: Mapping[str, Searcher] = {
    "ddpg": Searcher(AGENT, {"response_share": 0.0}),
    "paper": Searcher(AGENT, {"response_share": 0.0, "sensitivity": False}),
    **{name: Searcher(name) for name in POLICIES},
}


def searches(names: list[str]) -> list[tuple[list[str], Mapping[str, Any]]]:
    """Groups searchers into searches: their names, and the settings of each search."""
    agents = [name for name in names if SEARCHERS[name].policy == AGENT]
    agents.sort(key="paper".__eq__)  # last, as some of the others need what the groups lose
    others = [name for name in names if SEARCHERS[name].policy != AGENT]
    first, *rest = agents or ["ddpg"]
    groups = [[first, *others], *([name] for name in rest)]
    return [(group, SEARCHERS[group[0]].changes) for group in groups]


def played(
    case: cases.Case, settings: SearchSettings, folder: pathlib.Path
) -> tuple[SearchClock, list[dict]]:
    """Runs or resumes a search; returns its clock and its episodes."""
    workdir = folder / "run"
    workdir.mkdir(parents=True, exist_ok=True)
    with SearchClock(workdir / layout.EPISODES, folder / "clock.json") as clock:
        search_plan(case.model, case.task(), amc_tf.Budget(macs=MACS.value), workdir, settings)
    return clock, read_log(workdir / layout.EPISODES)


def course(clock: SearchClock, episodes: list[dict], policy: str) -> dict[str, np.ndarray]:
    """Returns a searcher's best plan and seconds after each of its episodes, from the first."""
    own = [e for e in episodes if e["policy"] == policy]
    rewards = np.array([e["reward"] for e in own])
    best = [int(np.argmax(rewards[: n + 1])) for n in range(len(own))]
    return {
        "score": np.array([own[at]["score"] for at in best]),
        "reward": rewards[best],
        "last": np.array([rewards[-10:].mean()]),
        "seconds": (clock.set_up or 0.0) + np.cumsum(seconds_alone(episodes, policy)),
    }


def summary(courses: list[dict[str, np.ndarray]]) -> dict[str, dict]:
    """Lists the searches of several seeds at each number of evaluations."""
    most = min(len(c["score"]) for c in courses)
    counts = [n for n in CHECKPOINTS if n < most] + [most]
    digits = {"score": 4, "reward": 5, "seconds": 1}
    return {
        str(n): {
            name: [round(float(c[name][n - 1]), places) for c in courses]
            for name, places in digits.items()
        }
        for n in counts
    }


def study(network: str, seeds: list[int], names: list[str]) -> dict:
    """Runs all searches on one network."""
    case = cases.load(network, DATA.value)
    courses: dict[str, list] = {name: [] for name in names}
    set_up = []
    for seed in seeds:
        for group, changes in searches(names):
            plain = SearchSettings(episodes=EPISODES.value, seed=seed, rounding=case.rounding)
            policies = tuple(SEARCHERS[name].policy for name in group)
            # Played first, so that all searchers begin with the best plan that is known.
            known = (KNAPSACK,) if changes.get("sensitivity", True) else ()
            settings = dataclasses.replace(
                plain,
                policies=(AGENT, *known, *policies),
                final_refit=plain.refit,
                rerank=1,
                **changes,
            )
            settings = overridden(settings, SET.value)
            # Other settings are another search, in a folder of its own.
            own = files.checksum({"settings": repr(settings), "macs": MACS.value})
            folder = pathlib.Path(WORKDIR.value) / f"{network}_{group[0]}_{seed}_{own}"
            clock, episodes = played(case, settings, folder)
            set_up.append(clock.set_up)
            for name in group:
                if name in courses:
                    courses[name].append(course(clock, episodes, SEARCHERS[name].policy))
    return {
        "set_up_seconds": round(float(np.mean(set_up)), 1),
        "validation_images": len(case.validation[0]),
        "best_after": {name: summary(found) for name, found in courses.items()},
        "last": {
            name: [round(float(c["last"][0]), 5) for c in found] for name, found in courses.items()
        },
    }


def main(argv):
    del argv
    choices("policy", POLICY.value, SEARCHERS)
    seeds = [int(seed) for seed in SEEDS.value]
    record.append(
        "searchers",
        {
            "names": NETWORKS.value,
            "policies": POLICY.value,
            "macs": MACS.value,
            "episodes": EPISODES.value,
            "seeds": seeds,
            "set": SET.value,
            "networks": {name: study(name, seeds, POLICY.value) for name in NETWORKS.value},
        },
    )


if __name__ == "__main__":
    app.run(main)
