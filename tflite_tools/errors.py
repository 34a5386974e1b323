"""The exception for measurements that fail, with a message for the user."""

from __future__ import annotations


class DeviceError(RuntimeError):
    """An error of a device that cannot measure, or whose output is not a valid result.

    Its message has two sentences: what was found, and the remedy.

    Attributes:
        found: what was found, the first sentence.
        remedy: what to do, the second sentence.
        transient: whether the same measurement may succeed when it is repeated. This is so after
            a lost connection or a truncated output, for example, but not for a missing device.
    """

    def __init__(self, found: str, remedy: str, *, transient: bool = False) -> None:
        super().__init__(f"{found.rstrip('.')}. {remedy}")
        self.found = found
        self.remedy = remedy
        self.transient = transient
