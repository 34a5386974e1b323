"""Greetings of C++ libraries, kept off the terminal; whatever else they print comes through.

TensorFlow and LiteRT write to the process's standard error, past Python. No setting silences these
lines: TensorFlow's come before it reads any, and LiteRT's Python has none.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator

_GREETING = re.compile(
    rb"All log messages before absl::InitializeLog"
    rb"|Could not find cuda drivers"
    rb"|oneDNN custom operations are on"
    rb"|optimized to use available CPU instructions"
    rb"|rebuild TensorFlow with the appropriate compiler flags"
    rb"|Unable to register cu\w+ factory"
    rb"|computation placer already registered"
    rb"|Created TensorFlow Lite XNNPACK delegate"
)
# Time for the filter to write its last lines. A process that was started meanwhile may hold the
# stream open for longer; then the filter goes on beside.
_LAST_LINES_SECONDS = 2.0
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def left_out() -> Iterator[Callable[[], None]]:
    """Returns a context in which greetings on the standard error are left out.

    A child process reads the stream, so that the last words of a crash come through, too. It is for
    the start of a command, where no other thread runs yet.

    Yields:
        A function that ends it before the context does.
    """
    kept = _kept()
    if kept is None:
        yield lambda: None
        return
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _pass_on(read, kept, write)
    os.dup2(write, 2)
    os.close(write)
    os.close(read)
    ended: list[int] = []

    def end() -> None:
        if ended:
            return
        ended.append(child)
        _flush()
        os.dup2(kept, 2)
        os.close(kept)
        until = time.monotonic() + _LAST_LINES_SECONDS
        while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < until:
            time.sleep(0.001)

    try:
        yield end
    finally:
        end()


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()


def _kept() -> int | None:
    """Returns another descriptor of the standard error, flushed; None where there is none."""
    _flush()
    try:
        return os.dup(2)
    except OSError:  # it is closed
        return None


def _pass_on(read: int, out: int, write: int) -> None:
    """Copies a stream without its greetings until it ends, as a process of its own."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
        os.close(write)
        with open(read, "rb") as lines:
            _copy(lines, out)
    finally:
        os._exit(0)


def _copy(lines: Iterable[bytes], out: int) -> None:
    """Writes lines to a descriptor, but for greetings."""
    for line in lines:
        if not _GREETING.search(line):
            os.write(out, line)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Returns a short context whose greetings are left out; the rest is printed at its end."""
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as file:
        kept = _kept()
        if kept is None:
            yield
            return
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            _copy(file, 2)
