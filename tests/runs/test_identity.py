"""What makes two runs the same, and what a folder says to another one."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import subprocess
import sys

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import amc_tf
from amc_tf.runs import identity, layout
from amc_tf.runs.conditions import conditions
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.runs.lock import FolderLock
from amc_tf.runs.model_files import fingerprint as weights_of
from amc_tf.runs.result_parts import FinetunedNetwork
from amc_tf.runs.workdir import OtherRunError, Workdir
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.env.base import Outcome
from amc_tf.search.inputs import Inputs, architecture
from amc_tf.search.kept_calibration import with_kept_calibration
from amc_tf.search.kept_plan import check_plan, keep_plan
from amc_tf.search.resumption import check_conditions, check_evaluate
from amc_tf.training import fingerprint
from amc_tf.training.metric import Metric
from amc_tf.training.score import Score

X, Y = blobs.data(40, 0)


# --- data ------------------------------------------------------------------------------------


def _changed(array, index=17):
    other = array.copy()
    other[index] = 1 + other[index]
    return other


@pytest.mark.parametrize(
    "structure", [lambda a: a, lambda a: [a, a], lambda a: {"left": a}], ids=["one", "list", "dict"]
)
def test_arrays_differ_by_one_value_and_say_in_which_part(structure):
    of = fingerprint.of_data((structure(X), Y))
    assert of == fingerprint.of_data((structure(X.copy()), Y.copy()))
    inputs = fingerprint.of_data((structure(_changed(X)), Y))
    labels = fingerprint.of_data((structure(X), _changed(Y)))
    weighted = fingerprint.of_data((structure(X), Y, np.ones(40)))
    assert {name for name in of if of[name] != inputs[name]} == {"inputs"}
    assert {name for name in of if of[name] != labels[name]} == {"labels"}
    assert set(weighted) - set(of) == {"sample weights"}
    assert fingerprint.of_data((structure(X[:39]), Y)) != of
    assert fingerprint.of_data((structure(X.astype("float64")), Y))["inputs"] != of["inputs"]


def test_large_arrays_are_sampled_from_first_to_last(monkeypatch):
    monkeypatch.setattr(fingerprint, "MOST_BYTES", 1000)
    of = fingerprint.of_data((X, Y))
    for index in (0, 39):
        assert fingerprint.of_data((_changed(X, index), Y)) != of


def _dataset(x=X, y=Y, shuffled=True, augment=False):
    data = tf.data.Dataset.from_tensor_slices((x, y))
    if shuffled:
        data = data.shuffle(40)
    if augment:
        data = data.map(lambda a, b: (a + tf.random.normal(tf.shape(a)), b))
    return data.batch(16)


def test_arrays_read_by_slices_or_from_a_file_are_the_same(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(40, 5, 3)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    for most in (fingerprint.MOST_BYTES, 400):  # whole, and sampled
        monkeypatch.setattr(fingerprint, "MOST_BYTES", most)
        whole = fingerprint.of_data((x, x[:, 0, 0]))
        with monkeypatch.context() as patched:
            patched.setattr(fingerprint, "_SLICE_BYTES", 130)  # two samples and a bit
            for array in (x, np.asfortranarray(x), np.load(tmp_path / "x.npy", mmap_mode="r")):
                assert fingerprint.of_data((array, x[:, 0, 0])) == whole


def test_shuffled_data_is_recognised_in_any_order():
    of = fingerprint.of_data(_dataset())
    assert of == fingerprint.of_data(_dataset()) == fingerprint.of_data(_dataset(shuffled=False))
    assert {"inputs", "labels"} < set(of) and of["length"] == 3
    other = fingerprint.of_data(_dataset(y=_changed(Y)))
    assert {name for name in of if of[name] != other[name]} == {"labels", fingerprint.PAIRS}
    assert fingerprint.of_data(_dataset(x=X[:30], y=Y[:30])) != of


def test_of_augmented_data_the_labels_count():
    of = fingerprint.of_data(_dataset(augment=True))
    assert "inputs" not in of and of == fingerprint.of_data(_dataset(augment=True))
    assert of["labels"] == fingerprint.of_data(_dataset())["labels"]


def test_labels_belong_to_their_inputs():
    """The same inputs and the same labels, but others together."""
    turned = np.roll(Y, 1)
    assert (turned != Y).any()
    of, other = fingerprint.of_data(_dataset()), fingerprint.of_data(_dataset(y=turned))
    assert {name for name in of if of[name] != other[name]} == {fingerprint.PAIRS}
    weights = np.arange(40.0)
    first, second = (
        fingerprint.of_data(tf.data.Dataset.from_tensor_slices((X, Y, w)).batch(8))
        for w in (weights, weights[::-1])
    )
    assert {name for name in first if first[name] != second[name]} == {fingerprint.PAIRS}
    assert fingerprint.PAIRS not in fingerprint.of_data(_dataset(augment=True))
    before = {name: value for name, value in of.items() if name != fingerprint.PAIRS}
    assert (
        identity.differences(
            {"of": {"search": {"train": before}}}, {"of": {"search": {"train": of}}}
        )
        == []
    )


# --- code, compile settings, architecture ------------------------------------------------------


def _fit_with(rate, show=print):
    def fit(model):
        show("training")
        model.optimizer.learning_rate = rate
        model.fit(X, Y)

    return fit


def test_code_is_told_by_what_it_does():
    of = fingerprint.of_code(_fit_with(0.1))
    assert of == fingerprint.of_code(_fit_with(0.1)) != fingerprint.of_code(_fit_with(0.2))
    assert fingerprint.of_code(lambda m: m.fit(X)) != fingerprint.of_code(lambda m: m.evaluate(X))
    bound = functools.partial(_fit_with, rate=0.1)
    assert fingerprint.of_code(bound) != fingerprint.of_code(functools.partial(_fit_with, rate=1))
    json.dumps([of, fingerprint.of_code(bound)])


def _made(source, name, **values):
    """Returns what a script defines under a name, as another script does that was edited."""
    scope = {"keras": keras, "__name__": "script", **values}
    exec(source, scope)
    return scope[name]


_FIT = "def fit(model, *, epochs={}):\n    model.fit(x, y, epochs=epochs)"
_GLOBAL = "def fit(model):\n    model.fit(x, y, epochs={})"
_OBJECT = (
    "class Fit:\n    def __call__(self, model):\n        model.fit(x, y, epochs={})\nfit = Fit()"
)


def _enclosing(settings):
    return lambda model: model.fit(X, Y, **settings)


@pytest.mark.parametrize(
    "fit",
    [
        lambda n: _made(_FIT.format(n), "fit"),
        lambda n: _made(_GLOBAL.format("EPOCHS"), "fit", EPOCHS=n),
        lambda n: _made(_GLOBAL.format("args.epochs"), "fit", args=argparse.Namespace(epochs=n)),
        lambda n: _made(_GLOBAL.format("[EPOCHS for _ in x][0]"), "fit", EPOCHS=n),
        lambda n: _made(_OBJECT.format(n), "fit"),
        lambda n: _enclosing({"epochs": n}),
        lambda n: _enclosing(np.int64(n)),
    ],
    ids=["keyword", "global", "namespace", "inner", "class", "dict", "numpy"],
)
def test_code_is_told_by_the_settings_that_it_reads(fit):
    assert fingerprint.of_code(fit(1)) == fingerprint.of_code(fit(1))
    assert fingerprint.of_code(fit(1)) != fingerprint.of_code(fit(2))


def test_records_of_what_was_done_are_no_settings():
    source = (
        "def fit(model):\n    global calls\n    calls += 1\n    done.append(1)\n    seen['a'] = x"
    )
    scopes = [{"calls": 0, "done": [], "seen": {}}, {"calls": 1, "done": [1], "seen": {"a": X}}]
    first, second = (fingerprint.of_code(_made(source, "fit", **scope)) for scope in scopes)
    assert first == second


def _inputs(task=None, net=None, **settings):
    settings = blobs.search_settings(**settings)
    return Inputs(net or blobs.model(), task or blobs.task(train=(X, Y)), settings)


def _compiled(rate=5e-3, metrics=("accuracy",), logits=True):
    def compile(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=list(metrics))

    return compile


@pytest.mark.parametrize(
    ("stage", "changes", "aspect"),
    [
        ("finetune", {"compile": _compiled(1e-3)}, "optimizer"),
        ("finetune", {"compile": _compiled(logits=False)}, "loss"),
        ("finetune", {"epochs": 9}, "fit"),
        ("finetune", {"fine_tune": _fit_with(0.1)}, "fit"),
        ("finetune", {"train": (X, _changed(Y))}, "train"),
        ("train_dense", {"fit": _fit_with(0.1)}, "fit"),
        ("search", {"compile": _compiled(metrics=["accuracy", "mse"])}, "metrics"),
        ("search", {"metric": "loss"}, "metric"),
        ("search", {"train": (X, _changed(Y))}, "train"),
        ("search", {"validation": (X, Y)}, "validation"),
        ("search", {"calibration_size": 3}, "calibration_size"),
        ("measures", {"test": (X, Y)}, "test"),
        ("measures", {"evaluate": lambda model, data: 0.5}, "evaluate"),
    ],
)
def test_each_stage_depends_on_its_own_inputs(stage, changes, aspect):
    net = blobs.model()
    # Optimizers of one process have other names.
    before = _inputs(blobs.task(train=(X, Y), compile=_compiled()), net).of(stage)[stage]
    same = _inputs(blobs.task(train=(X, Y), compile=_compiled()), net).of(stage)[stage]
    values = {"train": (X, Y), "compile": _compiled(), **changes}
    after = _inputs(blobs.task(**values), net).of(stage)[stage]
    assert before == same
    differing = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert differing - {"loss"} == {aspect} - {"loss"} and (aspect != "loss" or "loss" in differing)


def test_a_loss_matters_to_a_search_by_gradients_alone():
    task = blobs.task(train=(X, Y))
    assert "loss" not in _inputs(task).of("search")["search"]
    assert {"loss", "train"} < set(_inputs(task, importance="taylor").of("search")["search"])
    of_probabilities = dataclasses.replace(task, compile=_compiled(logits=False))
    squares = dataclasses.replace(task, compile=lambda m: m.compile("sgd", "mse", ["accuracy"]))
    told = [_inputs(t).of("search")["search"] for t in (task, of_probabilities, squares)]
    assert told[0] == told[1] and told[0]["divergence"] == "KL divergence"
    assert told[2]["divergence"] == "relative squared error"
    given = dataclasses.replace(task, calibration=X)
    assert "train" not in _inputs(given).of("search")["search"]


_CLASS = "class Mine(Base):\n    def {}(self, *args, **kwargs):\n        return {}"


def _code(base, method, value):
    return _made(_CLASS.format(method, value), "Mine", Base=base)


def _custom(value, metric="accuracy", **given):
    """The inputs of a model with compile settings that hold code of the user's."""
    net = blobs.model()
    net.compile(**{"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **given})
    return _inputs(amc_tf.Task((X, Y), (X, Y), metric=metric, mode="min"), net)


def _without_decay(names):
    optimizer = keras.optimizers.AdamW(0.1)
    optimizer.exclude_from_weight_decay(var_names=names)
    return optimizer


_METRIC = "def distance(y, p):\n    return keras.ops.mean(p) * {}"


@pytest.mark.parametrize(
    ("stage", "aspect", "given"),
    [
        ("search", "metrics", lambda n: {"metrics": [_made(_METRIC.format(n), "distance")]}),
        ("search", "metrics", lambda n: {"metrics": [_code(keras.metrics.Mean, "result", n)()]}),
        ("search", "loss", lambda n: {"loss": _code(keras.losses.Loss, "call", n)()}),
        ("search", "loss", lambda n: {"loss_weights": [n]}),
        ("finetune", "optimizer", lambda n: {"optimizer": _without_decay([f"kernel{n}"])}),
        (
            "finetune",
            "optimizer",
            lambda n: {
                "optimizer": keras.optimizers.Adam(
                    _code(keras.optimizers.schedules.LearningRateSchedule, "__call__", n / 10)()
                )
            },
        ),
    ],
)
def test_compile_settings_are_told_by_the_code_in_them(stage, aspect, given):
    first, same, other = (_custom(n, "loss", **given(n)).of(stage)[stage] for n in (1, 1, 2))
    assert first == same
    assert {name for name in first if first[name] != other[name]} == {aspect}


def test_models_are_told_by_the_code_of_their_classes():
    def net(layer=1, step=1, test=1):
        mine = _code(keras.layers.Layer, "call", f"args[0] * {layer}")
        x = inputs = keras.Input((8, 8, 1))
        x = kl.Dense(4)(kl.Flatten()(mine()(x)))
        kind = _code(_code(keras.Model, "train_step", step), "test_step", test)
        return Inputs(
            kind(inputs, x), amc_tf.Task((X, Y), (X, Y), evaluate=len), blobs.search_settings()
        )

    def differing(**changes):
        stages = "search", "finetune"
        first, other = net().of(*stages), net(**changes).of(*stages)
        return {f"{s}.{k}" for s in first for k in first[s] if first[s][k] != other[s][k]}

    assert not differing()
    assert differing(layer=2) == {"search.architecture"}
    assert differing(step=2) == {"finetune.fit"}


def _net(activation="relu", name=None, dtype=None):
    inputs = keras.Input((4,), name=name and f"{name}_in")
    x = kl.Dense(3, activation=activation, name=name, dtype=dtype)(inputs)
    return keras.Model(inputs, kl.Dense(2)(x))


def test_an_architecture_is_more_than_its_names():
    assert architecture(_net()) == architecture(_net()) == architecture(_net(name="mine"))
    others = [_net("tanh"), _net(dtype="float64"), keras.Sequential([keras.Input((4,))])]
    assert len({architecture(net) for net in [_net(), *others]}) == 4


class Unnamed(kl.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.gain


def test_weights_without_a_name_are_known_again(tmp_path):
    def net():
        inputs = keras.Input((4,))
        return keras.Model(inputs, Unnamed()(inputs))

    first, second = net(), net()
    assert [w.name for w in first.weights] != [w.name for w in second.weights]
    first.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", {"Unnamed": Unnamed})
    assert weights_of(first) == weights_of(second) == weights_of(loaded)
    second.set_weights([np.full(4, 2.0)])
    assert weights_of(first) != weights_of(second)


# --- the folder ------------------------------------------------------------------------------


def _claim(folder, seed=1, tuning=1, **of):
    stages = {"search": {"validation": "a"}, "finetune": {"train": "a"}, "measures": {"test": "a"}}
    config = {"search": {"seed": seed}, "finetune": {"seed": tuning}, "budget": {"macs": 0.5}}
    folder.claim({**config, identity.OF: {**stages, **of}}, None)


@pytest.fixture
def folder(tmp_path):
    found = Workdir(tmp_path)
    _claim(found)
    found.update_result(finetuned=FinetunedNetwork(0.5, 1, 1), chosen="amc")
    return found


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": {"validation": "b"}}, "holds a run with other validation data; use another"),
        ({"search": {"validation": {"labels": "b"}}}, "other validation data"),
        ({"seed": 2}, "search.seed: 1 there, 2 now"),
    ],
)
def test_another_run_is_refused_and_changes_nothing(folder, changes, told):
    before = _contents(folder)
    with pytest.raises(OtherRunError, match=told):
        _claim(folder, tuning=2, **changes)
    assert _contents(folder) == before


def test_what_only_later_stages_read_drops_their_results(folder, caplog):
    _claim(folder)
    assert folder.result.finetuned and not caplog.text
    _claim(folder, finetune={"train": "b"})
    assert folder.result.finetuned is None and folder.result.chosen == "amc"
    assert "with other training data: what depends on it is made again (finetuned" in caplog.text


def test_keys_of_the_users_own_are_read_by_later_stages_or_show_elsewhere():
    before = {
        "epochs": 4,
        "budget": {"macs": 0.5},
        "fit": {"epochs": 1},
        "of": {"search": {"metric": "accuracy"}},
    }
    (own,) = identity.differences(before, {**before, "epochs": 8})
    assert own.drops == ("finetuned", "tflite", "sparse") and "epochs: 4 there, 8 now" in str(own)
    (budget,) = identity.differences(before, {**before, "budget": {"macs": 0.6}})
    assert budget.drops is None
    (fit,) = identity.differences(before, {**before, "fit": {"epochs": 2}})
    assert fit.drops is None
    untold = {**before, "of": {}}  # nothing says what the key changes in the search
    (own,) = identity.differences(untold, {**before, "epochs": 8})
    assert own.drops is None


def test_a_folder_of_an_earlier_version_says_what_it_cannot_check(folder, caplog):
    config = folder.read_json(layout.CONFIG, {})
    del config[identity.OF]
    (folder / layout.CONFIG).write_text(json.dumps(config))
    _claim(folder, search={"validation": "b"})
    assert "kept no fingerprints" in caplog.text
    assert folder.read_json(layout.CONFIG, {}) == config  # what was not checked is not adopted


@pytest.mark.parametrize("content", [None, "{}", '{"budget": null}'])
def test_a_run_without_its_configuration_is_refused(folder, content):
    (folder / layout.PLAN).write_text("{}")
    folder.record("search", [layout.PLAN])
    (folder / layout.CONFIG).unlink()
    if content is not None:
        (folder / layout.CONFIG).write_text(content)
    before = _contents(folder)
    with pytest.raises(amc_tf.AmcError, match=r"config\.json, which says of what model and data"):
        _claim(folder)
    assert _contents(folder) == before


def test_another_model_is_named(folder):
    folder.claim_model(blobs.model())
    before = _contents(folder)
    with pytest.raises(OtherRunError, match="a model with other weights"):
        folder.claim_model(blobs.model())
    assert _contents(folder) == before


# --- what is kept ----------------------------------------------------------------------------


def test_calibration_is_drawn_once_from_shuffled_data(tmp_path):
    net, folder = blobs.model(), Workdir(tmp_path)
    task = blobs.task(train=_dataset(), calibration_size=16)
    drawn = [task.calibration_inputs(net)[0] for _ in range(2)]
    assert not np.array_equal(*drawn)
    kept = [with_kept_calibration(task, net, folder).calibration_inputs(net)[0] for _ in range(2)]
    np.testing.assert_array_equal(*kept)
    path = tmp_path / "calibration.npz"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", None):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(amc_tf.AmcError, match="restore the file, or use another workdir"):
            with_kept_calibration(task, net, folder)
        path.write_bytes(whole)
    np.testing.assert_array_equal(
        with_kept_calibration(task, net, folder).calibration_inputs(net)[0], kept[0]
    )


def test_of_arrays_only_the_hash_is_kept(tmp_path):
    net, folder, task = blobs.model(), Workdir(tmp_path), blobs.task(train=(X, Y))
    with_kept_calibration(task, net, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with_kept_calibration(task, net, folder)
    with pytest.raises(amc_tf.AmcError, match="calibration inputs that this run began with"):
        with_kept_calibration(blobs.task(train=(X + 1, Y)), net, folder)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_plan_written_by_hand_is_refused(tmp_path, sealed):
    folder, path = Workdir(tmp_path), tmp_path / "plan.json"
    folder.claim({identity.OF: {}})
    check_plan(folder)
    keep_plan(folder, amc_tf.PruningPlan({"stem": [0, 3]}))
    check_plan(folder)
    if sealed:
        amc_tf.PruningPlan({"stem": [0]}).save(path)
    else:
        path.write_text(path.read_text().replace("3", "4"))
    with pytest.raises(amc_tf.AmcError, match=r"for a plan of your own.*amc_tf\.rebuild\(.*remove"):
        check_plan(folder)
    path.write_text(path.read_text()[:20])  # nobody's plan
    check_plan(folder)


def test_other_versions_are_refused_and_another_machine_is_told(tmp_path, caplog):
    folder = Workdir(tmp_path)
    check_conditions(folder, begun=False)
    check_conditions(folder, begun=True)
    assert not caplog.text
    now = conditions()
    folder.note(identity.CONDITIONS, {**now, "machine": {**now["machine"], "threads": 99}})
    check_conditions(folder, begun=True)
    assert "threads 99 there" in caplog.text and "may end with another plan" in caplog.text
    folder.note(identity.CONDITIONS, {**now, "versions": {**now["versions"], "keras": "3.0"}})
    with pytest.raises(amc_tf.AmcError, match="keras 3.0 there, .* install those again"):
        check_conditions(folder, begun=True)


def test_mended_code_goes_on_if_it_measures_the_same(tmp_path):
    folder = Workdir(tmp_path)
    check_evaluate(folder, False, blobs.task(evaluate=lambda m, d: 1 / 0), 0.75)
    mended = blobs.task(evaluate=lambda m, d: 0.75)
    check_evaluate(folder, True, mended, 0.75)
    with pytest.raises(amc_tf.AmcError, match="score of 0.5, which had 0.75"):
        check_evaluate(folder, True, mended, 0.5)
    check_evaluate(folder, True, blobs.task(evaluate=lambda m, d: 1 / 0), 0.5)  # the same code


# --- the log -----------------------------------------------------------------------------------


def _record(policy, episode, counts, score, **more):
    return {
        "policy": policy,
        "episode": episode,
        "counts": counts,
        "score": score,
        "reward": score - 1,
        **more,
    }


def test_scores_cut_short_are_of_their_own_episode_alone(tmp_path):
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path)
    log.add(_record("amc", 0, [3], 0.25, cut=True))
    log.add(_record("amc", 1, [5], 0.5))
    for read in (log, EpisodeLog(path)):
        assert read.score([3]) is None and read.score([5]) == 0.5
        assert read.played("amc", 0, [3])["score"] == 0.25
        assert read.played("amc", 0, [4]) is read.played("random", 0, [3]) is None


class _OnePlan:
    """An environment of no decisions and one plan."""

    plan, counts, metric, reward_name = "plan", (3,), Metric(), "err"

    def reset(self):
        return None

    def finish(self):
        return self

    def outcome(self, decided, score):
        cut = Score.of(score).cut
        return Outcome(decided.plan, decided.counts, (0.5,), score, score - 1, 1, 1, cut=cut)


class _Idle:
    """A searcher that is never asked."""

    def finish(self, *_):
        return {}


def test_a_plan_that_one_policy_gave_up_is_scored_whole_for_another(tmp_path):
    asked = []

    def score(plan, beat=None):
        asked.append(plan)
        return Score(0.125, cut=True) if len(asked) == 1 else 0.25

    path = tmp_path / "episodes.jsonl"
    driver = EpisodeDriver(EpisodeLog(path), _OnePlan(), score)
    for policy in ("amc", "random", "uniform"):
        driver.run(policy, _Idle(), 1)
    assert len(asked) == 2
    records = map(json.loads, path.read_text().splitlines())
    told = [(r["policy"], r["score"], r.get("cut")) for r in records]
    assert told == [("amc", 0.125, True), ("random", 0.25, None), ("uniform", 0.25, None)]
    again = EpisodeDriver(EpisodeLog(path), _OnePlan(), score)
    again.run("amc", _Idle(), 1)
    assert len(asked) == 2 and again.ranked["amc"][0].score == 0.125


def test_a_search_that_turns_elsewhere_says_so(tmp_path, caplog):
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    log.add(_record("amc", 0, [3], 0.25))
    with caplog.at_level(logging.WARNING):
        log.add(_record("amc", 0, [4], 0.5))
    assert "decides on other channels than in the log" in caplog.text


# --- the lock ----------------------------------------------------------------------------------


def test_a_forked_child_does_not_keep_the_lock_of_a_killed_owner(tmp_path):
    code = f"""
import os, pathlib, signal, time
from amc_tf.runs.lock import FolderLock
from amc_tf.runs.model_files import fingerprint as weights_of
lock = FolderLock(pathlib.Path({str(tmp_path)!r}))
with lock.held():
    child = os.fork()
    if child:
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child = int(owner.stdout.readline())
    owner.wait()
    try:
        with FolderLock(tmp_path).held():
            subprocess.run(["kill", "-0", str(child)], check=True)  # it has outlived its parent
    finally:
        subprocess.run(["kill", "-9", str(child)], check=False)
