"""In-order refit against numpy's solver, the normal equations and hand-made cases."""

import gc
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor

import keras
import marks
import numpy as np
import pytest
import zoo
from keras import layers as kl

import amc_tf
from amc_tf.graph import flattening
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.pruning.refit import in_order, solver
from amc_tf.pruning.refit.sampling import at_positions, linear_inputs

_RNG = np.random.default_rng(0)
_ALL = 10**6  # rows: every position there is
_EXACT = {"ridges": [0], "rounds": 1, "batch_size": 25}


def _images(model, count, seed):
    arrays = zoo.sample(model, batch=count, seed=seed)
    return arrays if isinstance(arrays, list) else [arrays]


def _kept(graph, ratio):
    counts = {n: max(1, int(ratio * g.channels)) for n, g in graph.groups.items()}
    return strongest(consumer_magnitude(graph), counts)


def _randomised(model):
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "variance" not in weight.name:
            weight.assign(rng.normal(size=weight.shape) * 0.3)
    return model


def _everywhere(x):
    return np.tile(np.arange(np.prod(x.shape[1:-1], dtype=int)), (len(x), 1))


def _captured(model, images, name):
    """Input and output of a model's layer (the rebuilt model shares stateless layers)."""
    found = []

    def invoke(call, args, kwargs):
        output = call.operation(*args, **kwargs)
        if call.operation.name == name:
            found.extend([keras.tree.flatten(args)[0], output])
        return output

    flattening.flatten(model).run([keras.ops.convert_to_tensor(images)], invoke)
    return found


@pytest.mark.parametrize("count", [200, 20], ids=["primal", "dual"])
@pytest.mark.parametrize("kind", ["dense", "1x1", "3x3"])
def test_equals_lstsq_on_the_same_samples(kind, count):
    x = inputs = keras.Input((6, 6, 3))
    x = kl.Conv2D(8, 3, padding="same", activation="tanh", name="producer")(x)
    if kind == "dense":
        x = kl.Dense(4, name="consumer")(kl.Flatten()(x))
    else:
        x = kl.Conv2D(4, int(kind[0]), strides=6, name="consumer")(x)
    model = _randomised(keras.Model(inputs, x))
    graph = amc_tf.analyze(model)
    plan = amc_tf.PruningPlan({"producer": [0, 2, 5]})
    images = _RNG.normal(size=(count, 6, 6, 3)).astype("float32")
    weights = in_order.gather_in_order(graph, [images], rows=_ALL, ridges=[1e-7]).refit(plan)

    consumer = model.get_layer("consumer")
    hidden = keras.Model(inputs, model.get_layer("producer").output)(images)
    if kind == "dense":
        hidden = np.asarray(hidden).reshape(count, -1)
    target = at_positions(model(images), _everywhere(model(images)))
    rows = linear_inputs(consumer, hidden, _everywhere(model(images))).astype(float)
    columns = np.tile(np.isin(np.arange(8), [0, 2, 5]), rows.shape[1] // 8)
    old = np.asarray(consumer.kernel, float).reshape(-1, 4)[columns]
    centred = rows[:, columns] - rows[:, columns].mean(0)
    # numpy's solution of least norm is the one nearest to the old weights.
    step = np.linalg.lstsq(centred, target - target.mean(0) - centred @ old, rcond=1e-6)[0]
    received = weights["consumer/kernel"].reshape(-1, 4)
    assert not received[~columns].any()
    np.testing.assert_allclose(received[columns], old + step, atol=2e-3)
    bias = target.mean(0) - rows[:, columns].mean(0) @ (old + step)
    np.testing.assert_allclose(weights["consumer/bias"], bias, atol=5e-3)


def _block(norm_behind_branch, activation_behind_sum):
    """Two residual blocks, post-activation or pre-activation."""
    x = inputs = keras.Input((5, 5, 3))
    x = kl.Conv2D(6, 3, padding="same", name="stem")(x)
    for i in range(2):
        y = kl.ReLU()(kl.BatchNormalization()(x))
        y = kl.Conv2D(8, 3, padding="same", use_bias=False, name=f"first{i}")(y)
        y = kl.ReLU()(kl.BatchNormalization()(y))
        y = kl.Conv2D(6, 3, padding="same", use_bias=not norm_behind_branch, name=f"second{i}")(y)
        if norm_behind_branch:
            y = kl.BatchNormalization(name=f"norm{i}")(y)
        x = kl.Add(name=f"sum{i}")([x, y])
        if activation_behind_sum:
            x = kl.ReLU()(x)
    model = keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))
    return _randomised(model)


