"""The section of RESULTS.md about the report's own page."""

from __future__ import annotations

from benchmarks.common import record


def loading(entry: dict) -> str:
    def span(values: list[int]) -> str:
        return "{} ({} to {})".format(*values)

    header = (
        *("report of", "episodes", "bytes"),
        *("load event, ms", "all charts drawn, ms", f"drawn, processor slowed {entry['slowed']}x"),
    )
    names = {"demo": "the demo", "long": "its search with 400 episodes"}
    rows = [
        (
            names[page["run"]],
            f"{page['episodes']:,}",
            f"{page['bytes']:,}",
            span(page["load_ms"]),
            span(page["drawn_ms"]),
            span(page["drawn_ms_slowed"]),
        )
        for page in entry["pages"]
    ]
    note = (
        f"{entry['browser']}, headless, a fresh context each time; median (range) of "
        f"{entry['loads']} loads, from the start of the navigation. Episodes are those of all "
        "policies. The page draws before the load event ends."
    )
    return "\n".join([record.markdown(header, rows), "", note])


SECTIONS = {"report": ("The report's page", loading)}
