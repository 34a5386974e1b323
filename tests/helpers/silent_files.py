"""Files of others, the folder a command runs in, and damaged run folders.

What is hostile here is harmless: it points at files that the case itself wrote.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
from keras import layers as kl
from silent_judge import Bench, Unclear, expect
from silent_shared import FINISHED, finished_settings
from silent_tasks import HALF, classification, dense, search, value

import amc_tf
from amc_tf.report.html import write_report
from tflite_tools.reference import reference_model

ROOT = pathlib.Path(amc_tf.__file__).resolve().parents[1]

# --- weights that are stored elsewhere --------------------------------------------------------

_NUMBER = 42.0


def _keras2(path: pathlib.Path) -> None:
    import tf_keras

    inputs = tf_keras.Input((3,))
    tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="d")(inputs)).save(path)


def _stored_outside(file, folder: pathlib.Path, how: str) -> None:
    """Moves a kernel's values out of an HDF5 file, into one that this case wrote."""
    import h5py

    kernels = []
    file.visititems(
        lambda name, item: (
            kernels.append(name)
            if isinstance(item, h5py.Dataset) and item.shape == (3, 2)
            else None
        )
    )
    (name,) = kernels[:1]
    del file[name]
    values = np.full((3, 2), _NUMBER, "float32")
    if how == "external storage":
        (folder / "outside.bin").write_bytes(values.tobytes())
        external = [(str(folder / "outside.bin"), 0, values.nbytes)]
        file.create_dataset(name, (3, 2), "float32", external=external)
        return
    with h5py.File(folder / "outside.h5", "w") as other:
        other["x"] = values
    if how == "external link":
        file[name] = h5py.ExternalLink(str(folder / "outside.h5"), "x")
    else:
        layout = h5py.VirtualLayout((3, 2), "float32")
        layout[:] = h5py.VirtualSource(str(folder / "outside.h5"), "x", (3, 2))
        file.create_virtual_dataset(name, layout)


def _outside(how: str, suffix: str, bench: Bench) -> None:
    import h5py

    path = bench.folder / f"net{suffix}"
    _keras2(path)
    if suffix == ".h5":
        with h5py.File(path, "r+") as file:
            _stored_outside(file, bench.folder, how)
    else:
        inner = bench.folder / "unzipped"
        shutil.unpack_archive(path, inner, "zip")
        with h5py.File(inner / "model.weights.h5", "r+") as file:
            _stored_outside(file, bench.folder, how)
        path.unlink()
        shutil.make_archive(str(bench.folder / "net"), "zip", inner)
        (bench.folder / "net.zip").rename(path)
    model = amc_tf.load_model(path)
    taken = any((w == _NUMBER).all() for w in model.get_weights() if w.shape == (3, 2))
    expect(not taken, "bytes of another file become weights")


OUTSIDE = {
    f"Keras 2 {suffix} with {how}": functools.partial(_outside, how, suffix)
    for suffix in (".h5", ".keras")
    for how in ("external storage", "external link", "virtual dataset")
}

# --- children, folders and links --------------------------------------------------------------


def _traps(folder: pathlib.Path) -> pathlib.Path:
    """Modules in the current folder that leave a mark when they are executed."""
    mark = folder / "executed"
    for name in ("statistics.py", "tflite_tools/__init__.py", "random.py", "amc_tf/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(mark)!r}, 'a').write({name!r} + ' ')\n")
    return mark


def isolated_benchmark(bench: Bench) -> None:
    mark = _traps(bench.folder)
    (bench.folder / "net.tflite").write_bytes(reference_model())
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tflite_tools.run_benchmark import entry; sys.exit(entry())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    flags = "--device=host --rounds=1 --num_runs=2 --min_secs=0.01".split()
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *flags, "net.tflite"],
        capture_output=True,
        text=True,
        env=environment,
    )
    expect(not mark.exists(), f"executes {mark.exists() and mark.read_text()}")
    if done.returncode:
        raise Unclear(f"exit code {done.returncode}: {(done.stderr or done.stdout)[-200:]}")


def isolated_agent(bench: Bench) -> None:
    from amc_tf.search.agents.ddpg import process

    process.subprocess = subprocess  # a real one, not a fork
    mark = _traps(bench.folder)
    path = sys.path[:]
    sys.path[:] = [p for p in path if p not in ("", str(bench.folder))]
    search(bench, dense(bench), classification())
    expect(not mark.exists(), f"executes {mark.exists() and mark.read_text()}")


def linked_report(bench: Bench) -> None:
    """A link of the partial file's name must not lead the report elsewhere."""
    victim = bench.folder / "victim.txt"
    victim.write_text("precious")
    bench.finished(FINISHED)
    for name in (".report.partial.html", ".result.partial.json"):
        (bench.workdir / name).symlink_to(victim)
    write_report([bench.workdir])
    expect(victim.read_text() == "precious", "the report is written over the target of a link")
    expect((bench.workdir / "report.html").stat().st_size > 1000, "no report")


# --- names in the terminal --------------------------------------------------------------------

_RED = "\x1b[31m"


def _named(name: str) -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(8, 3, activation="relu", name=name)(inputs)
    return keras.Model(inputs, kl.Dense(4)(kl.Flatten()(kl.Dense(8, name="hidden")(x))))


def escapes(bench: Bench) -> None:
    """What amc-inspect prints of a model with an escape sequence in a layer's name."""
    graph = amc_tf.analyze(_named(f"{_RED}red"))
    expect("\x1b" not in amc_tf.describe(graph), "the sequence reaches the terminal")


