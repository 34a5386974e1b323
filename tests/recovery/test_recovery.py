"""A pruned network learns to give what the dense network gives, and never ends farther from it."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.recovery import recovery
from amc_tf.recovery.imitation import features, teacher, with_features
from amc_tf.training.divergence import divergence

QUICK = amc_tf.RecoverySettings(views=2600, batch_size=16, rate=3e-3)


def _net(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((12, 12, 3))
    x = kl.Conv2D(12, 3, activation="relu", name="first")(inputs)
    y = kl.Conv2D(12, 3, padding="same", use_bias=False, name="branch")(x)
    y = kl.BatchNormalization(name="norm")(y)
    x = kl.Add(name="sum")([x, y])
    x = kl.DepthwiseConv2D(3, name="depthwise")(x)
    x = kl.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, kl.Dense(4, name="logits")(x))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _images(count=60, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 3, 3, 3))
    return np.kron(coarse, np.ones((1, 4, 4, 1))).astype("float32")


HELD_OUT = _images(12, 1)


def _half(graph):
    keep = {name: range(0, group.channels, 2) for name, group in graph.groups.items()}
    return amc_tf.PruningPlan({name: tuple(kept) for name, kept in keep.items()})


def _pruned(settings=QUICK, images=None, **more):
    net = _net()
    graph = amc_tf.analyze(net)
    plan = _half(graph)
    small = amc_tf.rebuild(net, graph, plan)
    images = _images() if images is None else images
    args = small, graph, plan, [images], [HELD_OUT], net, settings
    found = amc_tf.recover(*args, **more)
    return net, small, found


def _distance(net, small, images):
    measure = divergence(net)
    return measure.of([small.predict(images, verbose=0)], [net.predict(images, verbose=0)])


def test_outputs_come_nearer_to_the_dense_network_s_on_images_that_were_not_seen():
    net, small, found = _pruned(dataclasses.replace(QUICK, views=4000))
    assert (found.images, found.held_out) == (60, 12)
    assert found.after < 0.5 * found.before and found.kept > 0
    assert found.epochs == -(-4000 // 288)  # 18 batches of 16 an epoch
    graph = amc_tf.analyze(net)
    first, others = amc_tf.rebuild(net, graph, _half(graph)), _images(100, 2)
    assert _distance(net, small, others) < 0.7 * _distance(net, first, others)


def test_the_error_is_the_divergence_on_the_images_held_out():
    net, small, found = _pruned()
    assert found.after == pytest.approx(_distance(net, small, HELD_OUT), rel=1e-3)


def test_nothing_is_worse_than_before_and_divergence_is_told(caplog):
    net, small, found = _pruned(dataclasses.replace(QUICK, rate=1e30))
    graph = amc_tf.analyze(net)
    first = amc_tf.rebuild(net, graph, _half(graph))
    assert found.kept == 0 and found.after == found.before
    assert "lower RecoverySettings(rate=" in caplog.text
    for a, b in zip(first.weights, small.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_interrupted_recovery_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    _, whole, expected = _pruned()
    backup, drawn = tmp_path / "plans" / "backup.npz", recovery.views

    def interrupted(*args):
        if args[3] == 4:
            raise KeyboardInterrupt
        return drawn(*args)

    monkeypatch.setattr(recovery, "views", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _pruned(backup=backup, of="this")
    seen = []
    monkeypatch.setattr(recovery, "views", lambda *args: seen.append(args[3]) or drawn(*args))
    _, resumed, found = _pruned(backup=backup, of="this")
    assert found == expected and seen[0] == 4
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    seen.clear()
    _pruned(backup=backup, of="another")
    assert seen[0] == 0
    backup.write_bytes(backup.read_bytes()[:100])
    seen.clear()
    _pruned(backup=backup, of="another")
    assert seen[0] == 0


def test_statistics_of_batch_norms_stay():
    net, small, _ = _pruned()
    graph = amc_tf.analyze(net)
    first = amc_tf.rebuild(net, graph, _half(graph))
    for name in ("moving_mean", "moving_variance"):
        old, new = (getattr(m.get_layer("norm"), name) for m in (first, small))
        np.testing.assert_array_equal(old, new)


def test_features_of_a_network_without_its_pruned_channels_are_the_dense_network_s():
    """Channels cut out, no weight changed: where nothing pruned was read, all features agree."""
    net = _net()
    graph = amc_tf.analyze(net)
    plan = _half(graph)
    wanted = features(graph, plan)
    assert [(f.operation, len(f.kept)) for f in wanted] == [("first", 6), ("pool", 6)]
    small = amc_tf.rebuild(net, graph, plan)
    x = _images(8)
    dense = teacher(graph, wanted)([x])
    found = with_features(small, wanted)([x])
    np.testing.assert_allclose(dense[1], found[1], atol=1e-5)  # reads nothing that is pruned
    assert dense[2].shape == found[2].shape and np.abs(dense[2] - found[2]).max() > 0
    np.testing.assert_allclose(dense[0], net(x), atol=1e-5)


def test_several_inputs_and_outputs_of_numbers():
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6,), name="a"), keras.Input((4,), name="b")]
    hidden = [kl.Dense(16, activation="relu")(x) for x in inputs]
    both = kl.Dense(16, activation="relu")(kl.Concatenate()(hidden))
    net = keras.Model(inputs, [kl.Dense(2)(both), kl.Dense(1)(both)])
    net.compile("sgd", ["mse", "mse"])
    graph = amc_tf.analyze(net)
    plan = _half(graph)
    small = amc_tf.rebuild(net, graph, plan)
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(50, n)).astype("float32") for n in (6, 4)]
    settings = dataclasses.replace(QUICK, views=2000)
    held = [array[:10] for array in data]
    found = amc_tf.recover(small, graph, plan, data, held, net, settings)
    assert found.after < 0.8 * found.before


def test_few_images_make_small_batches():
    _, _, found = _pruned(images=_images(3))
    assert found.images == 3 and 0 < found.epochs <= -(-2600 // 258)


def test_it_ends_where_nothing_is_gained_any_more(monkeypatch):
    errors = iter([5.0, 4.0, 3.0, *[6.0] * 100])
    monkeypatch.setattr(recovery._Training, "_held_error", lambda self: next(errors))
    _, _, found = _pruned(dataclasses.replace(QUICK, views=288 * 20))
    assert (found.kept, found.epochs, found.after) == (2, 11, 3.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("when", "sometimes"),
        ("views", 0),
        ("batch_size", 2.5),
        ("rate", 0.0),
        ("rate", float("nan")),
        ("average", 1.0),
        ("features", -1),
        ("seed", -1),
    ],
)
def test_settings_without_a_meaning_are_refused(name, value):
    with pytest.raises(amc_tf.AmcError, match=name):
        amc_tf.RecoverySettings(**{name: value})


def _recovered(net, images, held, **changes):
    graph = amc_tf.analyze(net)
    plan = _half(graph)
    small = amc_tf.rebuild(net, graph, plan)
    settings = dataclasses.replace(QUICK, **changes)
    return amc_tf.recover(small, graph, plan, images, held, net, settings)


def test_embeddings_are_trained():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    x = kl.Conv1D(16, 3, activation="relu")(kl.Embedding(20, 16)(inputs))
    net = keras.Model(inputs, kl.Dense(3, activation="softmax")(kl.Flatten()(x)))
    net.compile("sgd", "sparse_categorical_crossentropy")
    data = np.random.default_rng(0).integers(0, 20, (60, 6))
    assert _recovered(net, [data], [data[:20]]).kept > 0


@pytest.mark.parametrize("last", ["float32", "mixed_bfloat16"])
def test_mixed_precision_is_compared_in_float32(last):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = kl.Conv2D(8, 3, activation="relu", dtype="mixed_bfloat16")(inputs)
    x = kl.Flatten()(kl.Conv2D(8, 3, activation="relu", dtype="mixed_bfloat16")(x))
    net = keras.Model(inputs, kl.Dense(4, activation="softmax", dtype=last)(x))
    net.compile("sgd", "sparse_categorical_crossentropy")
    found = _recovered(net, [_images()], [HELD_OUT])
    assert 0 <= found.after < found.before


def test_a_feature_that_never_changes_does_not_outweigh_the_others():
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((6,)), keras.Input((2,))]
    still = kl.Dense(16, activation="tanh")(inputs[1])
    still = kl.Dense(8, activation="tanh")(kl.Dense(16, activation="tanh")(still))
    moving = kl.Dense(16, activation="relu")(inputs[0])
    net = keras.Model(inputs, kl.Dense(3)(kl.Concatenate()([moving, still])))
    net.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(60, 6)).astype("float32"), np.ones((60, 2), "float32")]
    found = _recovered(net, data, [array[:20] for array in data])
    assert found.kept > 0 and found.after < 0.9 * found.before


def test_outputs_that_are_not_finite_are_refused():
    net = _net()
    net.get_layer("logits").bias.assign([np.nan, 0, 0, 0])
    with pytest.raises(amc_tf.AmcError, match="images held out is nan before the recovery"):
        _recovered(net, [_images()], [HELD_OUT])
