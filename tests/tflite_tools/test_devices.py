"""Devices: rounds, drift, retries, this host, the GPU's clock, the command."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from tflite_tools import (
    DeviceError,
    Latency,
    Settings,
    host,
    measure_host,
    open_device,
    ratio,
    time_gpu,
    time_model,
)
from tflite_tools.device import Device
from tflite_tools.devices import measure_side_by_side
from tflite_tools.interpreter import LiteRtModel
from tflite_tools.latency import Timing
from tflite_tools.reference import reference_model

QUICK = {"rounds": 2, "num_runs": 5, "min_secs": 0.02, "warmup_min_secs": 0.01}
ONE_ROUND = {**QUICK, "rounds": 1, "reference": False}


class Scripted(Device):
    """A device whose reference and models take the times of a script.

    Args:
        references: Of each run of the reference in turn; an exception is raised.
    """

    def __init__(self, references, **settings):
        self.slept = []
        super().__init__("scripted", Settings(**settings), sleep=self.slept.append)
        self.references = iter(references)
        self.series = []
        self.settled = 0

    def _session(self, files):
        self.contents = {key: content.decode() for key, content in files.items()}
        return contextlib.nullcontext()

    def _reference(self):
        return b"reference"

    def _settle(self):
        self.settled += 1

    def _time(self, keys):
        names = [self.contents[key] for key in keys]
        self.series.append(names)
        timings = []
        for name in names:
            ms = next(self.references) if name == "reference" else 2.0 + len(self.series)
            if isinstance(ms, Exception):
                raise ms
            timings.append(Timing(ms, 10))
        return timings

    def _conditions(self):
        return {"colour": "blue"}


def models(names):
    return {name: name.encode() for name in names}


def test_every_round_has_its_own_order_and_the_reference_encloses_each_block():
    device = Scripted([1.0] * 100, rounds=6, batch=3)
    done = []
    result = device.measure_all(models("abcd"), progress=lambda *counts: done.append(counts))
    assert all(block[0] == block[-1] == "reference" for block in device.series)
    assert [len(block) - 2 for block in device.series] == [3, 1] * 6
    pairs = zip(device.series[::2], device.series[1::2], strict=True)
    rounds = ["".join(first[1:-1] + second[1:-1]) for first, second in pairs]
    assert rounds[0] == "abcd" and all(sorted(order) == [*"abcd"] for order in rounds)
    # Rotated, each would follow the same one in all rounds but one.
    followed = {order[order.index("b") - 1] for order in rounds if order[0] != "b"}
    assert len(followed) == 3
    again = Scripted([1.0] * 100, rounds=6, batch=3)
    again.measure_all(models("abcd"))
    assert again.series == device.series
    assert device.settled == 12
    assert done == [(n, 24) for start in range(0, 24, 4) for n in (start + 3, start + 4)]
    own = [2.0 + i for i, block in enumerate(device.series, start=1) if "a" in block]
    assert result["a"].rounds_ms == tuple(own) and own[0] == 3.0
    assert (result["a"].min_ms, result["a"].max_ms) == (own[0], own[-1])
    assert result["a"].median_ms == (own[2] + own[3]) / 2
    assert (result["a"].runs, result["a"].rounds) == (60, 6)
    assert result["a"].conditions == {
        "device": "scripted",
        "colour": "blue",
        "reference_ms": 1.0,
        "reference_ms_max": 1.0,
    }


def test_equal_contents_are_timed_once():
    device = Scripted([], rounds=1, reference=False)
    result = device.measure_all({"x": b"a", "y": b"a", "z": b"b"})
    assert device.series == [["a", "b"]]
    assert list(result) == ["x", "y", "z"] and result["x"] == result["y"]


def test_a_drifting_block_is_measured_again():
    # Blocks two and three are slow; so is block two's repetition.
    references = [1.0, 1.05, 1.0, 1.3, 1.2, 1.0, 1.2, 1.0, 1.0, 1.0, 1.02, 1.01]
    device = Scripted(references, rounds=3, max_drift=0.1)
    result = device.measure(b"a")
    assert len(device.series) == 6
    # Rounds one, two and three come from series 1, 6 and 5.
    assert result.rounds_ms == (3.0, 8.0, 7.0)
    assert result.conditions["reference_ms_max"] == 1.05


def test_a_device_that_is_never_steady_is_an_error():
    device = Scripted([1.0, 1.0] + [1.0, 1.5] * 3, rounds=2, max_drift=0.1, retries=2)
    with pytest.raises(DeviceError, match="not steady.*1 ms at best and 50% longer.*3 tries"):
        device.measure(b"a")
    assert len(Scripted([1.0, 9.0], rounds=1).measure(b"a").rounds_ms) == 1  # no bound by default


def test_transient_failures_are_repeated_and_others_are_not():
    lost = DeviceError("lost", "Look.", transient=True)
    device = Scripted([lost, 1.0, lost, 1.0, 1.0], rounds=1)
    assert device.measure(b"a").rounds_ms == (5.0,)  # of the third series
    assert device.slept == [1.0, 2.0]
    with pytest.raises(DeviceError, match="lost"):
        Scripted([lost] * 3, rounds=1).measure(b"a")
    device = Scripted([DeviceError("broken", "Mend it."), 1.0, 1.0], rounds=1)
    with pytest.raises(DeviceError, match=r"^broken\. Mend it\.$"):
        device.measure(b"a")
    assert device.slept == []


def test_ratio_of_models_measured_together():
    base = Latency((1.0, 2.0, 4.0), runs=3)
    # Twice as slow in every round: the rounds' own spread does not widen the interval.
    twice = ratio(Latency((2.0, 4.0, 8.0), runs=3), base)
    assert (twice.value, twice.low, twice.high) == (2.0, 2.0, 2.0)
    spread = ratio(Latency((2.0, 3.0, 2.0), runs=3), base)
    assert (spread.value, spread.low, spread.high) == (1.0, 0.5, 2.0)
    with pytest.raises(ValueError, match="same rounds; received 2 and 3"):
        ratio(Latency((1.0, 2.0), runs=2), base)


def test_settings_and_names():
    with pytest.raises(ValueError, match="rounds must be at least 1; received 0"):
        open_device("host", rounds=0)
    with pytest.raises(ValueError, match="min_secs must be at least 0; received nan"):
        Settings(min_secs=math.nan)
    with pytest.raises(DeviceError, match="no device 'phone'.*Choose host, android"):
        open_device("phone")
    with pytest.raises(DeviceError, match="no device 'host:1'"):
        open_device("host:1")
    with pytest.raises(DeviceError, match="does not take.*warmth.*takes batch"):
        open_device("host", warmth=3)
    with pytest.raises(DeviceError, match="needs the benchmark_model binary.*Download.*https"):
        open_device("android:X")
    with pytest.raises(ValueError, match="empty"):
        open_device("host").measure_all({})
    device = open_device("host", rounds=7, models_per_process=3)
    assert device.settings == Settings(rounds=7)


def test_side_by_side():
    phones = [Scripted([1.0] * 9, rounds=1), Scripted([1.0] * 9, rounds=1)]
    for name, phone in zip(("one", "two"), phones, strict=True):
        phone.name, phone.remote = name, name == "one"
    result = measure_side_by_side(phones[::-1], models("ab"))
    assert list(result) == ["two", "one"] and list(result["one"]) == ["a", "b"]
    with pytest.raises(ValueError, match="different names"):
        measure_side_by_side([phones[0], phones[0]], models("a"))


def test_the_reference_model_convolves():
    content = reference_model()
    x = np.random.default_rng(1).normal(size=(1, 28, 28, 64)).astype(np.float32)
    kernel = np.random.default_rng(0).normal(0, 0.05, (64, 3, 3, 64)).astype(np.float32)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    expected = np.maximum(np.einsum("yxcij,oijc->yxo", windows, kernel), 0)
    np.testing.assert_allclose(LiteRtModel(content).predict(x)[0], expected, atol=1e-4)
    assert expected.max() > 1


def test_host_measures_several_models():
    big, other = reference_model(), reference_model() + b"\0"  # what follows a model is not read
    device = open_device("host", **QUICK, num_threads=2, models_per_process=3)
    result = device.measure_all({"big": big, "other": other})
    for latency in result.values():
        assert latency.rounds == 2 and latency.runs >= 10
        assert 0.01 < latency.min_ms <= latency.median_ms <= latency.max_ms
        assert latency.conditions["threads"] == 2
        assert latency.conditions["runtime"].startswith("ai-edge-litert ")
        assert latency.conditions["reference_ms"] > 0
        assert {"governor", "processor", "load_average"} <= set(latency.conditions)
        assert latency.peak_memory_mb is None  # not told apart within a process
    alone = measure_host({"big": big}, **{k: QUICK[k] for k in ("num_runs", "min_secs")}, rounds=1)
    assert 1 < alone["big"].peak_memory_mb < 200
    assert "reference_ms" not in alone["big"].conditions


def test_host_names_the_model_that_fails():
    with pytest.raises(DeviceError, match="^'broken': timing a model ended with exit code 1: .*"):
        open_device("host", **ONE_ROUND).measure_all({"broken": b"no such file"})
    device = open_device("host", **ONE_ROUND, hang_secs=0.01)
    device._sleep = lambda seconds: None
    with pytest.raises(DeviceError, match="did not end within 0.01 seconds"):
        device.measure(reference_model())


def test_worker_times_files_one_after_another_and_needs_no_tensorflow(tmp_path):
    paths = [tmp_path / "a.tflite", tmp_path / "b.tflite"]
    for path in paths:
        path.write_bytes(reference_model())
    code = (
        "import sys; from tflite_tools import time_model, open_device; open_device('host');"
        "time_model.main(sys.argv[1:]); assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    flags = ["--num_runs=3", "--min_secs=0", "--warmup_min_secs=0"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths), *flags],
        check=True,
        capture_output=True,
        text=True,
    )
    assert [json.loads(line)["runs"] for line in done.stdout.splitlines()] == [3, 3]


def test_governor_names_each_once():
    assert host.governor(["schedutil\n", "schedutil\n", "performance\n"]) == (
        "performance, schedutil"
    )
    assert host.governor([]) == "unknown"


# The GPU: the worker's logic, with a fake clock and fake runtimes; its two runtimes on the CPU.


class FakeGpu:
    """Submitting takes ``submit`` seconds, and reading an output waits until it is there."""

    description, adapter = "fake 1.0", "Fake GPU"

    def __init__(self, submit, work, copy, waits):
        self.now = 0.0
        self.submit, self.work, self.copy, self.waits = submit, work, copy, waits

    def clock(self):
        return self.now

    def run(self):
        self.now += self.submit + (self.work if self.waits else 0)

    def run_and_read(self):
        self.now += self.submit + self.work + self.copy

    def peak_memory_mb(self):
        return 3.5


def rule(**values):
    parser = argparse.ArgumentParser()
    time_model.add_stopping_rule(parser)
    return parser.parse_args([f"--{name}={value}" for name, value in values.items()])


def test_a_run_that_only_submits_is_refused():
    gpu = FakeGpu(submit=0.00065, work=0.175, copy=0, waits=False)
    with pytest.raises(DeviceError, match="after 0.65 ms, but their outputs .* 176 ms.*not wait"):
        time_gpu.time_runtime(gpu, rule(), gpu.clock)


def test_a_run_that_waits_is_timed():
    gpu = FakeGpu(submit=0.001, work=0.02, copy=0.004, waits=True)
    result = time_gpu.time_runtime(gpu, rule(num_runs=7, min_secs=0), gpu.clock)
    assert result == {
        "median_ms": pytest.approx(21),
        "with_read_ms": pytest.approx(25),
        "runs": 7,
        "peak_memory_mb": 3.5,
        "runtime": "fake 1.0",
        "adapter": "Fake GPU",
    }
    # A copy that dwarfs a tiny network is no proof of anything while it takes microseconds.
    tiny = FakeGpu(submit=0.0, work=0.0001, copy=0.001, waits=True)
    assert time_gpu.time_runtime(tiny, rule(), tiny.clock)["median_ms"] == pytest.approx(0.1)


def test_software_adapters_are_refused_unless_allowed(monkeypatch):
    monkeypatch.setattr(time_gpu, "vulkan_adapters", lambda: [("llvmpipe", True)])
    with pytest.raises(DeviceError, match="no GPU .adapters on the CPU: llvmpipe"):
        time_gpu._hardware_adapter(False)
    assert time_gpu._hardware_adapter(True) == "llvmpipe"
    both = [("llvmpipe", True), ("NVIDIA H200", False)]
    monkeypatch.setattr(time_gpu, "vulkan_adapters", lambda: both)
    assert time_gpu._hardware_adapter(False) == "NVIDIA H200"
    monkeypatch.undo()
    with pytest.raises(DeviceError, match="libno.so cannot be loaded.*Install the Vulkan loader"):
        time_gpu.vulkan_adapters("libno.so")


def test_both_runtimes_of_the_gpu_run_on_the_cpu_too(tmp_path):
    import keras

    a, b = keras.Input((4, 4, 2), name="a"), keras.Input((3,), name="b")
    y = keras.layers.Dense(2)(keras.layers.Concatenate()([keras.layers.Flatten()(a), b]))
    keras.Model({"a": a, "b": b}, {"y": y}).save(tmp_path / "m.keras")
    (tmp_path / "m.tflite").write_bytes(reference_model())
    quick = rule(num_runs=3, min_secs=0, warmup_min_secs=0)
    for runtime in (
        time_gpu.TensorFlowRuntime(str(tmp_path / "m.keras"), "CPU"),
        time_gpu.LiteRtRuntime(str(tmp_path / "m.tflite"), accelerator="CPU"),
    ):
        result = time_gpu.time_runtime(runtime, quick)
        assert result["runs"] == 3 and result["median_ms"] > 0


def test_inputs_of_whole_numbers_are_random_on_the_gpu_too(tmp_path):
    pytest.importorskip("tensorflow")
    import keras

    from tflite_tools import convert

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    path = tmp_path / "m.tflite"
    path.write_bytes(convert(model, "int8", [[x[i : i + 1]] for i in range(4)]))
    runtime = time_gpu.LiteRtRuntime(str(path), accelerator="CPU")
    (given,) = runtime._inputs.values()
    values = np.asarray(given.read(8 * 8 * 3, np.int8))
    assert values.min() < -64 and values.max() > 64


def test_each_input_of_the_gpu_gets_values_of_its_own_size_and_type(tmp_path):
    """The file lists its inputs as the model does, the compiled model by the alphabet."""
    pytest.importorskip("tensorflow")
    import keras

    from tflite_tools import convert

    z = keras.Input((8, 8, 3), name="z")
    a, m = keras.Input((3,), dtype="int32", name="a"), keras.Input((5,), name="m")
    indices = keras.layers.Flatten()(keras.layers.Embedding(7, 2)(a))
    whole = keras.layers.Concatenate()([keras.layers.Flatten()(z), indices, m])
    path = tmp_path / "m.tflite"
    path.write_bytes(convert(keras.Model([z, a, m], keras.layers.Dense(2)(whole))))
    runtime = time_gpu.LiteRtRuntime(str(path), accelerator="CPU")
    runtime.run_and_read()
    sizes = {name: buffer.get_tensor_details() for name, buffer in runtime._inputs.items()}
    assert {n: tuple(d["shape"]) for n, d in sizes.items()} == {
        "z": (1, 8, 8, 3),
        "a": (1, 3),
        "m": (1, 5),
    }
    values = np.asarray(runtime._inputs["m"].read(5, np.float32))
    assert len(np.unique(values)) == 5
    with pytest.raises(DeviceError, match="input 'm' is float32 of shape .1, 5., the file's int8"):
        time_gpu._write(runtime._inputs["m"], "m", np.zeros((1, 5), np.int8))


def test_gpu_device_reads_what_its_worker_prints(monkeypatch):
    calls = []

    def worker(module, arguments, hang_secs):
        calls.append((module, [a for a in arguments if not a.startswith("--")]))
        row = {"median_ms": 2.0, "runs": 9, "peak_memory_mb": 4.0}
        return [{**row, "runtime": "tf", "adapter": "GPU 0"} for _ in calls[-1][1]]

    monkeypatch.setattr("tflite_tools.gpu.run_worker", worker)
    device = open_device("gpu", rounds=2, models_per_process=2)
    keras_file = b"PK\3\4 and so on"
    result = device.measure_all({"k": keras_file, "t": reference_model()})
    assert [module for module, _ in calls] == ["tflite_tools.time_gpu"] * 2
    suffixes = [[path.rpartition(".")[2] for path in paths] for _, paths in calls]
    assert suffixes == [["keras", "tflite"], ["tflite", "keras"]]
    assert result["k"].rounds_ms == (2.0, 2.0) and result["k"].peak_memory_mb == 4.0
    assert result["k"].conditions == {"device": "gpu", "runtime": "tf", "adapter": "GPU 0"}
    with pytest.raises(DeviceError, match="'x': the GPU takes .*neither"):
        device.measure_all({"x": b"something"})


# The command.


def benchmark(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tflite_tools.run_benchmark", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_command_compares_files(tmp_path):
    paths = [tmp_path / "one.tflite", tmp_path / "two.tflite"]
    for i, path in enumerate(paths):
        path.write_bytes(reference_model() + bytes(i))
    flags = [f"--{name}={value}" for name, value in QUICK.items()]
    done = benchmark(*paths, *flags, f"--json={tmp_path / 'out.json'}", "--noreference")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "host" and "ai-edge-litert" in lines[1]
    assert lines[3].split()[:2] == ["model", "median"]
    assert lines[4].split()[0] == str(paths[0]) and lines[4].endswith(" 1")
    numbers = json.loads((tmp_path / "out.json").read_text())["host"]
    medians = [float(np.median(numbers[str(path)]["rounds_ms"])) for path in paths]
    assert f"{medians[1] / medians[0]:.4g} (" in lines[5]
    assert numbers[str(paths[0])]["conditions"]["threads"] == 1


def test_command_converts_keras_files_except_for_the_gpu(tmp_path):
    import keras

    from tflite_tools import run_benchmark

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.save(tmp_path / "small.keras")
    converted = run_benchmark.load(tmp_path / "small.keras", keras_itself=False)
    x = np.ones((1, 8), np.float32)
    np.testing.assert_allclose(LiteRtModel(converted).predict(x), model(x), rtol=1e-5)
    assert run_benchmark.load(tmp_path / "small.keras", keras_itself=True)[:2] == b"PK"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.tflite"], "there is no file 'absent.tflite'"),
        ([__file__], "neither a .tflite nor a .keras file"),
        ([__file__, "--device=android"], "--benchmark_binary"),
        ([__file__, "--device=gpu", "--device=host"], "a command of its own"),
    ],
)
def test_command_tells_mistakes_in_a_sentence(arguments, message):
    done = benchmark(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr
