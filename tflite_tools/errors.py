"""The one exception of measuring that a user is meant to read."""

from __future__ import annotations


class DeviceError(RuntimeError):
    """A device cannot measure, or its output is no valid result.

    Its message is one sentence of what was found and one of the remedy.

    Attributes:
        found: the first sentence.
        remedy: the second.
        transient: whether the same measurement may succeed when it is repeated: a lost connection
            or a truncated output, say, but not a missing device.
    """

    def __init__(self, found: str, remedy: str, *, transient: bool = False) -> None:
        super().__init__(f"{found.rstrip('.')}. {remedy}")
        self.found = found
        self.remedy = remedy
        self.transient = transient
