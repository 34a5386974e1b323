"""The section of RESULTS.md about results that could be wrong without a word."""

from __future__ import annotations

import collections

from benchmarks.common import record

_WORDS = ("right", "told", "silent", "wrong")


def silent(entry: dict) -> str:
    first = record.entries("silent")[0]
    before = {(case["section"], case["case"]): case["word"] for case in first["cases"]}
    rows = [
        (
            case["case"],
            case["section"],
            before.get((case["section"], case["case"]), ""),
            case["word"],
            _plain(case["said"]),
        )
        for case in entry["cases"]
    ]
    now = _counts(case["word"] for case in entry["cases"])
    return "\n".join(
        [
            "Each case does what a user would, on tiny data, and compares what comes out with what "
            "was computed another way. *right*: the result is right. *told*: one clear sentence "
            "before work is lost. *silent*: a wrong result, or lost work, without a word. *wrong*: "
            "a bare exception, a hang, a sentence that comes after the search, or pages of output. "
            "Cases called a control must stay as they were.",
            "",
            record.markdown(
                ("", *_WORDS),
                [
                    (f"before ({first['commit']})", *_counts(before.values())),
                    (f"now ({entry['commit']})", *now),
                ],
            ),
            "",
            record.markdown(("case", "part", "before", "now", "what was said now"), rows),
        ]
    )


def _counts(words) -> tuple[int, ...]:
    found = collections.Counter(words)
    return tuple(found[word] for word in _WORDS)


def _plain(said: str) -> str:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in said)
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


SECTIONS = {"silent": ("Never silently wrong", silent)}
