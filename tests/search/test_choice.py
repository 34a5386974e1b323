"""Which of the best plans is chosen, where scores are within their standard error."""

import dataclasses
import json

import blobs
import numpy as np
import pytest

import amc_tf
from amc_tf.runs.workdir import Workdir
from amc_tf.scoring.batches import Batch
from amc_tf.search.choice import Chooser
from amc_tf.training.uncertainty import Uncertainty

SAMPLES = 200


@dataclasses.dataclass
class Told:
    """A scorer of plans that are given as arrays of logits; it counts how often each is run."""

    labels: np.ndarray
    shuffled: bool = False
    runs: list = dataclasses.field(default_factory=list)

    def played(self, plan):
        self.runs.append(plan)
        logits = DENSE if plan is None else plan
        images = np.arange(SAMPLES) + (len(self.runs) if self.shuffled else 0)
        for part in (slice(0, 150), slice(150, None)):
            yield Batch([images[part]], self.labels[part], None), [logits[part]]


DENSE = 3 * np.eye(4, dtype="float32")[np.arange(SAMPLES) % 4]
LABELS = (np.arange(SAMPLES) % 4).astype("int32")


def _logits(wrong, size):
    """Answers of which the first are wrong, and whose confidence differs from the dense one's."""
    answers = DENSE * size
    answers[:wrong] = np.roll(answers[:wrong], 1, axis=1)
    return answers


def _outcome(logits, counts, reward=None, **more):
    score = float((logits.argmax(-1) == LABELS).mean())
    reward = score - 1 if reward is None else reward
    return amc_tf.Outcome(logits, counts, (), score, reward, 1, 1, **more)


@pytest.fixture(scope="module")
def net():
    return blobs.trained(epochs=0)


def _chooser(net, scorer, priced=False, deviation=0.3, **changes):
    task = blobs.task(**changes)
    known = Uncertainty({"validation": SAMPLES}, deviation)
    return Chooser(scorer, task, net, task.metric_of(net), known, priced)


def test_the_nearest_of_those_that_cannot_be_told_apart(net):
    scorer = Told(LABELS)
    plans = {
        "random": [_outcome(_logits(2, 1.5), (1,)), _outcome(_logits(3, 1.1), (2,))],
        "amc": [_outcome(_logits(3, 1.4), (3,)), _outcome(_logits(60, 1.0), (4,))],
        "deep": [_outcome(_logits(3, 1.1), (5,))],
    }
    name, outcome, choice = _chooser(net, scorer)(plans)
    # The best score is random's (1,). The others have one wrong answer more, but for (4,), which
    # is far behind; (2,) and (5,) are the nearest to the dense network, with the same outputs.
    assert (name, outcome.counts) == ("random", (2,))
    assert choice.by == "KL divergence" and choice.samples == SAMPLES
    assert [c.policy for c in choice.candidates] == ["random", "deep", "amc", "random"]
    assert [c.behind for c in choice.candidates] == pytest.approx([1 / 200] * 3 + [0])
    distances = [c.divergence for c in choice.candidates]
    assert distances == sorted(distances) and distances[0] == distances[1]
    # One answer of 200 differs, and two are added: (1 + 2 - 1 / 200) / 200^2; of 30 draws.
    errors = [c.standard_error for c in choice.candidates]
    assert errors == pytest.approx([np.sqrt(3) / 200] * 3 + [0], rel=0.25)
    sentence = choice.sentence(_chooser(net, scorer).metric)
    assert "(2 of random, 1 of deep, 1 of AMC) cannot be told apart by accuracy on 200" in sentence
    assert "one of random was chosen, whose outputs are nearest" in sentence
    # The hopeless plan was not run.
    assert len(scorer.runs) == 1 + 4


def test_wrong_answers_that_another_plan_has_right_are_told_apart_from_four_on(net):
    # sqrt(4 + 2) is 2.4, less than four; unpaired, the standard error would be larger: 1.7 %.
    plans = {"random": [_outcome(_logits(2, 1.5), (1,)), _outcome(_logits(6, 1.0), (2,))]}
    scorer = Told(LABELS)
    _, outcome, choice = _chooser(net, scorer)(plans)
    assert outcome.counts == (1,) and choice.by == "score" and len(scorer.runs) == 3
    assert len(choice.candidates) == 1


