"""What each part of the agent gains: variants of DDPG, and others, on a model of a real reward.

    python benchmarks/agent.py --data=DIR --network=resnet56 --log=WORKDIR/episodes.jsonl

Hundreds of searches with real rewards would take weeks. So the reward of this study is a Gaussian
process, fitted to the real evaluations in the logs of searches (benchmarks/search.py; `--log` may
be given several times, all of one network and refit). How well it predicts an evaluation that was
left out is part of the result. What wins here is confirmed with real rewards by
benchmarks/search.py.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable

import numpy as np
from absl import app, flags
from common import cases, record

import amc_tf
from amc_tf.runs.episode_log import read_log
from amc_tf.search.agents.cma_es import EvolutionSearcher
from amc_tf.search.agents.ddpg.process import DdpgSearcher
from amc_tf.search.agents.ddpg.settings import DdpgSettings
from amc_tf.search.agents.guided import GuidedSearcher
from amc_tf.search.agents.handcrafted import PROFILES, FixedSearcher, profile
from amc_tf.search.agents.random import RandomSearcher
from amc_tf.search.agents.response_surface import ResponseSearcher
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.env.problem import NUM_FEATURES, Problem

DATA = flags.DEFINE_string("data", None, "Folder of networks and images.")
NETWORK = flags.DEFINE_string("network", "resnet56", "One of common/cases.py.")
LOG = flags.DEFINE_multi_string("log", [], "episodes.jsonl of searches with real rewards.")
EPISODES = flags.DEFINE_integer("episodes", 200, "Episodes of each search.")
SEEDS = flags.DEFINE_integer("seeds", 3, "Number of searches of each variant.")
PROCESSES = flags.DEFINE_integer("processes", 2, "Searches at a time.")
ONLY = flags.DEFINE_multi_string("only", None, "A variant to run (repeatable); default all.")

CHECKPOINTS = (25, 50, 100, 200, 400)


class Surrogate:
    """A Gaussian process: a quadratic in every ratio plus a squared exponential for the rest."""

    def __init__(self, ratios: np.ndarray, rewards: np.ndarray):
        self._x, self._mean = ratios, rewards.mean()
        best = -np.inf
        for length in (0.5, 1.0, 2.0, 4.0):
            for smooth in (0.05, 0.3):
                for noise in (1e-4, 1e-3, 1e-2):
                    self._scales = length, smooth
                    inverse = np.linalg.inv(self._kernel(ratios) + noise * np.eye(len(ratios)))
                    weights = inverse @ (rewards - self._mean)
                    left_out = weights / np.diag(inverse)  # leave-one-out errors
                    r2 = 1 - np.mean(left_out**2) / rewards.var()
                    if r2 > best:
                        best, kept = r2, (self._scales, weights)
        self.r2, (self._scales, self._weights) = float(best), kept

    def _kernel(self, x: np.ndarray) -> np.ndarray:
        length, smooth = self._scales
        gaps = np.square(x[:, None] - self._x[None]).sum(-1) / x.shape[1]
        additive = sum((x**k) @ (self._x**k).T / x.shape[1] for k in (1, 2))
        return 1 + additive + smooth * np.exp(-gaps / (2 * (0.3 * length) ** 2))

    def __call__(self, ratios: np.ndarray) -> float:
        return float(self._mean + (self._kernel(ratios[None]) @ self._weights)[0])


class Blinkered:
    """A searcher that sees only some features of the state."""

    def __init__(self, searcher, features):
        self._searcher, self._features = searcher, list(features)
        self.finish = searcher.finish

    def act(self, state):
        seen = np.zeros_like(state)
        seen[self._features] = state[self._features]
        return self._searcher.act(seen)


def ddpg(env: DecisionEnv, seed: int, episodes: int, features=None, **changes):
    agent = DdpgSearcher(DdpgSettings(**changes).over(episodes), NUM_FEATURES, seed)
    return agent if features is None else Blinkered(agent, features)


def handcrafted(env: DecisionEnv, name: str) -> list[float]:
    return env.fitted(profile(name, len(env)).tolist())


def centred(env: DecisionEnv, seed: int, episodes: int):
    return ddpg(env, seed, episodes, warmup_centre=float(np.mean(handcrafted(env, "uniform"))))


def guided(env: DecisionEnv, seed: int, episodes: int, share: float = 0.0, **changes):
    response = ResponseSearcher(env, handcrafted(env, "uniform"), seed=seed) if share else None
    demonstrations = [handcrafted(env, name) for name in PROFILES]
    agent = ddpg(env, seed, episodes, **changes)
    return GuidedSearcher(agent, demonstrations, response, share, episodes // 4)


def fixed(env: DecisionEnv, seed: int, episodes: int, name: str):
    del seed, episodes
    return FixedSearcher([handcrafted(env, name)])


def variants() -> dict[str, Callable]:
    """Returns the variants by name, each a function `make(env, seed, episodes)`."""
    part = functools.partial
    return {
        "DDPG, the paper's settings": ddpg,
        "reward on the last step": part(ddpg, reward_every_step=False),
        "no baseline": part(ddpg, baseline=False),
        "sigma 0.25": part(ddpg, sigma=0.25),
        "sigma stays above 0.05": part(ddpg, sigma_end=0.05),
        "warm-up around uniform": centred,
        "4 updates a step": part(ddpg, updates_per_step=4),
        "actor's rate 1e-3": part(ddpg, actor_learning_rate=1e-3),
        "4 updates, actor's rate 1e-3": part(ddpg, updates_per_step=4, actor_learning_rate=1e-3),
        "replay 500": part(ddpg, replay_capacity=500),
        "replay 10000": part(ddpg, replay_capacity=10000),
        "state: position alone": part(ddpg, features=(0,)),
        "state: without reduced, rest, last action": part(ddpg, features=range(8)),
        "demonstrations": guided,
        "response share 0.25": part(guided, share=0.25),
        "response share 0.5": part(guided, share=0.5),
        "response share 0.75": part(guided, share=0.75),
        "response alone": lambda env, seed, _: ResponseSearcher(
            env, handcrafted(env, "uniform"), seed=seed
        ),
        "CMA-ES": lambda env, seed, _: EvolutionSearcher(handcrafted(env, "uniform"), seed=seed),
        "random": lambda env, seed, _: RandomSearcher(seed),
        **{name: part(fixed, name=name) for name in PROFILES},
    }


def play(
    job: tuple[str, int], problem: Problem, surrogate: Surrogate, episodes: int
) -> list[float]:
    """Runs one search; returns its rewards."""
    name, seed = job
    env = DecisionEnv(problem, amc_tf.Budget(macs=0.5))
    searcher = variants()[name](env, seed, episodes)
    rewards = []
    for _ in range(1 if name in PROFILES else episodes):
        state = env.reset()
        while state is not None:
            state, _ = env.step(searcher.act(state))
        decided = env.finish()
        outcome = env.outcome(decided, surrogate(decided.counts / problem.dense))
        searcher.finish(outcome.actions, outcome.reward)
        rewards.append(outcome.score)
    return rewards


def main(argv):
    del argv
    case = cases.load(NETWORK.value, DATA.value)
    graph = amc_tf.analyze(case.model)
    channels = np.array([group.channels for group in graph.groups.values()])
    known = {tuple(e["counts"]): e["score"] for log in LOG.value for e in read_log(log)}
    surrogate = Surrogate(np.array(list(known)) / channels, np.array(list(known.values())))

    problem = channel_problem(graph, rounding=case.rounding)
    names = ONLY.value or list(variants())
    jobs = [(name, seed) for name in names for seed in range(SEEDS.value)]
    work = functools.partial(play, problem=problem, surrogate=surrogate, episodes=EPISODES.value)
    # Forked, so that the children already have the network and the surrogate.
    with multiprocessing.get_context("fork").Pool(PROCESSES.value, _inherit, (work,)) as pool:
        results = dict(zip(jobs, pool.map(_inherited, jobs, chunksize=1), strict=True))
    table = {}
    for name in names:
        best = [np.maximum.accumulate(results[name, seed]) for seed in range(SEEDS.value)]
        table[name] = {
            str(n): {
                "mean": round(float(np.mean([b[min(n, len(b)) - 1] for b in best])), 4),
                "least": round(float(min(b[min(n, len(b)) - 1] for b in best)), 4),
                "most": round(float(max(b[min(n, len(b)) - 1] for b in best)), 4),
            }
            for n in CHECKPOINTS
            if n <= EPISODES.value
        }
    record.append(
        "agent",
        {
            "network": NETWORK.value,
            "evaluations": len(known),
            "r2_left_out": round(surrogate.r2, 4),
            "best_evaluation": max(known.values()),
            "episodes": EPISODES.value,
            "seeds": SEEDS.value,
            "best_after": table,
        },
    )


def _inherit(work: Callable) -> None:
    _inherited.work = work


def _inherited(job: tuple[str, int]) -> list[float]:
    return _inherited.work(job)


if __name__ == "__main__":
    app.run(main)
