"""The section of RESULTS.md about the memory that a search takes."""

from __future__ import annotations

from benchmarks.common import record


def memory(entry: dict) -> str:
    peaks: dict[str, dict[int, dict]] = {}
    for row in entry["rows"]:
        peaks.setdefault(row["form"], {})[row["megabytes"]] = row
    names = {"arrays": "`np.memmap`", "dataset": "`tf.data.Dataset`"}
    rows = []
    for form, by_size in peaks.items():
        found = [row["peak_mib"] for row in by_size.values()]
        rows += [
            (names[form], f"{size:,}", f"{row['peak_mib']:,}", f"{row['seconds']:.0f}")
            for size, row in by_size.items()
        ]
        rows.append(
            (f"{names[form]}: largest less smallest", "", f"{max(found) - min(found):,}", "")
        )
    header = ("validation data", "MB", "peak MiB of the process", "seconds of the search")
    note = (
        f"A search of {entry['episodes']} episodes of a small network, each in a fresh process; "
        "the agent's own process is not counted. A dataset's batches are kept in memory up to "
        "`Task(keep_bytes=...)`, 256 MiB."
    )
    return "\n".join([note, "", record.markdown(header, rows)])


SECTIONS = {"memory": ("Memory of a search", memory)}
