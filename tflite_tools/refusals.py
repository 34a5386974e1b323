"""What TensorFlow's converter refuses, in one sentence: its own messages fill many pages."""

from __future__ import annotations

import re


def explained(error: Exception) -> ValueError:
    """Makes one sentence of what the converter raised."""
    message = str(error)
    found = {
        kind: sorted(set(re.findall(rf"^{kind} ops: (.+)$", message, re.MULTILINE)))
        for kind in ("TF Select", "Custom")
    }
    if any(found.values()):
        names = "; ".join(", ".join(value) for value in found.values() if value)
        remedy = (
            "replace them by supported layers"
            if found["Custom"]
            else "replace them by supported layers, or pass allow_flex=True for apps that link "
            "the Flex delegate"
        )
        return ValueError(
            f"LiteRT has no counterpart of the TensorFlow operators {names}; {remedy}."
        )
    first = next((line for line in message.splitlines() if line.strip()), type(error).__name__)
    return ValueError(f"TensorFlow's converter refuses the model: {first.strip()}")
