"""How far a plan's outputs are from the dense network's, measured as it is scored."""

import hashlib

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf
from plans import random_plan

import amc_tf
from amc_tf.scoring import batches, tflite_scorer
from amc_tf.scoring.batches import Batch, order
from amc_tf.scoring.compared import Compared, DenseOutputs
from amc_tf.scoring.masked_scorer import MaskedScorer
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.training.divergence import FARTHEST, divergence
from amc_tf.training.score import Score


@pytest.fixture(scope="module")
def graph():
    return amc_tf.analyze(blobs.trained())


def _scorer(graph, stop_at=None, **changes):
    return fastest_scorer(graph, blobs.task(**changes), None, stop_at, compare=True)


def _each(score, plan):
    """The KL divergence of each image by hand, of networks that give logits."""
    p, q = (np.exp(score.outputs(of)[0].astype(float)) for of in (None, plan))
    p, q = (shares / shares.sum(-1, keepdims=True) for shares in (p, q))
    return (p * np.log(p / q)).sum(-1)


def test_it_is_that_of_all_images_whatever_the_batches(graph):
    score, plan = _scorer(graph, batch_size=30), random_plan(graph, 0)  # the last batch has 20
    assert score.no_divergence() == "the dense network was not scored yet"
    assert score(plan).divergence is None
    dense = score(None)
    assert dense.divergence == 0 and score.no_divergence() is None
    found = score(plan)
    assert found.divergence == pytest.approx(_each(score, plan).mean(), rel=1e-3) and not found.cut
    right = score.outputs(plan)[0].argmax(-1) == blobs.data(200, 1)[1]
    assert found == pytest.approx(right.mean())
    assert score(None).divergence == pytest.approx(0, abs=1e-9)
    assert fastest_scorer(graph, blobs.task(), None)(plan).divergence is None


def test_of_more_outputs_than_are_kept_batches_are_spread_evenly(graph, monkeypatch, caplog):
    caplog.set_level("INFO", logger="amc_tf.scoring.compared")
    # Of 20 batches of 10 images, 160 bytes each: six fit, so that every fourth is kept.
    monkeypatch.setattr(tflite_scorer, "MOST_BYTES", 1000)
    score, plan = _scorer(graph, batch_size=10), random_plan(graph, 0)
    score(None)
    assert "on 50 of 200 validation samples, as those of all take more than 1,000" in caplog.text
    batches = _each(score, plan).reshape(20, 10)
    assert score(plan).divergence == pytest.approx(batches[::4].mean(), rel=1e-3)


