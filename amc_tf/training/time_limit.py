"""A bound on the time that code of others may take."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from amc_tf.errors import AmcError


class TimeLimitError(AmcError):
    """Code did not end in time; its thread still runs."""


def within(seconds: float | None, call: Callable[[], Any], name: str) -> Any:
    """What `call` returns, if it does so in time.

    A thread rather than a signal: what hangs in C++ (the pipeline of a dataset)
    heeds no signal. Nothing can end that thread, so it is left behind, and does
    not keep the process from ending.

    Args:
        seconds: the bound, by the monotonic clock; None for none, and no thread.
        call: takes no arguments.
        name: what it is called in the error.

    Raises:
        TimeLimitError: it did not end.
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