@pytest.mark.parametrize(
    "norm, activation", [(True, True), (False, False)], ids=["post-activation", "pre-activation"]
)
def test_a_branch_restores_the_dense_sum_as_well_as_it_can(norm, activation):
    """In the rebuilt network, no other weights of a branch would bring its sum any nearer."""
    model = _block(norm, activation)
    graph = amc_tf.analyze(model)
    plan = amc_tf.PruningPlan({"first0": [0], "first1": [1, 2, 5, 6]})
    images = _RNG.normal(size=(60, 5, 5, 3)).astype("float32")

    def excess(**options):
        """Squared error of the second sum over the least that its branch could reach."""
        gathered = in_order.gather_in_order(graph, [images], rows=_ALL, **_EXACT, **options)
        rebuilt = amc_tf.rebuild(model, graph, plan, gathered.refit(plan))
        seen, _ = _captured(rebuilt, images, "second1")
        dense, total = (_captured(m, images, "sum1")[1] for m in (model, rebuilt))
        missing = np.asarray(dense - total, float).reshape(-1, 6)
        rows = linear_inputs(rebuilt.get_layer("second1"), seen, _everywhere(total)).astype(float)
        rows = np.column_stack([rows, np.ones(len(rows))])
        least = missing - rows @ np.linalg.lstsq(rows, missing, rcond=None)[0]
        return np.square(missing).sum() / np.square(least).sum()

    assert excess() < 1.01
    assert excess(residual=False) > 1.05


def test_without_a_plan_nothing_is_touched():
    model = zoo.build("residual")
    graph = amc_tf.analyze(model)
    gathered = in_order.gather_in_order(graph, _images(model, 8, 0))
    assert gathered.refit(amc_tf.PruningPlan({})) == {}


def test_only_what_deviates_from_the_dense_network_is_refitted():
    model = _block(True, True)
    graph = amc_tf.analyze(model)
    gathered = in_order.gather_in_order(graph, _images(model, 16, 0))
    assert set(gathered.refit(amc_tf.PruningPlan({"first1": [0, 1, 2]}))) == {
        "second1/kernel",
        "norm1/moving_mean",
        f"{model.layers[-1].name}/kernel",
        f"{model.layers[-1].name}/bias",
    }


