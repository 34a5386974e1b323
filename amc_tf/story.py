"""What a run tells on its way: sentences and progress bars, one JSON object a line, or nothing.

`told` says for one run, not for the process, what is printed; runs in other threads have their own.
All of it goes to the logger `amc_tf`, too, for handlers of the user's own.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from amc_tf.errors import AmcError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # advice on widgets, in a notebook that has none
    from tqdm.auto import tqdm

Verbose = bool | Literal["json"]
JSON = "json"

_LOG = logging.getLogger("amc_tf")
_VERBOSE: contextvars.ContextVar[Verbose | None] = contextvars.ContextVar("verbose", default=None)
# Between two states of a bar that is written to a file.
_LOG_SECONDS = 30.0
# TensorFlow's advice for those who write the traced functions. Every pruned network is trained, and
# traced, anew.
_RETRACED = "triggered tf.function retracing"


def tell(event: str, sentence: str, **facts: Any) -> None:
    """Tells what a run has come to.

    Args:
        event: what kind of thing it is, one word.
        sentence: what a person reads.
        **facts: the same for a program, as JSON can hold it.
    """
    _LOG.info("%s", sentence, extra={"event": event, "facts": facts})
    _say(event, sentence, sentence, facts)


def mention(event: str, sentence: str, **facts: Any) -> None:
    """Tells what a progress bar shows to a person, so that only the JSON lines hold it."""
    _LOG.debug("%s", sentence, extra={"event": event, "facts": facts})
    if _VERBOSE.get() == JSON:
        _say(event, sentence, sentence, facts)


def remark(logger: logging.Logger, message: str, *args: Any) -> None:
    """Tells how something is done, which a reader may like to know.

    Args:
        logger: the logger of the module.
        message: the sentence, with `%s` for each argument, as a logger takes it.
        *args: its arguments.
    """
    logger.info(message, *args, extra={"event": "remark", "facts": {}})
    if _VERBOSE.get():
        sentence = message % args if args else message
        _say("remark", sentence, f"  {sentence}")


def bar(total: int, desc: str, unit: str, initial: int = 0, postfix: str = "") -> tqdm:
    """Returns a progress bar, of the notebook or the terminal; it is hidden as `told` says."""
    is_terminal = getattr(sys.stderr, "isatty", lambda: False)
    return tqdm(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        postfix=postfix,
        dynamic_ncols=True,
        mininterval=0.1 if is_terminal() else _LOG_SECONDS,
        disable=not shows_progress() or sys.stderr is None,
    )


def shows_progress() -> bool:
    """Returns whether progress is shown to a person: not in JSON lines, nor in silence."""
    return _VERBOSE.get() in (None, True)


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
    _listen()
    token = _VERBOSE.set(verbose)
    try:
        yield
    finally:
        _VERBOSE.reset(token)


def _listen() -> None:
    """Makes warnings part of the story, once on the terminal.

    What is added here stays, and does nothing outside of `told`: to take it away again would be to
    take it from a run in another thread.
    """
    logging.getLogger("tensorflow").addFilter(_is_no_advice)
    for handler in (*logging.getLogger().handlers, *_LOG.handlers):
        writer = getattr(handler, "python_handler", handler)  # within absl's
        stream = getattr(writer, "stream", None)
        if stream is not None and stream in (sys.stdout, sys.stderr):
            handler.addFilter(_is_not_told)
    if not any(isinstance(handler, _Warnings) for handler in _LOG.handlers):
        _LOG.addHandler(_Warnings())


def _is_no_advice(record: logging.LogRecord) -> bool:
    return _VERBOSE.get() is None or _RETRACED not in str(record.msg)


def _is_not_told(record: logging.LogRecord) -> bool:
    """Returns whether a handler that writes to the terminal is needed for a record."""
    of_run = record.name == _LOG.name or record.name.startswith(f"{_LOG.name}.")
    return not (of_run and _VERBOSE.get())


class _Warnings(logging.Handler):
    """A handler that tells the records that are no part of the story yet: warnings, mostly."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tells a record; where no run tells its story, Python's logging is left to it."""
        if hasattr(record, "event"):
            return
        if _VERBOSE.get():
            level, text = record.levelname.lower(), record.getMessage()
            sign = f"{level}: " if record.levelno > logging.INFO else ""
            _say(level, text, f"{sign}{text}")
            return
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not logging.getLogger().handlers:
            last.handle(record)


def _say(event: str, text: str, shown: str, facts: Mapping[str, Any] | None = None) -> None:
    """Prints what a run tells in the form of this context, if in any: `shown` is for a reader."""
    verbose = _VERBOSE.get()
    if verbose == JSON:
        content = {"time": round(time.time(), 3), "event": event, "text": text, **(facts or {})}
        _write(json.dumps(_plain(content), default=str))
    elif verbose:
        _write(shown)


def _write(text: str) -> None:
    """Writes a line to the standard output, whatever that can hold."""
    if sys.stdout is None:
        return
    try:
        tqdm.write(text, file=sys.stdout)
    except UnicodeEncodeError as error:
        tqdm.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """Returns a value as JSON can hold it, which knows no infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):  # of NumPy
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