def test_of_the_same_plan_the_earlier_policy_gets_it(net):
    same = _logits(3, 1.1)
    plans = {"deep": [_outcome(same, (1,))], "random": [_outcome(same, (1,))]}
    name, _, choice = _chooser(net, Told(LABELS))(plans)
    assert name == "random" and len(choice.candidates) == 1 and not choice.sentence(None)


@pytest.mark.parametrize(
    "unknown", [{"deviation": None}, {"evaluate": lambda model, data: 0.5, "deviation": None}]
)
def test_where_nothing_is_known_of_errors_the_score_decides(net, unknown):
    plans = {"random": [_outcome(_logits(2, 1.5), (1,)), _outcome(_logits(3, 1.1), (2,))]}
    scorer = Told(LABELS)
    _, outcome, choice = _chooser(net, scorer, **unknown)(plans)
    assert outcome.counts == (1,) and choice.by == "score" and not scorer.runs


def test_data_in_another_order_each_time_is_told_and_the_score_decides(net):
    plans = {"random": [_outcome(_logits(2, 1.5), (1,)), _outcome(_logits(3, 1.1), (2,))]}
    chooser = _chooser(net, Told(LABELS, shuffled=True))
    _, outcome, choice = chooser(plans)
    assert outcome.counts == (1,) and choice.by == "score"
    assert [c.divergence for c in choice.candidates] == [None, None]
    assert "(2 of random) cannot be told apart" in choice.sentence(chooser.metric)
    assert "as the outputs cannot be compared" in choice.sentence(chooser.metric)


def test_a_reward_that_prices_a_cost_decides_alone(net):
    plans = {
        "random": [_outcome(_logits(3, 1.5), (1,), -0.1), _outcome(_logits(2, 1.1), (2,), -0.2)]
    }
    chooser = _chooser(net, Told(LABELS), priced=True)
    _, outcome, choice = chooser(plans)
    assert outcome.counts == (1,) and choice.by == "reward"
    assert "by the reward" in choice.sentence(chooser.metric)


def test_the_score_decides_though_the_search_was_by_another_reward(net):
    plans = {
        "amc": [_outcome(_logits(60, 1.0), (1,), -0.1)],
        "random": [_outcome(_logits(2, 1.5), (2,), -0.9)],
    }
    name, _, choice = _chooser(net, Told(LABELS))(plans)
    assert name == "random" and choice.by == "score"


def test_outputs_that_are_not_finite_are_the_last(net):
    broken = _logits(2, 1.5)
    broken[5, 0] = np.nan  # another wrong answer
    plans = {"amc": [_outcome(broken, (1,))], "random": [_outcome(_logits(3, 1.1), (2,))]}
    name, _, choice = _chooser(net, Told(LABELS))(plans)
    assert name == "random" and choice.candidates[1].divergence is None


def test_a_score_that_was_cut_short_is_not_compared(net):
    plans = {
        "amc": [_outcome(_logits(2, 1.5), (1,))],
        "random": [_outcome(_logits(3, 1.1), (2,), cut=True)],
    }
    assert _chooser(net, Told(LABELS))(plans)[0] == "amc"


def test_it_is_kept_and_made_again_for_other_plans(net, tmp_path):
    plans = {"random": [_outcome(_logits(2, 1.5), (1,)), _outcome(_logits(3, 1.1), (2,))]}
    scorer, folder = Told(LABELS), Workdir(tmp_path)
    first = _chooser(net, scorer).kept(plans, folder, ["ranks"])
    runs = len(scorer.runs)
    again = _chooser(net, scorer).kept(plans, folder, ["ranks"])
    assert again == first and len(scorer.runs) == runs and first[1].counts == (2,)
    _chooser(net, scorer).kept(plans, folder, ["others"])
    assert len(scorer.runs) == 2 * runs
    content = json.loads((tmp_path / "choice.json").read_text())
    assert content["counts"] == [2] and content["choice"]["by"] == "KL divergence"
