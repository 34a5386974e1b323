"""Faults of the machine, of files and of the user's code: resumed, or told in one sentence.

A hundred kills and the other faults of `fault_kinds` are done by benchmarks/faults.py; here a few.
"""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import blobs
import fault_runs
import keras
import numpy as np
import pytest
import tensorflow as tf
from places import HELPERS

import amc_tf
from amc_tf import files
from amc_tf.runs import layout
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.runs.lock import FolderLock
from amc_tf.runs.workdir import Workdir
from amc_tf.search.agents.ddpg import worker
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.channels import channel_problem
from amc_tf.training.time_limit import TimeLimitError

SOME = ("kill -9 of both", "disk full")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """In a process that has not computed anything yet, so that it may fork."""
    folder = tmp_path_factory.mktemp("faults")
    done = subprocess.run(
        [sys.executable, HELPERS / "fault_kinds.py", folder, *SOME],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return {v["fault"]: v for v in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("fault", SOME)
def test_a_search_goes_on_after(verdicts, fault):
    if fault == "disk full" and not fault_runs.can_mount():
        pytest.skip("only root can make a disk full")
    verdict = verdicts[fault]
    assert verdict["resumed"] and not verdict["wrong"] and verdict["lost"] == 0, verdict
    assert not verdict["unclear"], verdict
    assert verdict["error"] or fault.startswith("kill")


# --- one process at a time -------------------------------------------------------------------


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path):
    code = (
        "import pathlib, time; from amc_tf.runs.lock import FolderLock\n"
        f"with FolderLock(pathlib.Path({str(tmp_path)!r})).held(): print('held', flush=True); "
        "time.sleep(99)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    lock = FolderLock(tmp_path)
    with pytest.raises(amc_tf.AmcError, match=f"in use by process {holder.pid} on "), lock.held():
        pass
    with pytest.raises(amc_tf.AmcError, match="in use by"):
        amc_tf.search_plan(blobs.model(), blobs.task(), amc_tf.Budget(macs=0.5), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    again = FolderLock(tmp_path)
    with lock.held(), lock.held(), pytest.raises(amc_tf.AmcError, match=f"process {os.getpid()} "):
        again.held().__enter__()
    with FolderLock(tmp_path).held():
        pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with FolderLock(tmp_path).held():
        assert "cannot be locked (No locks available)" in caplog.text


# --- damaged files ---------------------------------------------------------------------------


def test_one_flipped_bit_of_a_log_is_found_wherever_it_is(tmp_path):
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path, "c0ffee00")
    for i in range(3):
        log.add(
            {
                "policy": "amc",
                "episode": i,
                "reward": -0.125 * i,
                "score": 1 - 0.125 * i,
                "counts": [i + 1, 7],
                "seconds": 0.25,
            }
        )
    whole = path.read_bytes()
    rng, found = random.Random(0), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read = EpisodeLog(path, "c0ffee00")
        except amc_tf.AmcError as error:
            found += 1
            assert str(path) in str(error)
            continue
        scores = [read.score([i + 1, 7]) for i in range(3)]
        # The last line is dropped if its end was hit.
        assert scores == [1, 0.875, None if place == len(whole) - 1 else 0.75]
    assert found > 0.8 * len(whole)  # all but seconds, and names of keys that need not be there


def test_a_checksum_whose_name_is_damaged_is_missed(tmp_path):
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path)
    for i in range(2):
        log.add({"policy": "amc", "episode": i, "counts": [i], "score": 0.5, "reward": -0.5})
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second.replace('"crc32"', '"crc72"'))
    with pytest.raises(amc_tf.AmcError, match=r"line 2 .*it has no checksum"):
        EpisodeLog(path)
    path.write_text(first.replace('"crc32"', '"crc72"') + second)  # as an old version began it
    assert EpisodeLog(path).score([1]) == 0.5


def test_scores_of_other_channels_are_refused(tmp_path):
    path = tmp_path / "episodes.jsonl"
    record = {"policy": "amc", "episode": 0, "counts": [1], "score": 0.5, "reward": -0.5}
    EpisodeLog(path, "00000001").add(record)
    assert EpisodeLog(path, "00000001").best(1) == [record]
    with pytest.raises(amc_tf.AmcError, match="of other channels than importance.json"):
        EpisodeLog(path, "00000002")


