"""Texts that are kept beside the tests; AMC_TF_RENEW_GOLDEN=1 writes them anew."""

from __future__ import annotations

import difflib
import os
import pathlib


def compare(path: pathlib.Path, text: str) -> None:
    """Compares a text with the one that is kept; read the difference before it is renewed."""
    if os.environ.get("AMC_TF_RENEW_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    kept = path.read_text().splitlines()
    told = "\n".join(difflib.unified_diff(kept, text.splitlines(), "kept", "now", lineterm=""))
    assert not told, f"{told}\nIf this is meant, renew it: AMC_TF_RENEW_GOLDEN=1 pytest ..."
