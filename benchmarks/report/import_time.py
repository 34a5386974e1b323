"""The section of RESULTS.md about the time that imports take."""

from __future__ import annotations

from benchmarks.common import record

LABELS = {
    "import": '`python -c "import amc_tf"`',
    "statement": "the import in it alone",
    "help": "`amc-inspect --help`",
}


def import_time(entry: dict) -> str:
    rows = [
        (
            label,
            f"{entry[f'{kind}_ms']['present']:.1f}",
            f"{entry[f'{kind}_ms']['base']:.1f}",
            "{:.3f} ({:.3f} to {:.3f})".format(
                entry[f"{kind}_ratio"], *entry[f"{kind}_ratio_quartiles"]
            ),
        )
        for kind, label in LABELS.items()
    ]
    header = ("process", "ms", f"ms at {entry['base'][:7]}", "ratio (quartiles)")
    return "\n".join(
        [
            f"Commit {entry['commit'][:7]}{' with changes' if entry['uncommitted_changes'] else ''}"
            f" beside {entry['base'][:7]}, {entry['rounds']} pairs of fresh processes in turn; "
            "medians.",
            "",
            record.markdown(header, rows),
        ]
    )


SECTIONS = {"import_time": ("Import time", import_time)}
