"""Fine-grained pruning: kernels, densities, masks, rounds."""

import json

import blobs
import keras
import numpy as np
import pytest
import zoo
from keras import layers as kl

import amc_tf
from amc_tf.search.env.base import DecisionEnv
from amc_tf.sparsity import masks
from amc_tf.sparsity.kernels import STEPS, kernels
from amc_tf.sparsity.plan import DensityPlan
from amc_tf.sparsity.problem import density_problem
from amc_tf.sparsity.refit import SparseReconstruction
from amc_tf.sparsity.rounds import sparsify
from amc_tf.sparsity.settings import SparsitySettings

SETTINGS = SparsitySettings(densities=(0.5, 0.3))


def _sparsified(net, task, workdir):
    search = blobs.search_settings(episodes=4, policies=("amc", "uniform", "random"))
    return sparsify(net, task, workdir, SETTINGS, search)


@pytest.fixture(scope="module")
def net():
    return blobs.trained()


def test_kernels_and_their_costs_by_hand():
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)  # 16 positions, 108 weights
    x = kl.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    shared = kl.Dense(4, use_bias=False, name="shared")  # 16 weights at 16 positions, twice
    x = shared(shared(x))
    model = keras.Model(inputs, kl.Dense(5, name="top")(kl.GlobalAveragePooling2D()(x)))
    graph = amc_tf.analyze(model)
    found = {k.name: (k.size, k.uses) for k in kernels(graph)}
    assert found == {
        "conv/kernel": (108, 16),
        "shared/kernel": (16, 32),
        "top/kernel": (20, 1),
    }
    costs = density_problem(graph).costs
    dense = np.full(3, STEPS)
    assert costs["macs"](dense) == amc_tf.macs(graph) == 108 * 16 + 16 * 9 * 4 + 16 * 32 + 20
    assert costs["params"](dense) == amc_tf.params(graph)
    # A quarter of the first, half of the second, a twentieth (one of 20) of the third.
    steps = np.array([5, 10, 1])
    assert costs["macs"](steps) == 27 * 16 + 16 * 9 * 4 + 8 * 32 + 1
    assert costs["params"](steps) == amc_tf.params(graph) - 81 - 8 - 19