def escapes_in_errors(bench: Bench) -> None:
    """What a command prints as its error."""
    from amc_tf.cli import common

    def fails(argv):
        _named(f"{_RED}red").save("red.keras")
        amc_tf.Constraints(freeze=(f"{_RED}blue",)).analyze(_named(f"{_RED}red"))

    sys.argv = ["amc-inspect", "red.keras"]
    printed = io.StringIO()
    said = None
    with contextlib.redirect_stderr(printed):
        try:
            common.run(fails)
        except SystemExit as end:
            said = str(end.code)
    expect(said and "\x1b" not in said, f"an error holds the sequence: {said!r}")


def escapes_in_drawings(bench: Bench) -> None:
    from amc_tf.graph.inspection import dot, drawing

    text = dot.to_dot(drawing.picture(amc_tf.analyze(_named(f"{_RED}red"))))
    expect("\x1b" not in text, "the sequence is in the DOT file")


# --- damaged run folders ----------------------------------------------------------------------

_DEEP = "[" * 100_000


def _replace(**values) -> Callable[[dict], dict]:
    return lambda content: {**content, **values}


def _drop(*keys: str) -> Callable[[dict], dict]:
    return lambda content: {k: v for k, v in content.items() if k not in keys}


# file, and its new content: text, or a function of the JSON object
KINDS: dict[str, tuple[str, str | bytes | Callable | None]] = {
    "result.json is null": ("result.json", "null"),
    "result.json is a list": ("result.json", "[]"),
    "result.json is a number": ("result.json", "7"),
    "result.json nests too deep": ("result.json", _DEEP),
    "result.json is binary": ("result.json", bytes(range(256))),
    "result.json: dense is a list": ("result.json", _replace(dense=[])),
    "result.json: policies is null": ("result.json", _replace(policies=None)),
    "result.json: policies is a list": ("result.json", _replace(policies=[1, 2])),
    "result.json: a policy is a number": ("result.json", _replace(policies={"amc": 3})),
    "result.json: chosen is no policy": ("result.json", _replace(chosen="nobody")),
    "result.json: no chosen": ("result.json", _drop("chosen")),
    "result.json: budget is text": ("result.json", _replace(budget="half")),
    "result.json: tflite is a list": ("result.json", _replace(tflite=["x"])),
    "result.json: seconds is text": ("result.json", _replace(seconds="long")),
    "result.json: format is text": ("result.json", _replace(format="two")),
    "result.json is a folder": ("result.json", None),
    "config.json is null": ("config.json", "null"),
    "config.json is a list": ("config.json", "[1]"),
    "config.json nests too deep": ("config.json", _DEEP),
    "search.json is a list": ("search.json", "[]"),
    "search.json lacks dense": ("search.json", "{}"),
    "search.json: bounds is text": ("search.json", _replace(bounds="half")),
    "episodes.jsonl holds a list": ("episodes.jsonl", "[]\n"),
    "episodes.jsonl nests too deep": ("episodes.jsonl", _DEEP + "\n"),
    "episodes.jsonl holds numbers": ("episodes.jsonl", "1\n2\n"),
    "importance.json is a list": ("importance.json", "[]"),
    "plan.json is a list": ("plan.json", "[]"),
    "best_plans.json is null": ("best_plans.json", "null"),
}


def _damage(bench: Bench, name: str, content) -> None:
    path = bench.finished(FINISHED) / name
    if callable(content):
        content = json.dumps(content(json.loads(path.read_text())))
    path.unlink()
    if content is None:
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)


def _resume(bench: Bench) -> None:
    result = amc_tf.compress(
        dense(bench), classification(), HALF, bench.workdir, finished_settings()
    )
    wanted = json.loads((bench.made(FINISHED) / "result.json").read_text())
    for part in ("dense", "pruned", "finetuned"):
        mine, other = value(result[part]), value(wanted[part])
        expect(abs(mine - other) < 0.02, f"{part} has {mine:.1%} instead of {other:.1%}")


def _resume_search(bench: Bench) -> None:
    for later in ("plan.json", "best_plans.json"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            (bench.workdir / later).unlink()
    _resume(bench)


# Each door of a run's folder.
DOORS = (lambda bench: write_report([bench.workdir]), _resume, _resume_search)


def _damaged(kind: str, bench: Bench) -> None:
    """Goes through each door of a damaged folder; what was said at any is the answer."""
    said = None
    for number, door in enumerate(DOORS):
        shutil.rmtree(bench.workdir, ignore_errors=True)
        _damage(bench, *KINDS[kind])
        try:
            door(bench)
        except amc_tf.AmcError as error:
            said = said or error
        except Exception as error:
            where = ("the report", "the run", "the search")[number]
            text = (str(error) or "no message").splitlines()[0][:120]
            raise Unclear(f"{type(error).__name__} from {where}: {text}") from error
    if said:
        raise said


def truncated_model(bench: Bench) -> None:
    """A .keras file without its configuration."""
    import zipfile

    dense(bench).save("whole.keras")
    with zipfile.ZipFile("whole.keras") as whole, zipfile.ZipFile("cut.keras", "w") as cut:
        for name in whole.namelist():
            if name != "config.json":
                cut.writestr(name, whole.read(name))
    amc_tf.load_model("cut.keras")
    expect(False, "loads a file without a configuration")


CASES = {
    **OUTSIDE,
    "a .keras file without config.json": truncated_model,
    "amc-benchmark beside a statistics.py": isolated_benchmark,
    "the agent beside a statistics.py": isolated_agent,
    "a report's partial file is a link": linked_report,
    "an escape sequence in amc-inspect": escapes,
    "an escape sequence in an error": escapes_in_errors,
    "an escape sequence in a DOT file": escapes_in_drawings,
    **{kind: functools.partial(_damaged, kind) for kind in KINDS},
}
