"""The real adb, a stand-in phone, and a benchmark_model that really runs the file."""

from __future__ import annotations

import os
import re
import sys

import pytest
from phone import BENCHMARK, QUICK, Bench, adb_server

from tflite_tools import DeviceError, adb, benchmark_tool, measure_side_by_side, open_device
from tflite_tools.reference import reference_model

MODEL = reference_model()

__all__ = ["adb_server"]


@pytest.fixture
def bench(adb_server, tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.phone.close()


def test_connects_authorises_pushes_runs_and_pulls(bench):
    device = bench.device(
        rounds=2, reference=True, memory=True, max_drift=1000, taskset="1", batch=2, num_threads=2
    )
    result = device.measure_all({"a": MODEL, "b": MODEL + b"\0"})
    for latency in result.values():
        assert latency.rounds == 2 and latency.runs >= 10
        assert 0.01 < latency.min_ms <= latency.median_ms
        assert latency.peak_memory_mb == 12.5
    conditions = dict(result["a"].conditions)
    assert conditions.pop("reference_ms") > 0 and conditions.pop("reference_ms_max") > 0
    assert conditions.pop("device") == f"android:{bench.phone.serial}"
    assert re.fullmatch(r"benchmark_model [0-9a-f]{12}", conditions.pop("runtime"))
    assert re.match(r"\d+\.\d+", conditions.pop("adb"))
    assert conditions.keys() >= {"governor", "frequency_mhz"}
    assert {k: v for k, v in conditions.items() if k not in ("governor", "frequency_mhz")} == {
        "phone": "Stand-in",
        "android": "13",
        "delegate": "cpu",
        "threads": 2,
        "taskset": "1",
        "fixed_performance": "yes",
        "temperature_c": 28.5,
    }
    # Once each; the reference has the contents of "a". A block is one script: one a round, and one
    # more for memory.
    assert sorted(bench.pushed[:3]) == ["#.tflite"] * 2 + ["benchmark_model_#"]
    assert bench.pushed[3:] == ["run.sh"] * 3
    assert "set-fixed-performance-mode-enabled true" in (bench.folder / "cmd.log").read_text()
    assert (bench.folder / "cmd.log").read_text().endswith("enabled false\n")
    marker, tool = sorted(path.name for path in (bench.folder / "remote").iterdir())
    assert marker == ".tflite_tools" and tool.startswith("benchmark_model_")


def test_stale_and_damaged_files_are_pushed_anew_and_others_are_not(bench):
    bench.device().measure(MODEL)
    bench.faults.pushed.clear()
    bench.device().measure(MODEL)
    assert bench.pushed == ["#.tflite", "run.sh"]  # the binary is there already
    tool = next(p for p in (bench.folder / "remote").iterdir() if "benchmark" in p.name)
    content = tool.read_bytes()
    tool.write_bytes(b"X" + content[1:])  # of the same length
    bench.faults.pushed.clear()
    bench.device().measure(MODEL)
    assert sorted(bench.pushed) == ["#.tflite", "benchmark_model_#", "run.sh"]
    assert tool.read_bytes() == content


@pytest.mark.parametrize(
    "folder", ["/", "//", "///", "/data", "/data/", "//data/x", "/data/..", "/data/../x", "/a/./b"]
)
def test_folders_that_cannot_be_the_tool_s_own(bench, folder):
    with pytest.raises(DeviceError, match=f"at least two levels .*, but is '{folder}'"):
        open_device("android", binary=bench.binary(), folder=folder)


def test_a_folder_with_other_files_is_refused_and_left_alone(bench):
    remote = bench.folder / "remote"
    (remote / "results").mkdir(parents=True)
    (remote / "results" / "photo.jpg").write_text("kept")
    (remote / "notes.txt").write_text("kept")
    (remote / "run.sh").write_text("kept")
    with pytest.raises(DeviceError, match=r"remote on .* is not one of this tool: .*'notes.txt'"):
        bench.device().measure(MODEL)
    assert not bench.faults.pushed and (remote / "run.sh").read_text() == "kept"
    # In a folder of its own, the tool removes what it made, and nothing else.
    (remote / ".tflite_tools").touch()
    bench.device().measure(MODEL)
    left = {path.name for path in remote.iterdir() if "benchmark" not in path.name}
    assert left == {".tflite_tools", "notes.txt", "results"}
    assert [path.name for path in (remote / "results").iterdir()] == ["photo.jpg"]
    assert not any("rm -r" in command for command in bench.faults.shells)


def test_a_folder_of_an_older_version_is_taken_over(bench):
    bench.device().measure(MODEL)
    (bench.folder / "remote" / ".tflite_tools").unlink()
    bench.faults.pushed.clear()
    bench.device().measure(MODEL)
    assert bench.pushed == ["#.tflite", "run.sh"]


def test_without_a_result_file_the_text_is_read(bench):
    latency = bench.device("no result file").measure(MODEL)
    # A median in whole microseconds: that of the text, not a float of 32 bits.
    assert latency.median_ms == pytest.approx(round(latency.median_ms, 3), rel=1e-12)


def test_a_damaged_pull_is_noticed_and_repeated(bench):
    bench.faults.pulls_damaged = 1
    assert bench.device().measure(MODEL).rounds == 1
    assert bench.slept == [1.0]
    bench.faults.pulls_damaged = 9
    with pytest.raises(DeviceError, match="output .* was cut off or damaged"):
        bench.device(retries=0).measure(MODEL)


def test_unauthorised(bench):
    bench.faults.authorised = False
    with pytest.raises(DeviceError, match="does not trust this computer.*Unlock the phone"):
        bench.device(retries=0, authorise_secs=1).measure(MODEL)
    assert not bench.faults.shells


def test_offline_and_back(bench):
    bench.device().measure(MODEL)
    bench.phone.switch_off()
    with pytest.raises(DeviceError, match="is offline|is not attached|was disconnected") as caught:
        bench.device(retries=0, authorise_secs=0).measure(MODEL)
    assert re.search("cable", str(caught.value))
    # It comes back while the first repetition is waited for.
    device = bench.device(
        sleep=lambda seconds: bench.phone.switch_on(), authorise_secs=1, retries=1
    )
    assert device.measure(MODEL).rounds == 1


def test_disconnect_in_the_middle_of_a_push(bench):
    bench.faults.pushes_cut_off = 1
    assert bench.device().measure(MODEL).rounds == 1
    assert bench.slept[0] == 1.0
    bench.faults.pushes_cut_off = 99
    with pytest.raises(DeviceError, match="disconnected|not attached|offline"):
        bench.device(retries=0).measure(MODEL + b"\0")


def test_a_silent_phone(bench):
    bench.faults.hang_on = "run.sh"
    with pytest.raises(DeviceError, match=r"has been silent for 2 seconds.*restart"):
        bench.device(retries=0, hang_secs=1).measure(MODEL)


def test_a_hung_model_is_stopped_on_the_phone(bench):
    with pytest.raises(DeviceError, match="^'model': benchmark_model hung and was stopped"):
        bench.device("hang", retries=0, hang_secs=1).measure(MODEL)


def test_full_disk(bench):
    bench.faults.free_bytes = 1000
    with pytest.raises(DeviceError, match="no space left.*Free some space"):
        bench.device().measure(MODEL)
    assert bench.slept == []  # not worth a repetition


def test_exit_code_and_last_words(bench):
    with pytest.raises(
        DeviceError, match="'fast': benchmark_model ended with exit code 3: .*allocate tensors"
    ):
        bench.device("crash").measure_all({"fast": MODEL})


def test_flags_that_the_binary_does_not_know(bench):
    with pytest.raises(DeviceError, match="no flag --no_such .asked for: --no_such=1."):
        bench.device(extra_flags=["--no_such=1"]).measure(MODEL)
    with pytest.raises(DeviceError, match="no flag --use_nnapi"):
        bench.device(delegate="nnapi").measure(MODEL)
    with pytest.raises(DeviceError, match="ignored them: 'WARN: Unconsumed cmdline flags"):
        bench.device("unconsumed").measure(MODEL)


def test_partial_delegation(bench):
    with pytest.raises(DeviceError, match="58 of 60 operators only.*TfLiteGpuDelegateV2"):
        bench.device(delegate="gpu").measure(MODEL)


def test_wrong_abi(bench, tmp_path):
    binary = tmp_path / "elf"
    # e_machine 40, ARM in 32 bits.
    binary.write_bytes(b"\x7fELF\1\1\1" + bytes(9) + b"\3\0\x28\0" + bytes(100))
    with pytest.raises(DeviceError, match="built for armeabi-v7a, but .* arm64-v8a, x86_64. Down"):
        bench.device(binary=binary).measure(MODEL)
    assert not bench.faults.pushed
    # The right machine, but nothing that can be started.
    binary.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\x3e\0" + bytes(100))
    with pytest.raises(DeviceError, match="cannot be run on the device"):
        bench.device(binary=binary).measure(MODEL)
    binary.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(DeviceError, match="does not list the flags .* printed 'hello'"):
        bench.device(binary=binary).measure(MODEL)


def test_cpu_masks(bench):
    with pytest.raises(DeviceError, match="refused the CPU mask.*hexadecimal"):
        bench.device(taskset="8" + "0" * 255).measure(MODEL)
    with pytest.raises(DeviceError, match="hexadecimal, but is 'big'"):
        bench.device(taskset="big")
    with pytest.raises(DeviceError, match="absolute path.*'/data/my folder'"):
        open_device("android", binary=bench.binary(), folder="/data/my folder")


def test_a_hot_phone_cools_down_or_is_refused(bench):
    bench.heat(412)

    def cool(seconds):
        bench.slept.append(seconds)
        bench.heat(412 - 30 * len(bench.slept))

    latency = bench.device(sleep=cool).measure(MODEL)
    assert bench.slept == [10.0, 10.0]  # 41.2, 38.2, 35.2
    assert latency.conditions["temperature_c"] == 41.2
    bench.heat(412)
    with pytest.raises(DeviceError, match="too hot: its battery has 41.2 C after 30 seconds"):
        bench.device(cool_down_secs=30).measure(MODEL)


def test_two_phones_side_by_side(bench, tmp_path):
    other = Bench(tmp_path / "other")
    try:
        devices = [bench.device(), other.device()]
        with pytest.raises(DeviceError, match="expected one attached.*lists .*Name one"):
            # Both are attached once they have been measured.
            result = measure_side_by_side(devices, {"a": MODEL})
            assert list(result) == [device.name for device in devices]
            assert all(latencies["a"].runs >= 5 for latencies in result.values())
            open_device("android", binary=bench.binary(), **QUICK).measure(MODEL)
    finally:
        other.phone.close()


def _adb_that_lists(folder, *rows):
    executable = folder / "adb"
    lines = "".join(f"{row}\\n" for row in ("List of devices attached", *rows))
    executable.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    executable.chmod(0o755)
    return executable


def test_which_phone_is_meant_without_a_serial_number(tmp_path, monkeypatch):
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    wireless = "adb-R58M123 (2)._adb-tls-connect._tcp"
    only = _adb_that_lists(tmp_path, rf"{wireless}\tdevice")
    assert adb.Adb(executable=only).serial == wireless
    both = _adb_that_lists(tmp_path, rf"{wireless}\tdevice", r"R58M999\tunauthorized")
    with pytest.raises(DeviceError, match=r"lists adb-R58M123 \(2\).* \(device\), R58M999 \(una"):
        adb.Adb(executable=both)
    monkeypatch.setenv("ANDROID_SERIAL", "R58M999")
    assert adb.Adb(executable=both).serial == "R58M999"
    assert adb.Adb("other", executable=both).serial == "other"
    monkeypatch.setenv("ANDROID_SERIAL", "")
    with pytest.raises(DeviceError, match="Name one of them as android:SERIAL, or in ANDROID_SER"):
        adb.Adb(executable=both)


def test_adb_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(adb.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="no adb executable.*pip install adbutils"):
        adb.find_adb()
    with pytest.raises(DeviceError, match="no executable 'absent/adb'"):
        adb.find_adb("absent/adb")
    bundled = tmp_path / "adbutils" / "binaries" / "adb"
    bundled.parent.mkdir(parents=True)
    bundled.write_text("#!/bin/sh\n")
    bundled.chmod(0o644)
    (tmp_path / "adbutils" / "__init__.py").touch()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    adb.importlib.invalidate_caches()
    assert adb.find_adb() == str(bundled) and os.access(bundled, os.X_OK)


@pytest.mark.parametrize(
    ("code", "text", "found", "transient"),
    [
        (126, "sh: ./b: not executable: 64-bit ELF file", "cannot be run on the device", False),
        (1, "./b[1]: syntax error: unexpected '('", "cannot be run on the device", False),
        (127, "sh: ./b: inaccessible or not found", "cannot be run on the device", False),
        (137, "Killed", "was killed, probably for its memory: 'Killed'", True),
        (143, "INFO: STARTING!", "hung and was stopped", True),
        (1, "can't create results/0.txt: No space left on device", "disk is full", False),
        (1, "ERROR: Disallowed CPU fallback detected.", "whole network on the delegate", False),
        (-11, "INFO: Loaded model", "exit code -11: 'INFO: Loaded model'", False),
    ],
)
def test_exit_codes(code, text, found, transient):
    with pytest.raises(DeviceError, match=found) as caught:
        benchmark_tool.outcome(code, text, None)
    assert caught.value.transient is transient


def test_litert_s_tool_is_told_to_leave_the_cpu_out():
    settings = open_device("host").settings
    flags = {"graph", "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs"}
    flags |= {"num_threads", "use_gpu", "require_full_delegation", "result_file_path"}
    tflite = benchmark_tool.arguments(flags, settings, "gpu", "m", "r.pb")
    litert = benchmark_tool.arguments(flags | {"use_cpu"}, settings, "gpu", "m", "r.pb")
    assert set(litert) - set(tflite) == {"--use_cpu=false"}
    assert {"--use_gpu=true", "--require_full_delegation=true"} <= set(tflite)
    old = benchmark_tool.arguments(flags - {"result_file_path"}, settings, "cpu", "m", "r.pb")
    assert old == [
        "--graph=m",
        "--num_runs=50",
        "--min_secs=1.0",
        "--max_secs=150.0",
        "--warmup_runs=1",
        "--warmup_min_secs=0.5",
        "--num_threads=1",
    ]


def test_a_desktop_benchmark_model_on_the_host(tmp_path):
    binary = tmp_path / "linux_x86_64_benchmark_model"
    binary.write_text(f"#!{sys.executable}\n{BENCHMARK}")
    binary.chmod(0o755)
    latency = open_device("host", binary=binary, memory=True, **QUICK).measure(MODEL)
    assert latency.runs >= 5 and latency.peak_memory_mb == 12.5
    assert latency.conditions["runtime"] == "benchmark_model linux_x86_64_benchmark_model"
    with pytest.raises(DeviceError, match="cannot be run: No such file.*Download"):
        open_device("host", binary=tmp_path / "absent", **QUICK).measure(MODEL)
