"""The plan of one threshold against all thresholds there are, on problems small enough for that."""

import itertools

import numpy as np
import pytest
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st

import amc_tf
from amc_tf.search.agents.global_ranking import NORMALISERS, global_ranking
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem

DIVISORS = {"max": max, "mean": np.mean, "none": lambda s: 1.0}


@pytest.fixture(scope="module", params=[1, 4])
def problem(request):
    graph = amc_tf.analyze(zoo.three_convolutions())
    return channel_problem(graph, rounding=request.param)


def _counts(env, scores, *args, **more):
    ratios = global_ranking(env, scores, *args, **more)
    return np.rint(np.array(ratios) * env.problem.dense).astype(int).tolist()


def _of_threshold(choices, relative, threshold):
    """The counts of a threshold, by the definition; of two allowed counts as near, the smaller."""
    kept = [sum(score > threshold for score in scores) for scores in relative]
    pairs = zip(choices, kept, strict=True)
    return [min(allowed.tolist(), key=lambda c: (abs(c - n), c)) for allowed, n in pairs]


def _scores(seed, problem, ties):
    rng = np.random.default_rng(seed)
    drawn = [rng.exponential(rng.uniform(0.1, 3), size=n) for n in problem.dense]
    return [np.round(s, 1) for s in drawn] if ties else drawn


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    share=st.floats(0.15, 0.95),
    kind=st.sampled_from(["macs", "params"]),
    normaliser=st.sampled_from(list(DIVISORS)),
    ties=st.booleans(),
)
def test_the_threshold_is_the_lowest_within_the_budget(
    problem, seed, share, kind, normaliser, ties
):
    env = DecisionEnv(problem, amc_tf.Budget(**{kind: share}))
    scores = _scores(seed, problem, ties)
    counts = _counts(env, scores, normaliser)
    assert env.meets(counts)
    relative = [[s / max(DIVISORS[normaliser](g), 1e-300) for s in g] for g in map(list, scores)]
    known = sorted({s for given_scores in relative for s in given_scores})
    between = [(a + b) / 2 for a, b in itertools.pairwise(known)]
    plans = [_of_threshold(env.choices, relative, t) for t in [-1.0, *between, known[-1] + 1]]
    lowest = next(plan for plan in plans if env.meets(plan))
    # No group keeps less than its part above that threshold.
    assert all(n >= least for n, least in zip(counts, lowest, strict=True))
    # What the budget has left is used: no group can keep the next count on its own.
    for t, allowed in enumerate(env.choices):
        larger = [c for c in allowed.tolist() if c > counts[t]]
        if larger:
            assert not env.meets([*counts[:t], larger[0], *counts[t + 1 :]])


def test_of_what_is_left_the_higher_scores_get_it():
    problem = channel_problem(amc_tf.analyze(zoo.three_convolutions()), rounding=1)
    env = DecisionEnv(problem, amc_tf.Budget(params=0.6))
    scores = _scores(3, problem, ties=False)
    counts = _counts(env, scores)
    relative = [list(s / s.max()) for s in scores]
    # The same by hand: channel after channel, the best first, if the budget still holds then.
    kept = [int(n) for n in problem.least]
    ranked = sorted(((s, t) for t, group in enumerate(relative) for s in group), reverse=True)
    seen = [0] * len(kept)
    passed = False  # whether a channel did not fit: below it, groups go on one by one
    for _, t in ranked:
        seen[t] += 1
        if seen[t] <= kept[t]:
            continue
        more = [*kept[:t], seen[t], *kept[t + 1 :]]
        if env.meets(more):
            kept = more
        else:
            passed = True
    assert passed and counts == kept


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_a_group_of_no_importance_is_pruned_most(problem, normaliser):
    env = DecisionEnv(problem, amc_tf.Budget(macs=0.4))
    scores = [np.linspace(0.1, 1, n) * (t != 1) for t, n in enumerate(problem.dense)]
    ratios = global_ranking(env, scores, normaliser)
    assert ratios[1] == min(ratios) < max(ratios)


def test_the_scale_of_a_group_counts_only_where_nothing_is_divided_by(problem):
    env = DecisionEnv(problem, amc_tf.Budget(macs=0.5))
    scores = _scores(0, problem, ties=False)
    larger = [1000 * scores[0], *scores[1:]]
    for normaliser in ("max", "mean"):
        assert _counts(env, scores, normaliser) == _counts(env, larger, normaliser)
    assert _counts(env, larger, "none")[0] > _counts(env, scores, "none")[0]


def test_streams_stay_whole_while_the_others_can_meet_the_budget(problem):
    scores = [np.linspace(0.1, 1, n) for n in problem.dense]
    scores[0] /= 1000  # no channel of it would be kept
    alone = [problem.dense[0], *problem.least[1:]]
    least = problem.costs["macs"](np.array(alone)) / problem.costs["macs"](problem.dense)
    for share, whole in ((least + 0.01, True), (least - 0.01, False)):
        env = DecisionEnv(problem, amc_tf.Budget(macs=share))
        counts = _counts(env, scores, "none", streams=[0])
        assert env.meets(counts) and (counts[0] == problem.dense[0]) == whole
    assert counts == _counts(env, scores, "none")


def test_an_unknown_normaliser_is_refused(problem):
    env = DecisionEnv(problem, amc_tf.Budget(macs=0.5))
    with pytest.raises(amc_tf.AmcError, match="unknown normaliser 'sum'; choose one of 'max'"):
        global_ranking(env, _scores(0, problem, ties=False), "sum")