def test_one_flipped_bit_of_a_plan_is_found_wherever_it_is(tmp_path):
    path = tmp_path / "plan.json"
    plan = amc_tf.PruningPlan({"stem": [0, 3, 12], "head": [1]})
    plan.save(path)
    whole = path.read_bytes()
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert amc_tf.PruningPlan.load(path) == plan
        except amc_tf.AmcError as error:
            assert str(path) in str(error)
    by_hand = {k: v for k, v in json.loads(whole).items() if k != files.SEAL}
    path.write_text(json.dumps({**by_hand, "keep": {"stem": [5]}}))
    assert amc_tf.PruningPlan.load(path).keep == {"stem": (5,)}
    path.write_text(json.dumps({**json.loads(whole), "keep": {"stem": [5]}}))
    with pytest.raises(amc_tf.AmcError, match='damaged .* if you changed it .* remove its "crc32"'):
        amc_tf.PruningPlan.load(path)


def test_a_damaged_model_file_is_refused_or_whole(tmp_path):
    net = blobs.model()
    workdir = Workdir(tmp_path)
    workdir.save_model(layout.PRUNED, net)
    whole = (tmp_path / "pruned.keras").read_bytes()
    rng, refused = random.Random(0), 0
    for i in range(12):
        damaged = bytearray(whole)
        if i % 2:
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(whole)) :]
        (tmp_path / "pruned.keras").write_bytes(damaged)
        try:
            loaded = workdir.load_model(layout.PRUNED)
        except amc_tf.AmcError as error:
            refused += 1
            assert "delete it and run amc-search again" in str(error)
            continue
        for a, b in zip(loaded.weights, net.weights, strict=True):
            np.testing.assert_array_equal(a, b)
    assert refused >= 6


