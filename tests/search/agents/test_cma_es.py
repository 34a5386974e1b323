"""The evolution strategy as a searcher."""

import numpy as np

from amc_tf.search.agents.cma_es import EvolutionSearcher

STATE = np.zeros(11, np.float32)
TARGET = np.array([0.2, 0.7, 0.9, 0.4])


def _best(seed, episodes=400):
    searcher = EvolutionSearcher([0.5] * len(TARGET), seed=seed)
    rewards, points = [], []
    for _ in range(episodes):
        point = [searcher.act(STATE) for _ in TARGET]
        points.append(point)
        rewards.append(-float(np.square(np.array(point) - TARGET).sum()))
        searcher.finish(point, rewards[-1])
    return np.array(points), rewards


def test_it_finds_the_best_ratios_and_stays_in_range():
    points, rewards = _best(seed=0)
    assert points.min() >= 0 and points.max() <= 1
    np.testing.assert_allclose(points[int(np.argmax(rewards))], TARGET, atol=0.01)


def test_the_same_seed_proposes_the_same():
    np.testing.assert_array_equal(_best(1, 30)[0], _best(1, 30)[0])
    assert not np.array_equal(_best(1, 30)[0], _best(2, 30)[0])