@pytest.mark.parametrize("name", ["residual", "shared_layers"])
def test_images_a_pass_follow_the_memory_and_change_nothing(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    images, plan = _images(model, 30, 3), _kept(graph, 0.7)
    one = in_order._largest(graph.network, [array[:1] for array in images])

    def refitted(limit):
        # Two blocks, of which the second is cut short.
        options = dict(batch_size=20, batch_bytes=limit, rows=90)
        gathered = in_order.gather_in_order(graph, images, **options)
        sizes = [batch.stop - batch.start for batch in gathered.runner.batches]
        return gathered.refit(plan), sizes

    whole, sizes = refitted(20 * one)
    assert sizes == [20, 10]
    small, sizes = refitted(8 * one - 1)
    assert sizes == [7, 7, 6, 5, 5]
    assert set(whole) == set(small)
    for weight, value in whole.items():
        np.testing.assert_allclose(small[weight], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", marks.slow_but(sorted(zoo.ZOO), marks.VARIED))
def test_outputs_come_nearer_to_the_dense_network(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    plan = _kept(graph, 0.7)
    images, held_out = _images(model, 300, 3), _images(model, 100, 4)
    weights = in_order.gather_in_order(graph, images, batch_size=128).refit(plan)
    assert any(key.endswith("kernel") for key in weights)

    def outputs(m):
        return zoo.outputs(m, held_out if len(held_out) > 1 else held_out[0])

    dense = outputs(model)
    fitted = outputs(amc_tf.rebuild(model, graph, plan, weights))
    masked = outputs(amc_tf.mask(model, graph, plan, weights))
    unfitted = outputs(amc_tf.rebuild(model, graph, plan))

    def error(received):
        return sum(np.square(a - b).mean() / b.var() for a, b in zip(received, dense, strict=True))

    assert all(np.isfinite(a).all() for a in fitted)
    for a, b in zip(fitted, masked, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())
    assert error(fitted) < error(unfitted)


def test_what_a_rectifier_clips_away_does_not_count():
    model = _block(True, True)
    graph = amc_tf.analyze(model)
    plan = amc_tf.PruningPlan({"first1": [0, 1, 2]})
    images = _RNG.normal(size=(60, 5, 5, 3)).astype("float32")

    def error(rounds):
        gathered = in_order.gather_in_order(graph, [images], rows=_ALL, rounds=rounds)
        rebuilt = amc_tf.rebuild(model, graph, plan, gathered.refit(plan))
        sums = [np.maximum(_captured(m, images, "sum1")[1], 0) for m in (rebuilt, model)]
        return np.square(sums[0] - sums[1]).mean()

    one, two, many = error(1), error(2), error(12)
    assert many < two < one


def test_wanted_leaves_an_output_alone_that_its_path_ignores():
    goal = solver.wanted(
        np.array([[3.0, 3.0]]), np.array([2.0, 0.0]), np.array([[1.0, 1.0]]), (-np.inf, np.inf)
    )
    np.testing.assert_allclose(goal(np.array([[7.0, 8.0]]), slice(None)), [[1.0, 8.0]])


def test_wanted_asks_nothing_beyond_what_is_clipped():
    goal = solver.wanted(
        np.array([[-2.0, -2.0, 9.0, 9.0, 4.0]]), np.ones(5), np.zeros((1, 5)), (0.0, 6.0)
    )
    received = goal(np.array([[-5.0, 1.0, 5.0, 8.0, -1.0]]), slice(None))
    np.testing.assert_allclose(received, [[-5.0, 0.0, 6.0, 8.0, 4.0]])


def test_wide_layers_are_fitted_on_more_rows():
    inputs = keras.Input((12, 12, 3))
    x = kl.Conv2D(8, 1, use_bias=False, name="a")(inputs)  # 3 features
    x = kl.Conv2D(4, 3, use_bias=False, name="b")(x)  # 72 features, 100 positions
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2)(kl.Flatten()(x))))
    images = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("float32")

    def rows(**options):
        gathered = in_order.gather_in_order(graph, [images], rows=16, **options)
        found = {c.site.name: len(c.targets()) for c in gathered.consumers.values()}
        return found["a"], found["b"]

    assert rows(rows_per_feature=0) == (16, 16)
    assert rows(rows_per_feature=4) == (16, 8 * 36)
    assert rows(rows_per_feature=4, most_rows=80) == (16, 80)
    assert rows(rows_per_feature=32) == (96, 800)  # all positions there are


@pytest.mark.parametrize("features", [6, 60])  # fewer and more than rows
def test_inputs_may_be_tiny(features):
    """A factor of all inputs is one of the weights; a new model's values shrink layer by layer."""
    rng = np.random.default_rng(0)
    x = rng.normal(1, 1, (40, features)).astype("float32")
    kernel = rng.normal(size=(features, 3)).astype("float32")
    bias = rng.normal(size=3).astype("float32")
    target = rng.normal(size=(40, 3)).astype("float32")
    goals = [solver.wanted(target, np.ones(3), np.zeros((1, 3)), (0.0, 6.0))] * 2
    found = []
    with ThreadPoolExecutor(2) as pool:
        for power in (0, 64):
            found.append(
                solver.fit(
                    np.ldexp(x, -power),
                    np.ldexp(kernel, power),
                    bias,
                    goals,
                    pool,
                    ridges=(1e-3, 1e-1),
                    held=np.arange(40) % 5 == 0,
                    centred=True,
                )
            )
    np.testing.assert_allclose(np.ldexp(found[1][0], -64), found[0][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-4)


@pytest.mark.parametrize("name", ["residual", "shared_layers", "one_dimensional"])
def test_targets_in_a_file_are_those_in_memory_and_go_with_the_refit(name):
    model = _randomised(zoo.build(name))
    graph, images = amc_tf.analyze(model), _images(model, 30, 0)
    plan = _kept(graph, 0.5)
    files = _deleted_files()
    in_file = in_order.gather_in_order(graph, images, in_file=True)
    assert _deleted_files() == files + 1
    found = in_file.refit(plan), in_order.gather_in_order(graph, images).refit(plan)
    assert found[0].keys() == found[1].keys() != set()
    for weight, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][weight])
    del in_file
    gc.collect()
    assert _deleted_files() == files


def _deleted_files():
    links = pathlib.Path("/proc/self/fd").iterdir()
    return sum("(deleted)" in os.readlink(link) for link in links if link.is_symlink())