@pytest.mark.parametrize("name", ["residual", "squeeze_excite", "one_dimensional"])
def test_costs_count_what_is_not_zero(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    env = DecisionEnv(density_problem(graph, min_density=0.1), amc_tf.Budget(params=0.4))
    rng = np.random.default_rng(0)
    for _ in range(5):
        state = env.reset()
        assert state.shape == (11,) and state.min() >= 0 and state.max() <= 1
        while state is not None:
            state, _ = env.step(rng.random())
        decided = env.finish()
        assert decided.costs["params"] <= env.bounds["params"]
        weights = masks.MagnitudeMasks(graph).refit(decided.plan)
        rebuilt = amc_tf.rebuild(model, graph, None, weights)
        zeros = sum(v.size - np.count_nonzero(v) for v in weights.values())
        assert decided.costs["params"] == rebuilt.count_params() - zeros


def test_the_smallest_weights_are_zeroed(net):
    graph = amc_tf.analyze(net)
    kernel = kernels(graph)[0]
    value = np.array(kernel.weight)
    for steps in (1, 7, STEPS):
        mask = kernel.mask(steps)
        assert mask.sum() == kernel.kept(steps)
        if steps < STEPS:
            assert np.abs(value[mask]).min() >= np.abs(value[~mask]).max()
    with pytest.raises(amc_tf.AmcError, match="kernel 'nothing/kernel', which the model lacks"):
        masks.MagnitudeMasks(graph).masks(DensityPlan(steps={"nothing/kernel": 3}))


def test_plans_are_saved_and_checked(tmp_path):
    plan = DensityPlan(steps={"a/kernel": 3})
    plan.save(tmp_path / "plan.json")
    assert DensityPlan.load(tmp_path / "plan.json") == plan
    for steps in (0, 21, 2.5, True):
        with pytest.raises(amc_tf.AmcError, match="in twentieths, 1 to 20, received"):
            DensityPlan(steps={"a/kernel": steps})
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(amc_tf.AmcError, match="not a plan of densities"):
        DensityPlan.load(tmp_path / "other.json")
    with pytest.raises(amc_tf.AmcError, match="no plan of densities"):
        DensityPlan.load(tmp_path / "missing.json")


def test_masks_stay_through_any_training_that_uses_an_optimizer(net):
    graph = amc_tf.analyze(net)
    plan = DensityPlan(steps={k.name: 5 for k in kernels(graph)})
    kept = masks.MagnitudeMasks(graph).masks(plan)
    sparse = amc_tf.rebuild(net, graph, None)
    masks.constrain(sparse, kept)
    before = [w.numpy() for w in sparse.weights]
    x, y = blobs.data(100, 0)
    # As a distillation does it: the model inside another, and a loop of the user's own.
    outer = keras.Model(sparse.inputs, sparse(sparse.inputs[0]))
    blobs.compile_model(outer)
    outer.fit(x, y, epochs=1, verbose=0)
    assert any(
        not np.array_equal(a, b.numpy()) for a, b in zip(before, sparse.weights, strict=True)
    )
    for name, mask in kept.items():
        value = np.array(masks._weight(sparse, name))
        assert not value[~mask].any() and np.count_nonzero(value) == mask.sum()
    masks.release(sparse, kept)
    assert all(w.constraint is None for w in sparse.weights)
    own = keras.Sequential(
        [keras.Input((3,)), kl.Dense(2, kernel_constraint="non_neg", name="dense")]
    )
    with pytest.raises(amc_tf.AmcError, match="has the constraint .* remove it"):
        masks.constrain(own, {"dense/kernel": np.ones((3, 2), bool)})


def test_kept_weights_are_refitted_by_least_squares():
    """A single layer, against NumPy's least squares over what each output may read."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(600, 6)) @ rng.normal(size=(6, 6)) + 1).astype("float32")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, kl.Dense(4, name="dense")(inputs))
    kernel, bias = (rng.normal(size=s).astype("float32") for s in ((6, 4), (4,)))
    model.get_layer("dense").set_weights([kernel, bias])
    graph = amc_tf.analyze(model)
    (name,) = (k.name for k in kernels(graph))
    plan = DensityPlan(steps={name: 10})
    (mask,) = masks.MagnitudeMasks(graph).masks(plan).values()
    found = SparseReconstruction(graph, [x]).refit(plan)
    sparse = amc_tf.rebuild(model, graph, None, found)
    wanted = x @ kernel + bias
    error = np.square(np.asarray(sparse(x)) - wanted).mean()
    best = 0.0
    for output in range(4):
        columns = np.column_stack([x[:, mask[:, output]], np.ones(len(x))]).astype(float)
        solution = np.linalg.lstsq(columns, wanted[:, output], rcond=None)[0]
        best += np.square(columns @ solution - wanted[:, output]).mean() / 4
    cut = amc_tf.rebuild(model, graph, None, masks.MagnitudeMasks(graph).refit(plan))
    # The least ridge term is a thousandth of the inputs' variance.
    assert best <= error <= 1.05 * best
    assert error < 0.6 * np.square(np.asarray(cut(x)) - wanted).mean()
    assert not found[name][~mask].any() and np.count_nonzero(found[name]) == mask.sum()


def test_a_refitted_network_is_nearer_to_the_dense_one(net):
    graph = amc_tf.analyze(net)
    plan = DensityPlan(steps={k.name: 8 for k in kernels(graph)})
    x = blobs.data(200, 5)[0]
    masked = masks.MagnitudeMasks(graph).refit(plan)
    refitted = SparseReconstruction(graph, [blobs.data(400, 0)[0]]).refit(plan)
    cut, fitted = (
        np.square(np.asarray(amc_tf.rebuild(net, graph, None, w)(x) - net(x))).mean()
        for w in (masked, refitted)
    )
    assert fitted < 0.5 * cut
    for name, value in masked.items():
        assert not refitted[name][value == 0].any()


@pytest.mark.slow
def test_rounds_search_mask_and_fine_tune(net, tmp_path):
    task = blobs.task(epochs=2)
    result = _sparsified(net, task, tmp_path)
    size = sum(k.size for k in kernels(amc_tf.analyze(net)))
    for number, (share, found) in enumerate(zip((0.5, 0.3), result["rounds"], strict=True), 1):
        model = keras.models.load_model(tmp_path / f"round{number}.keras", compile=False)
        values = [np.array(k.weight) for k in kernels(amc_tf.analyze(model))]
        nonzero = sum(np.count_nonzero(v) for v in values)
        assert nonzero <= share * size + len(values) and nonzero > 0.8 * share * size
        assert found["density"] == pytest.approx(nonzero / size, abs=0.01)
        assert found["params"] == net.count_params() - size + nonzero
        blobs.compile_model(model)
        assert model.evaluate(*task.test, verbose=0)[1] == pytest.approx(found["score"])
        assert found["score"] > 0.6  # chance is 0.25
    # The second round's zeros hold those of the first.
    first, second = (
        keras.models.load_model(tmp_path / f"round{n}.keras", compile=False) for n in (1, 2)
    )
    for a, b in zip(kernels(amc_tf.analyze(first)), kernels(amc_tf.analyze(second)), strict=True):
        gone = np.array(a.weight) == 0
        if b.kept(DensityPlan.load(tmp_path / "round2.json").steps[b.name]) <= np.sum(~gone):
            assert not np.array(b.weight)[gone].any()
    assert json.loads((tmp_path / "result.json").read_text()) == result
    stamps = [(tmp_path / f"round{n}.keras").stat().st_mtime_ns for n in (1, 2)]
    assert _sparsified(net, task, tmp_path) == result
    assert stamps == [(tmp_path / f"round{n}.keras").stat().st_mtime_ns for n in (1, 2)]
    net.save(tmp_path / "round2.keras")  # another network, which is not sparse
    with pytest.raises(amc_tf.AmcError, match=r"round2\.keras was changed after it was written"):
        _sparsified(net, task, tmp_path)
    (tmp_path / "round2.keras").unlink()
    assert _sparsified(net, task, tmp_path)["rounds"][0] == result["rounds"][0]


def test_settings_are_checked(net):
    for densities in ((), (0.5, 0.5), (0.2, 0.5), (1.0,)):
        with pytest.raises(amc_tf.AmcError, match="each less than the one before"):
            SparsitySettings(densities=densities)
    with pytest.raises(amc_tf.AmcError, match="min_density above 0 and at most .*0.2"):
        SparsitySettings(min_density=0.3)
    with pytest.raises(amc_tf.AmcError, match="min_density in"):
        density_problem(amc_tf.analyze(net), min_density=0)
