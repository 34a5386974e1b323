"""What a run tells on its way: sentences and progress bars, one JSON object a line, or nothing.

All of it goes through the logger `amc_tf`. `told` decides what is printed of it; a handler of one's
own on that logger, or on the root, receives it beside that.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, Literal

from amc_tf.errors import AmcError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # advice on widgets, in a notebook that has none
    from tqdm.auto import tqdm

Verbose = bool | Literal["json"]
JSON = "json"

_LOG = logging.getLogger("amc_tf")
# Of the sentences that only the JSON lines hold, as a bar shows them on a terminal.
_DETAIL = logging.DEBUG
_NO_NUMBERS = (float("inf"), float("-inf"))  # of JSON
# Between two states of a bar that is written to a file.
_LOG_SECONDS = 30.0
# TensorFlow's advice for those who write the traced functions. Every pruned network is trained, and
# traced, anew.
_RETRACED = "triggered tf.function retracing"
# A context of one run, not of the process: runs in other threads tell their own story.
_VERBOSE: contextvars.ContextVar[Verbose | None] = contextvars.ContextVar("verbose", default=None)


def tell(event: str, sentence: str, **facts: Any) -> None:
    """Tells what a run has come to.

    Args:
        event: what kind of thing it is, one word.
        sentence: what a person reads.
        **facts: the same for a program, as JSON can hold it.
    """
    _LOG.info("%s", sentence, extra={"event": event, "facts": facts})


def mention(event: str, sentence: str, **facts: Any) -> None:
    """Tells what a progress bar shows to a person, so that only the JSON lines hold it."""
    _LOG.log(_DETAIL, "%s", sentence, extra={"event": event, "facts": facts})


def bar(total: int, desc: str, unit: str, initial: int = 0, postfix: str = "") -> tqdm:
    """Returns a progress bar, of the notebook or the terminal; it is hidden as `told` says."""
    return tqdm(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        postfix=postfix,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else _LOG_SECONDS,
        disable=_VERBOSE.get() not in (None, True),
    )


@contextlib.contextmanager
def told(verbose: Verbose) -> Iterator[None]:
    """Returns a context in which a run tells its story; one within another changes nothing.

    Args:
        verbose: True for sentences on the standard output and progress bars, `"json"` for one JSON
            object a line there, False for neither: then only warnings are told, as Python's logging
            tells them.

    Raises:
        AmcError: `verbose` is something else.
    """
    if verbose not in (True, False, JSON):
        raise AmcError(f"expected verbose as True, False or {JSON!r}, received {verbose!r}")
    if _VERBOSE.get() is not None:
        yield
        return
    token = _VERBOSE.set(verbose)
    tensorflow = logging.getLogger("tensorflow")
    tensorflow.addFilter(_is_no_advice)
    try:
        with _printed(verbose) if verbose else _warnings_alone():
            yield
    finally:
        tensorflow.removeFilter(_is_no_advice)
        _VERBOSE.reset(token)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return _RETRACED not in str(record.msg)


@contextlib.contextmanager
def _warnings_alone() -> Iterator[None]:
    """Returns a context without sentences, unless the user has set the logger's own level."""
    level = _LOG.level
    if level == logging.NOTSET:
        _LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _LOG.setLevel(level)


@contextlib.contextmanager
def _printed(verbose: Verbose) -> Iterator[None]:
    """Returns a context in which the logger's records are printed here, and nowhere twice."""
    level, propagate = _LOG.level, _LOG.propagate
    printer = _Printer(_in_json if verbose == JSON else _for_a_reader, _LOG.getEffectiveLevel())
    _LOG.addHandler(printer)
    _LOG.setLevel(_DETAIL if verbose == JSON else logging.INFO)
    _LOG.propagate = False
    try:
        yield
    finally:
        _LOG.removeHandler(printer)
        _LOG.setLevel(level)
        _LOG.propagate = propagate


class _Printer(logging.Handler):
    """A handler that prints, and hands on to the root's handlers what these would have received.

    Those that print on the terminal are left out: the line would stand there twice.

    Args:
        form: how a record is written.
        level: level from which others receive it.
    """

    def __init__(self, form: Any, level: int):
        super().__init__()
        self._form = form
        self._others_from = level

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        try:
            tqdm.write(self._form(record), file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)
        for handler in logging.getLogger().handlers:
            writer = getattr(handler, "python_handler", handler)  # within absl's
            printed = getattr(writer, "stream", None) in (sys.stdout, sys.stderr)
            if not printed and record.levelno >= max(handler.level, self._others_from):
                handler.handle(record)


def _for_a_reader(record: logging.LogRecord) -> str:
    sign = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
    return f"{sign}{record.getMessage()}"


def _in_json(record: logging.LogRecord) -> str:
    """Writes a record as one line; a record of no event is named by its level."""
    content = {
        "time": round(time.time(), 3),
        "event": getattr(record, "event", record.levelname.lower()),
        "text": record.getMessage(),
        **getattr(record, "facts", {}),
    }
    finite = {k: None if v in _NO_NUMBERS or v != v else v for k, v in content.items()}
    return json.dumps(finite, default=str)
