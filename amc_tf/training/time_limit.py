"""A limit on the time that the user's code may take."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from amc_tf.errors import AmcError


class TimeLimitError(AmcError):
    """A call that did not end in time; its thread may still run."""


def within(seconds: float | None, call: Callable[[], Any], name: str) -> Any:
    """Calls `call` in a thread; returns its result if it ends in time.

    A thread is used rather than a signal, because code that hangs in C++ (a
    dataset's pipeline) does not react to signals. Nothing can end that thread, so
    it is abandoned; it does not keep the process from ending.

    Args:
        seconds: limit by the monotonic clock; None for no limit and no thread.
        call: function without arguments.
        name: name of the call in the error message.

    Returns:
        The result of `call`.

    Raises:
        TimeLimitError: `call` did not end in time.
        Exception: whatever `call` raised.
    """
    if seconds is None:
        return call()
    outcome: list[tuple[bool, Any]] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append((True, context.run(call)))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeLimitError(
            f"{name} did not end within {seconds:g} s; mend what hangs or raise the limit, and the "
            "same call resumes"
        )
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return value