class _Sorted(keras.utils.PyDataset):
    """The samples by their labels, in batches of 40."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        x, y = blobs.data(200, 1)
        by_label = np.argsort(y)[40 * index : 40 * index + 40]
        return x[by_label], y[by_label]


SHUFFLED = tf.data.Dataset.from_tensor_slices(blobs.data(200, 1)).shuffle(200).batch(32)


def _least_hashes(count):
    """The labels of the samples of the least hashes, from the lowest label on."""
    x, y = blobs.data(200, 1)
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in x]
    return np.sort(y[sorted(range(len(x)), key=hashes.__getitem__)[:count]])


@pytest.mark.parametrize("batch", [10, 64, 300])
@pytest.mark.parametrize("validation", [blobs.data(200, 1), _Sorted(), list(_Sorted()), SHUFFLED])
def test_plans_may_be_scored_on_part_of_the_data(graph, validation, batch):
    """The same samples whatever their order and batches, and of all labels."""
    score = _scorer(graph, batch_size=batch, validation=validation)
    score(None)
    part = score.on_part(50)
    assert part.images == 50 and score.images is None
    labels = np.concatenate([b.labels for b, _ in part.played(None)])
    np.testing.assert_array_equal(np.sort(labels), _least_hashes(50))
    plan = random_plan(graph, 0)
    each, right = _each(part, plan), part.outputs(plan)[0].argmax(-1) == labels
    for scorer in (part, part.refitted_by(None)):
        found = scorer(plan)
        assert found == pytest.approx(right.mean()) and not found.cut
        assert found.divergence == pytest.approx(each.mean(), rel=1e-3)
    arrays = _scorer(graph)
    arrays(None)
    assert found.divergence == pytest.approx(arrays.on_part(50)(plan).divergence, rel=1e-5)
    assert score(plan).divergence == pytest.approx(_each(score, plan).mean(), rel=1e-3)
    assert score.on_part(200) is score


def test_of_part_of_the_data_hopeless_plans_are_given_up_early(graph):
    score, plan = _scorer(graph, stop_at=3.0, batch_size=10), random_plan(graph, 0)
    score(None)
    part = score.on_part(100)
    each = _each(part, plan)
    found = part(plan, beat=Score(0.0, 1e-6))
    assert found.cut and found.divergence == pytest.approx(each[:40].mean(), rel=1e-3)
    whole = part(plan, beat=Score(2.0, each.mean() + 1))
    assert not whole.cut and whole.divergence == pytest.approx(each.mean(), rel=1e-3)


def test_samples_of_different_shapes_are_scored_whole():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalMaxPooling2D()(x)))
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(9, n, n, 3)).astype("float32"), np.arange(9) % 4) for n in (6, 8)]
    graph = amc_tf.analyze(model, input_shape=(6, 6, 3))
    score = _scorer(graph, validation=batches)
    score(None)
    assert score.on_part(5) is score


def test_large_samples_are_known_by_pieces():
    x = np.zeros((3, 100, 100), "float32")
    x[1, 50, 50] = x[2, 25, 1] = 1  # a middle and a quarter
    assert len(set(batches._keys([x]))) == 3


def test_data_that_comes_in_one_order_only_is_scored_whole(graph):
    score = _scorer(graph, validation=_dataset(), keep_bytes=100)
    score(None)
    assert score.on_part(50) is score
    masked = MaskedScorer(graph, blobs.task(), None)
    assert masked.on_part(50) is masked and masked.images is None


def _mean_squares(model):
    model.compile("sgd", "mse", metrics=["accuracy"])


def _dataset(batch=50):
    return tf.data.Dataset.from_tensor_slices(blobs.data(200, 1)).batch(batch)


class _ByIndex(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        x, y = blobs.data(200, 1)
        return x[50 * index : 50 * index + 50], y[50 * index : 50 * index + 50]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"metric": "loss"}, "the metric is the loss, which is as smooth"),
        ({"compile": _mean_squares}, "the loss takes no probabilities"),
        ({"evaluate": lambda model, data: 0.5}, r"what Task\(evaluate=...\) makes of the model"),
        ({"validation": _dataset(), "keep_bytes": 100}, "is read anew for each plan"),
        ({"validation": _ByIndex(), "keep_bytes": 100}, "is read anew for each plan"),
        ({"most": 700}, "one batch take more than 700 bytes"),  # 50 images of 16 bytes
    ],
)
def test_why_there_is_none(graph, monkeypatch, changes, reason):
    changes = {"batch_size": 50, **changes}
    monkeypatch.setattr(tflite_scorer, "MOST_BYTES", changes.pop("most", 2**28))
    if "compile" in changes:
        x, y = blobs.data(200, 1)
        changes["validation"] = (x, np.eye(4, dtype="float32")[y])
    score = _scorer(graph, **changes)
    assert score(None).divergence is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(score.no_divergence())
    assert score(random_plan(graph, 0)).divergence is None


def test_a_masked_model_compares_no_outputs(graph):
    score = MaskedScorer(graph, blobs.task(), None)
    assert isinstance(score(None), Score) and "masked model" in score.no_divergence()
    assert fastest_scorer(graph, blobs.task(), None).no_divergence() == "it was not asked for"


@pytest.mark.parametrize("changes", [{"validation": _dataset()}, {"validation": _ByIndex()}])
def test_data_that_comes_again_in_its_order_is_compared(graph, changes):
    score, arrays = _scorer(graph, **changes), _scorer(graph)
    plan = random_plan(graph, 0)
    score(None), arrays(None)
    assert score(plan).divergence == pytest.approx(arrays(plan).divergence, rel=1e-5)


def test_another_refit_is_compared_with_the_same_outputs(graph):
    score, plan = _scorer(graph), random_plan(graph, 0)
    score(None)
    other = score.refitted_by(None)
    assert other.no_divergence() is None and other(plan).divergence == score(plan).divergence


def test_a_plan_that_is_far_is_given_up_by_its_divergence(graph):
    score, plan = _scorer(graph, stop_at=3.0, batch_size=10), random_plan(graph, 0)
    score(None)
    each = _each(score, plan)
    found = score(plan, beat=Score(0.0, 1e-6))  # its score beats that by far
    first = order(20)[:4]  # in a random order, four batches are the fewest
    assert found.cut and found.divergence == pytest.approx(
        each.reshape(20, 10)[first].mean(), rel=1e-3
    )
    whole = score(plan, beat=Score(2.0, each.mean() + 1))  # a score that none can beat
    assert not whole.cut and whole.divergence == pytest.approx(each.mean(), rel=1e-3)
    assert score(plan, beat=2.0).cut and score(plan, beat=Score(2.0)).cut


@pytest.fixture(scope="module")
def sides():
    """The measure of a network that gives the logit of one class."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    return divergence(model)


def _batches(outputs):
    for number, part in enumerate(outputs):
        yield Batch([part], None, None, number), [part]


def test_a_batch_that_might_hold_probabilities_is_read_as_the_others(sides):
    dense = [np.array([[-2.0], [3.0]], "float32"), np.array([[0.5]], "float32")]
    other = [np.array([[-1.0], [3.0]], "float32"), np.array([[4.0]], "float32")]
    kept = DenseOutputs(sides)
    list(kept.of(_batches(dense)))
    compared = Compared(kept)
    list(compared.of(_batches(other)))
    p, q = (1 / (1 + np.exp(-np.concatenate(x).astype(float))) for x in (dense, other))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    assert compared.divergence == pytest.approx(expected, rel=1e-4)
    assert compared.sizes == [2, 1] and compared.total == kept.images == 3


def test_outputs_that_are_not_finite_are_the_farthest(sides):
    dense = [np.full((2, 1), -2.0, "float32")] * 3
    kept = DenseOutputs(sides)
    list(kept.of(_batches(dense)))
    compared = Compared(kept)
    list(compared.of(_batches([dense[0], np.full((2, 1), np.nan, "float32"), dense[2]])))
    assert compared.distances == [0, FARTHEST, 0] and compared.divergence == FARTHEST


def test_other_batches_than_the_dense_networks_are_refused(sides):
    kept = DenseOutputs(sides)
    list(kept.of(_batches([np.zeros((2, 1), "float32")])))
    with pytest.raises(amc_tf.AmcError, match=r"have the shapes \[\(3, 1\)\].*the same batches"):
        list(Compared(kept).of(_batches([np.zeros((3, 1), "float32")])))
