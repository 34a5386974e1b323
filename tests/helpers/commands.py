"""Commands of the package, each in a fork of one process that has loaded TensorFlow already.

Loading it takes seconds, which is more than most commands take.
"""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

TIMEOUT_SECS = 300
STREAMS = (".stdout", ".stderr")
_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["tensorflow", "amc_tf.pipeline.compression", "amc_tf.export.standalone"]
_FORKS.set_forkserver_preload(_PRELOADED)


def run(argv: Sequence[str], folder: pathlib.Path) -> str:
    """Runs a command in a folder and returns what it prints; it must succeed."""
    return _forked(_command, list(argv), folder)


def run_code(code: str, folder: pathlib.Path) -> str:
    """Runs Python code in a folder and returns what it prints; it must succeed."""
    return _forked(_code, code, folder)


def _forked(call: Callable, what: object, folder: pathlib.Path) -> str:
    process = _FORKS.Process(target=_child, args=(call, what, folder, dict(os.environ)))
    process.start()
    process.join(TIMEOUT_SECS)
    if process.exitcode is None:
        process.kill()
        process.join()
    printed, errors = ((folder / name).read_text() for name in STREAMS)
    assert process.exitcode == 0, f"{what} ended with {process.exitcode}:\n{printed}\n{errors}"
    return printed


def _child(call, what, folder, environment):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, name in zip((sys.stdout, sys.stderr), STREAMS, strict=True):
        with open(name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    call(what)


def _command(argv):
    (point,) = importlib.metadata.entry_points(group="console_scripts", name=argv[0])
    sys.argv = argv
    point.load()()


def _code(code):
    exec(compile(code, "<documents>", "exec"), {"__name__": "__main__"})
