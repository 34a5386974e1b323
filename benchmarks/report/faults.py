"""The section of RESULTS.md about faults."""

from __future__ import annotations

from benchmarks.common import record


def faults(entry: dict) -> str:
    header = (
        "fault",
        "runs",
        "reported an error",
        "resumed to the same plan",
        "error not clear",
        "wrong",
        "episodes lost",
    )
    keys = ("fault", "runs", "errors", "resumed", "unclear", "wrong", "lost")
    rows = [tuple(f[key] for key in keys) for f in entry["faults"] if f["runs"]]
    total = ("all", *(sum(row[i] for row in rows) for i in range(1, len(keys))))
    said = [(f["fault"], f["said"].split(". The end of its log:")[0]) for f in entry["faults"]]
    return "\n".join(
        [
            f"A search of {entry['episodes']} episodes on a made-up task, disturbed at a random "
            f"moment or place (seed {entry['seed']}), then the same call again. Lost episodes are "
            "those that the log held after the fault but not at the end, and those of the "
            "undisturbed search that are missing or differ.",
            "",
            record.markdown(header, [*rows, total]),
            *(["", entry["note"]] if "note" in entry else []),
            "",
            "An example of each error message:",
            "",
            *[f"- {fault}: *{sentence}*" for fault, sentence in said if sentence],
        ]
    )


SECTIONS = {"faults": ("Faults", faults)}