def test_a_damaged_importance_says_what_to_do(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_json("importance.json", {"criterion": "taylor", "scores": {"stem": [0.5]}})
    assert workdir.read_json("importance.json", {})["scores"] == {"stem": [0.5]}
    path = tmp_path / "importance.json"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    with pytest.raises(amc_tf.AmcError, match="importance.json is damaged .* delete it and run ag"):
        workdir.read_json("importance.json", {})


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_what_was(tmp_path, monkeypatch, fails):
    path = tmp_path / "plan.json"
    files.write_json(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(amc_tf.AmcError, match="plan.json cannot be written: No space left on dev"):
        files.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_read_only_workdirs_are_refused_before_any_work(tmp_path):
    if not fault_runs.can_mount():
        pytest.skip("only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=True)
    try:
        task = blobs.task(evaluate=lambda *_: pytest.fail("nothing may be scored"))
        with pytest.raises(amc_tf.AmcError, match="cannot be written: Read-only file system"):
            amc_tf.search_plan(blobs.model(), task, amc_tf.Budget(macs=0.5), tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_clock_that_says_1970_is_told(tmp_path, monkeypatch):
    """A zip archive knows no time before 1980."""
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 0.0)
        with pytest.raises(amc_tf.AmcError, match="before 1980; set the system's clock"):
            Workdir(tmp_path).save_model(layout.PRUNED, blobs.model())
    assert not list(tmp_path.iterdir())


# --- the user's code ------------------------------------------------------------------------


def _endless():
    time.sleep(60)
    yield 0


@pytest.mark.parametrize(
    "hang",
    [
        lambda *_: time.sleep(60),
        lambda *_: next(iter(tf.data.Dataset.from_generator(_endless, output_types=tf.int32))),
    ],
    ids=["python", "dataset"],
)
def test_an_evaluate_that_hangs_is_an_error(hang):
    task = blobs.task(evaluate=hang, evaluate_timeout=0.2)
    start = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"did not end within 0.2 s; .*same call resumes"):
        task.score(None, None)
    assert time.monotonic() - start < 30


def test_a_time_limit_changes_nothing_else():
    assert blobs.task(evaluate=lambda *_: 0.25, evaluate_timeout=60.0).score(None, None) == 0.25
    for limit in (None, 60.0):
        task = blobs.task(evaluate=lambda *_: {}["x"], evaluate_timeout=limit)
        with pytest.raises(amc_tf.AmcError, match="evaluate raised KeyError: 'x'; mend it") as e:
            task.score(None, None)
        assert isinstance(e.value.__cause__, KeyError)
        task = blobs.task(evaluate_timeout=limit)
        net = blobs.model()
        blobs.compile_model(net)
        assert 0 <= task.score(net, blobs.data(50, 0)) <= 1


@pytest.mark.parametrize("score", [float("nan"), float("-inf")])
def test_rewards_that_are_not_finite_are_refused(score):
    graph = amc_tf.analyze(blobs.model())
    env = DecisionEnv(channel_problem(graph, rounding=1), amc_tf.Budget(macs=0.5))
    env.reset()
    for _ in range(len(env)):
        env.step(0.5)
    decided = env.finish()
    message = rf"plan is {re.escape(f'{score - 1:g}')} .*expected a finite number"
    with pytest.raises(amc_tf.AmcError, match=message):
        env.outcome(decided, score)
    assert env.outcome(decided, -1e30).reward == -1e30  # of any size


def test_an_agent_out_of_memory_says_so():
    class ResourceExhaustedError(Exception):  # as TensorFlow's is called
        pass

    for error in (MemoryError(), ResourceExhaustedError("OOM when allocating tensor")):
        assert worker._sentence(error).startswith("ran out of memory;")
    assert worker._sentence(ValueError("one\ntwo")) == "raised ValueError: one"


# --- files from elsewhere --------------------------------------------------------------------


def _marker(tmp_path):
    return tmp_path / "executed"


def _lambda_file(package, path, marker):
    """A model whose Lambda writes a file when it is called."""
    code = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    inputs = package.Input((3,))
    model = package.Model(inputs, package.layers.Lambda(eval(code), output_shape=(3,))(inputs))
    model.save(path)
    marker.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("package", "name"),
    [("keras", "a.keras"), ("keras", "a.h5"), ("tf_keras", "a.keras"), ("tf_keras", "a.h5")],
)
def test_a_lambda_is_executed_only_when_allowed(tmp_path, package, name):
    marker = _marker(tmp_path)
    _lambda_file(pytest.importorskip(package), tmp_path / name, marker)
    with pytest.raises(amc_tf.AmcError, match=r"safe_mode=False \(--unsafe"):
        amc_tf.load_model(tmp_path / name)
    assert not marker.exists()
    amc_tf.load_model(tmp_path / name, safe_mode=False)(np.zeros((1, 3), "float32"))
    assert marker.exists()


def _edited(path, change):
    """A Keras 2 .h5 file with another configuration."""
    import h5py
    import tf_keras

    inputs = tf_keras.Input((3,))
    tf_keras.Model(inputs, tf_keras.layers.Dense(2)(tf.abs(inputs))).save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change({layer["class_name"]: layer for layer in config["config"]["layers"]})
        file.attrs["model_config"] = json.dumps(config)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda layers: layers["TFOpLambda"]["config"].update(function="io.gfile.rmtree"),
            "rmtree",
        ),
        (lambda layers: layers["TFOpLambda"]["config"].update(function="py_function"), "py_func"),
        (lambda layers: layers["Dense"].update(module="os", class_name="System"), "'os'"),
        (
            lambda layers: layers["Dense"].update(module="keras.utils", class_name="get_file"),
            "get_f",
        ),
        (
            lambda ls: ls["Dense"]["config"].update(
                activation={
                    "class_name": "function",
                    "module": "builtins",
                    "config": "eval",
                    "registered_name": "eval",
                }
            ),
            "'eval'",
        ),
    ],
    ids=["files", "python", "modules", "downloads", "builtins"],
)
def test_keras_2_files_call_nothing_but_layers(tmp_path, change, told):
    pytest.importorskip("tf_keras")
    _edited(tmp_path / "good.h5", lambda layers: None)
    assert isinstance(amc_tf.load_model(tmp_path / "good.h5"), keras.Model)
    _edited(tmp_path / "bad.h5", change)
    with pytest.raises(amc_tf.AmcError, match=f"bad.h5 holds .*{told}.*could execute"):
        amc_tf.load_model(tmp_path / "bad.h5")


def test_carried_functions_of_tensorflow_only_compute():
    from amc_tf.keras2.tensorflow_op import TensorFlowOp

    TensorFlowOp("math.erf", [[None, 3], "float32"])
    for acts in ("io.write_file", "py_function", "compat.v1.py_func", "raw_ops.WriteFile"):
        with pytest.raises(ValueError, match="only computes, received tf"):
            TensorFlowOp(acts, [[None, 3], "float32"])


def test_models_with_python_code_are_refused_before_the_work(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda t: t * 2, name="twice")(inputs)
    x = keras.layers.Flatten()(keras.layers.Conv2D(8, 3)(x))
    net = keras.Model(inputs, keras.layers.Dense(4)(x))
    blobs.compile_model(net)
    settings = amc_tf.Settings(rehearse=False, search=blobs.search_settings())
    given = (net, blobs.task(), amc_tf.Budget(macs=0.5), tmp_path / "run", settings)
    with pytest.raises(amc_tf.AmcError, match=r"'twice' \(Lambda\) holds Python code.*--unsafe"):
        amc_tf.Compression(*given)
    assert not (tmp_path / "run").exists()
    run = amc_tf.Compression(*given, safe_mode=False)
    run.workdir.save_model(layout.PRUNED, net)
    assert run.workdir.load_model(layout.PRUNED).get_layer("twice")
