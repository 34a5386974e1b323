"""Small things: names of metrics, rounding, phones, a fit that fails, an agent that is stopped."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import blobs
import numpy as np
from places import HELPERS
from silent_judge import Bench, accepted, expect
from silent_shared import fresh
from silent_tasks import (
    HALF,
    classification,
    compile_model,
    compress,
    dense,
    load,
    search,
    settings,
)

import amc_tf
from tflite_tools import DeviceError, adb, open_device
from tflite_tools.benchmark_output import parse_benchmark
from tflite_tools.reference import reference_model


def missing_metric(bench: Bench) -> None:
    """The message must not offer the loss as if it were better when higher."""
    try:
        search(bench, dense(bench), classification(metric="acuracy"))
    except amc_tf.AmcError as error:
        plain = re.search(r"'loss'(?! \(mode|, mode| with mode)", str(error))
        expect(not plain, f"offers the loss: {error}")
        raise
    expect(False, "accepts a metric that the model does not report")


def rounding(bench: Bench) -> None:
    """Strict multiples of 8: no width of the small network is anything else."""
    import keras
    from keras import layers as kl

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(20, 3, activation="relu", name="stem")(inputs)
    x = kl.Dense(28, activation="relu", name="hidden")(kl.Flatten()(kl.MaxPooling2D()(x)))
    model = keras.Model(inputs, kl.Dense(4)(x))
    compile_model(model)
    model.fit(*blobs.data(200, 0), epochs=2, verbose=0)
    search_ = blobs.search_settings(
        episodes=3, policies=("amc", "uniform"), rounding=8, rounding_strict=True
    )
    budget = amc_tf.Budget(macs=0.95)
    compress(bench, model, classification(), budget=budget, settings=settings(search=search_))
    small = load(bench.workdir / "finetuned.keras")
    widths = [small.get_layer(n).get_weights()[1].shape[0] for n in ("stem", "hidden")]
    expect(all(w % 8 == 0 for w in widths), f"widths {widths}")


def rounding_said(bench: Bench) -> None:
    """Without it, a full width that is no multiple stays allowed; the setting's text says so."""
    text = (amc_tf.SearchSettings.__doc__ or "").replace("\n", " ")
    expect(re.search(r"rounding:.*?(may be kept|stays? allowed|full width)", text), "not said")
    expect("strict" in text, "no strict rounding is offered")


SLOW_RUN = """\
INFO: STARTING!
INFO: Initialized session in 12.5ms.
INFO: count=1 curr=2345678 p5=2345678 median=2345678 p95=2345678

INFO: count=1 curr=2345678 p5=2345678 median=2345678 p95=2345678

INFO: Inference timings in us: Init: 12500, First inference: 2345678, \
Warmup (avg): 2.34568e+06, Inference (avg): 2.34568e+06
"""


def slow_benchmark(bench: Bench) -> None:
    """A run of more than a second per inference prints six digits in its summary."""
    with accepted():
        found = parse_benchmark(SLOW_RUN)
    expect(abs(found.average_ms - 2345.678) < 0.01, f"reads {found.average_ms} ms")


def contradicting_benchmark(bench: Bench) -> None:
    """The control: a summary of another number is still refused."""
    parse_benchmark(SLOW_RUN.replace("Inference (avg): 2.34568e+06", "Inference (avg): 2.35e+06"))
    expect(False, "a summary that contradicts the runs is accepted")


# --- phones -----------------------------------------------------------------------------------


def _fake_adb(bench: Bench, *serials: str) -> pathlib.Path:
    """An adb that lists phones and answers with the serial number that it is asked for."""
    path = bench.folder / "adb"
    rows = "".join(rf"{serial}\tdevice\n" for serial in serials)
    long = "".join(rf"{serial}  device product:p model:m transport_id:1\n" for serial in serials)
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1 $2" = "devices -l" ]; then printf "List of devices attached\\n'
        f'{long}"; exit; fi\n'
        f'if [ "$1" = devices ]; then printf "List of devices attached\\n{rows}"; exit; fi\n'
        'if [ "$1" = -s ]; then echo "$2"; exit; fi\n'
        'echo "Android Debug Bridge version 1.0.41\nVersion 36.0.0-1"\n'
    )
    path.chmod(0o755)
    return path


def spaced_serial(bench: Bench) -> None:
    serial = "adb-1A2B3C (2)._adb-tls-connect._tcp"
    with accepted():
        found = adb.Adb(executable=_fake_adb(bench, serial)).serial
    expect(found == serial, f"takes {found!r} for {serial!r}")


def serial_of_environment(bench: Bench) -> None:
    os.environ["ANDROID_SERIAL"] = "second"
    with accepted():
        found = adb.Adb(executable=_fake_adb(bench, "first", "second")).serial
    expect(found == "second", f"takes {found!r} although ANDROID_SERIAL names 'second'")


