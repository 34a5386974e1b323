"""Commands of the package, each in a fork of one process that has loaded TensorFlow already.

Loading it takes seconds, which is more than most commands take.
"""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import forked_agents

TIMEOUT_SECS = 300
_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["tensorflow", "amc_tf.pipeline.compression", "amc_tf.export.standalone"]
_FORKS.set_forkserver_preload(_PRELOADED)


def run(argv: Sequence[str], folder: pathlib.Path) -> str:
    """Runs a command in a folder and returns what it prints; it must succeed."""
    return _succeeded(attempt(argv, folder))


def attempt(
    argv: Sequence[str], folder: pathlib.Path, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a command in a folder and returns how it ended."""
    return _forked(_command, list(argv), folder, environment)


def run_code(code: str, folder: pathlib.Path) -> str:
    """Runs Python code in a folder and returns what it prints; it must succeed."""
    return _succeeded(_forked(_code, code, folder, {}))


def _succeeded(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, f"{done.args}: {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _forked(call: Callable, what: Any, folder: pathlib.Path, more: Mapping[str, str]):
    with tempfile.TemporaryDirectory() as made:
        streams = [pathlib.Path(made, name) for name in ("stdout", "stderr")]
        process = _FORKS.Process(
            target=_child,
            args=(call, what, folder, streams, {**os.environ, **more}, forked_agents.shared()),
        )
        process.start()
        process.join(TIMEOUT_SECS)
        if process.exitcode is None:
            process.kill()
            process.join()
        printed, errors = (path.read_text() for path in streams)
    return subprocess.CompletedProcess(what, process.exitcode, printed, errors)


def _child(call, what, folder, streams, environment, agents):
    from amc_tf.search.agents.ddpg import process

    process.subprocess = forked_agents.forked(agents)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in zip((sys.stdout, sys.stderr), streams, strict=True):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    call(what)


def _command(argv):
    (point,) = importlib.metadata.entry_points(group="console_scripts", name=argv[0])
    sys.argv = argv
    sys.orig_argv = [sys.executable, *argv]
    point.load()()


def _code(code):
    exec(compile(code, "<documents>", "exec"), {"__name__": "__main__"})
