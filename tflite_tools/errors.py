"""The exception for measurements that fail, and text from elsewhere made safe to print."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""Writes characters that are not printable as escapes, such as ``\x1b``.

    Names of layers and files come from elsewhere. A terminal would obey the sequences in them that
    move the cursor, change the title or hide text.

    Args:
        text: any text.
        keep: characters that stay as they are, a line break for example.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )


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
        found = printable(found)
        super().__init__(f"{found.rstrip('.')}. {remedy}")
        self.found = found
        self.remedy = remedy
        self.transient = transient