def two_phones(bench: Bench) -> None:
    """The control: of two phones none is chosen."""
    os.environ.pop("ANDROID_SERIAL", None)
    adb.Adb(executable=_fake_adb(bench, "first", "second"))
    expect(False, "chooses one of two phones")


def _remote_commands(bench: Bench, folder: str) -> str:
    """What a stand-in phone is told to run."""
    import phone

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(
        HOME=str(bench.folder), ANDROID_ADB_SERVER_PORT=str(port), ADB_MDNS_AUTO_CONNECT="0"
    )
    os.environ.pop("ANDROID_SERIAL", None)
    executable = adb.find_adb()
    subprocess.run([executable, "start-server"], check=True, capture_output=True)
    made = phone.Bench(bench.folder / "phone")
    try:
        device = open_device(
            f"android:{made.phone.serial}",
            binary=made.binary(),
            **phone.QUICK,
            hang_secs=10,
            retries=0,
            folder=folder,
        )
        device.measure(reference_model())
    finally:
        subprocess.run([executable, "kill-server"], capture_output=True)
        made.phone.close()
    return "\n".join(map(str, made.faults.shells))


def phone_folder(bench: Bench) -> None:
    """`--folder=//`, which was stripped to nothing: `cd  && rm -rf ...`."""
    told = None
    for folder in ("//", "/.", "/data/local/tmp/.."):
        try:
            open_device("android", binary=str(HELPERS / "phone.py"), folder=folder)
        except DeviceError as error:
            told = told or error
        else:
            expect(False, f"the folder {folder!r} is accepted, and emptied")
    if told:
        raise told


def phone_clean_up(bench: Bench) -> None:
    """In a folder of the user's, only what was made is removed."""
    mine = bench.folder / "mine"
    (mine / "results").mkdir(parents=True)
    (mine / "holiday.jpg").write_text("precious")
    (mine / "results" / "thesis.txt").write_text("precious")
    (mine / "old.tflite").write_text("precious")
    try:
        _remote_commands(bench, str(mine))
    finally:
        left = sorted(p.name for p in mine.rglob("*") if p.is_file())
        lost = {"holiday.jpg", "thesis.txt", "old.tflite"}.difference(left)
        expect(not lost, f"the user's files are removed from the phone: {', '.join(sorted(lost))}")


# --- training and the agent -------------------------------------------------------------------


def failing_fit(bench: Bench) -> None:
    """A fit that raises, called again, starts from the weights that the model had."""
    import keras

    class Fails(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def on_epoch_end(self, epoch, logs=None):
            if self.calls == 0:
                self.calls += 1
                raise RuntimeError("the disk is full")

    first: list[np.ndarray] = []

    class Notes(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            if not first or len(first) < 2:
                first.append(np.concatenate([w.ravel() for w in self.model.get_weights()]))

    model = fresh()
    small = amc_tf.Compressor(model, HALF, bench.workdir, settings())
    data = {"validation_data": blobs.data(100, 1), "verbose": 0, "epochs": 1}
    callbacks = [Notes(), Fails()]
    try:
        small.fit(*blobs.data(200, 0), callbacks=callbacks, **data)
    except (RuntimeError, amc_tf.AmcError):
        pass
    else:
        expect(False, "a fit that raises is no error")
    small.fit(*blobs.data(200, 0), callbacks=callbacks, **data)
    expect(len(first) == 2, "the dense model is not trained again")
    expect(np.array_equal(first[0], first[1]), "the second fit starts from half-trained weights")


def stopped_agent(bench: Bench) -> None:
    """An agent that is stopped is noticed within the time that is stated."""
    from amc_tf.search.agents.ddpg.process import DdpgSearcher

    settings = blobs.search_settings().learner
    with DdpgSearcher(settings, 8, 0, bench.folder / "agent.log", reply_timeout=3.0) as agent:
        agent.act([0.0] * 8)
        os.kill(agent.pid, signal.SIGSTOP)
        start = time.monotonic()
        try:
            agent.act([0.0] * 8)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(agent.pid, signal.SIGKILL)
            waited = time.monotonic() - start
    expect(False, f"a stopped agent answered after {waited:.0f} s")


CASES = {
    "a metric that is not reported": missing_metric,
    "strict rounding": rounding,
    "rounding of odd widths is said": rounding_said,
    "benchmark_model slower than a second": slow_benchmark,
    "benchmark_model contradicts itself (control)": contradicting_benchmark,
    "a phone whose serial holds a space": spaced_serial,
    "ANDROID_SERIAL": serial_of_environment,
    "two phones (control)": two_phones,
    "--folder=// on the phone": phone_folder,
    "files of the user's on the phone": phone_clean_up,
    "a fit that raises, called again": failing_fit,
    "an agent that is stopped": stopped_agent,
}
