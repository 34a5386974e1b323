"""Judges cases in which a result could be wrong without a word; each in a fork of its own.

A case is a function that does what a user would do, and compares what comes out with what was
computed another way. It returns nothing if that is right, or the sentence that it was told by a
log or a warning. `Silently` says that a wrong result was handed out; an `AmcError` is an answer, if
it is one sentence; any other exception is none, and neither is waiting.

Loading TensorFlow takes longer than a case, so this process imports it and forks; it must not
compute anything, as TensorFlow's threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import pathlib
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping

import keras

import amc_tf
import tflite_tools

RIGHT, TOLD, SILENT, WRONG = WORDS = ("right", "told", "silent", "wrong")
_LONGEST_SENTENCE = 400
_LONGEST_OUTPUT = 20_000  # characters; more is pages
ERRORS = (amc_tf.AmcError, tflite_tools.DeviceError)


class Silently(Exception):
    """A wrong result was handed out, or work was lost, without a word."""


class Unclear(Exception):
    """Something was said, but too late, or not so that it helps."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a case is given.

    Attributes:
        folder: an empty folder of its own, which is the current one, too.
        shared: folder of what several cases start from.
        agents: socket of the program that forks agents.
        makers: what makes each thing in `shared`, by its name there.
    """

    folder: pathlib.Path
    shared: pathlib.Path
    agents: pathlib.Path
    makers: Mapping[str, Callable[[Bench, pathlib.Path], None]]

    @property
    def workdir(self) -> pathlib.Path:
        return self.folder / "run"

    def made(self, name: str) -> pathlib.Path:
        """Returns what is shared under a name; the first case that needs it makes it."""
        path = self.shared / name
        with open(self.shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                partial = self.shared / f"partial_{os.getpid()}_{name}"
                # Layers that have no name get the same ones as in a process of their own.
                keras.utils.clear_session()
                self.makers[name](self, partial)
                keras.utils.clear_session()
                partial.rename(path)
        return path

    def finished(self, name: str) -> pathlib.Path:
        """Copies a finished run into the work directory."""
        shutil.copytree(self.made(name), self.workdir)
        return self.workdir

    def heard(self, pattern: str) -> str | None:
        """Returns the first line printed, warned of or logged so far that holds a pattern."""
        sys.stdout.flush()
        sys.stderr.flush()
        lines = self.output.read_text(errors="replace").splitlines()
        return next((line for line in lines if re.search(pattern, line)), None)

    @property
    def output(self) -> pathlib.Path:
        return self.folder.with_suffix(".output")


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        section: the part of the issue, a letter.
        name: what goes wrong.
        run: what the user does; see this module.
        seconds: time after which the case counts as hung.
        slow: whether only the benchmark runs it.
    """

    section: str
    name: str
    run: Callable[[Bench], str | None]
    seconds: float = 240.0
    slow: bool = False

    @property
    def title(self) -> str:
        return f"{self.section}: {self.name}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a case ended: one of `WORDS`, and what was said."""

    section: str
    case: str
    word: str
    said: str
    seconds: float


def expect(condition: object, otherwise: str) -> None:
    """Raises `Silently` unless the condition holds."""
    if not condition:
        raise Silently(otherwise)


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """Makes the refusal of something that is in order an unclear error."""
    try:
        yield
    except ERRORS as error:
        raise Unclear(f"refused, though in order: {error}") from error


@contextlib.contextmanager
def early(workdir: pathlib.Path) -> Iterator[None]:
    """Makes an error that came only after the search an unclear one."""
    episodes = workdir / "episodes.jsonl"
    there = episodes.exists()
    try:
        yield
    except ERRORS as error:
        if episodes.exists() and not there:
            raise Unclear(f"only after the search: {error}") from error
        raise


def judged(case: Case, bench: Bench) -> Verdict:
    """Runs a case in a fork and returns the verdict."""
    bench.folder.mkdir(parents=True)
    answer = bench.folder.with_suffix(".json")
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(case, bench, answer)
    hung = not _ended(pid, case.seconds)
    if hung:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    seconds = round(time.monotonic() - start, 1)
    if answer.exists():
        word, said = json.loads(answer.read_text())
    elif hung:
        word, said = WRONG, f"hangs: no end within {case.seconds:.0f} s"
    else:
        word, said = WRONG, "the process died"
    said = re.sub(rf"{re.escape(str(bench.folder))}(/run)?", "WORKDIR", said)
    return Verdict(case.section, case.name, word, said, seconds)


def _ended(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.02)
    return False


def _child(case: Case, bench: Bench, answer: pathlib.Path) -> None:
    try:
        os.setsid()
        handle = os.open(bench.output, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        # The thread that prints verdicts may have held a lock of the old ones at the fork.
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        logging.basicConfig(level=logging.INFO, force=True, format="%(levelname)s %(message)s")
        os.chdir(bench.folder)
        word, said = _outcome(case, bench)
        partial = answer.with_suffix(".partial")
        partial.write_text(json.dumps([word, said]))
        partial.rename(answer)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _outcome(case: Case, bench: Bench) -> tuple[str, str]:
    import forked_agents
    import vl_convert

    from amc_tf.export import timing
    from amc_tf.runs.result_parts import Milliseconds
    from amc_tf.search.agents.ddpg import process

    process.subprocess = forked_agents.forked(bench.agents, bench.folder.with_suffix(".agent"))
    # Latency and charts are not judged here, and would take most of the time.
    timing.measure = lambda paths, settings: dict.fromkeys(paths, Milliseconds(1.0, 1.0, 1.0))
    vl_convert.javascript_bundle = lambda *_, **__: "/* no charts */"
    try:
        said = case.run(bench)
        return (RIGHT, "") if said is None else _sentence(said, bench)
    except Silently as error:
        return SILENT, str(error)
    except Unclear as error:
        return WRONG, str(error)
    except ERRORS as error:
        traceback.print_exc()
        return _sentence(str(error), bench)
    except BaseException as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0][:200]
        return WRONG, f"{type(error).__name__}: {first}"


def _sentence(said: str, bench: Bench) -> tuple[str, str]:
    """Judges what was said: one clear sentence, or not."""
    said = said.split(". The end of its log:")[0]  # lines of the agent, after the sentence
    short = said.replace(str(bench.folder), "")
    if "\n" in short.strip() or "Traceback" in short or len(short) > _LONGEST_SENTENCE:
        return WRONG, f"{len(short)} characters: {short.splitlines()[0][:200]}"
    printed = bench.output.stat().st_size
    if printed > _LONGEST_OUTPUT:
        return WRONG, f"{printed:,} characters of output around: {said}"
    return TOLD, said
