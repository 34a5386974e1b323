"""Results of benchmark scripts: one JSON object a run, and RESULTS.md generated from them."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent


def machine() -> str:
    """Describes processor, cores and memory of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"


def _without_folder(match: re.Match) -> str:
    name, last = match.groups()
    return f"--{name}=DIR" if name in ("data", "workdir") else f"--{name}=DIR/{last}"


def append(name: str, data: dict) -> dict:
    """Adds command, versions and machine, appends to results/NAME.jsonl, prints the object."""
    from amc_tf.runs.provenance import versions

    # Paths of this machine mean nothing elsewhere.
    paths = r"^--(data|workdir|log|model|images|labels)=.*/([^/]*)$"
    arguments = [re.sub(paths, _without_folder, argument) for argument in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{pathlib.Path(sys.argv[0]).name}", *arguments])
    entry = {"command": command, "machine": machine(), "versions": versions(), **data}
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    with open(folder / f"{name}.jsonl", "a") as file:
        file.write(json.dumps(entry) + "\n")
    print(json.dumps(entry))
    return entry


def entries(name: str) -> list[dict]:
    """Reads the objects of results/NAME.jsonl, oldest first."""
    path = HERE / "results" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def latest(name: str) -> dict | None:
    """Reads the last object of results/NAME.jsonl."""
    return next(reversed(entries(name)), None)


def last(name: str, *keys: str) -> list[dict]:
    """Reads the last result of each combination of `keys`, which may be absent; oldest first."""
    found: dict[tuple, dict] = {}
    for entry in entries(name):
        found[tuple(str(entry.get(key) or "") for key in keys)] = entry
    return list(found.values())


def commands(results: list[dict]) -> str:
    """Lists the commands of these results in Markdown."""
    return "\n".join(f"- `{entry['command']}`" for entry in results)


def markdown(header: tuple, rows: list[tuple]) -> str:
    """Makes a Markdown table."""
    lines = [header, ("---",) + ("---:",) * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def section(text: str, header: tuple, rows: list[tuple], results: list[dict]) -> str:
    """Makes a section: an introduction, a table, and the commands of its results."""
    return "\n".join([text, "", markdown(header, rows), "", commands(results)])
