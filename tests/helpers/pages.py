"""What docs/settings.md and docs/reference.md say of each name, written from the docstrings.

    python tests/helpers/pages.py        # writes both anew; test_pages.py compares

The settings are read from the classes. On the reference page, lists name what is public, by theme;
the words after each name are the first sentence of its docstring.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator

from places import ROOT

SETTINGS, REFERENCE = ROOT / "docs/settings.md", ROOT / "docs/reference.md"
PRODUCTS = ("amc_tf", "tflite_tools")
# What a caller passes, from the outermost in, and where a configuration has it.
CLASSES = {
    "Task": "",
    "Budget": "config.budget",
    "Settings": "config",
    "SearchSettings": "config.search",
    "Constraints": "config.search.constraints",
    "DdpgSettings": "config.search.ddpg",
    "RecoverySettings": "config.recovery",
    "FineTuneSettings": "config.finetune",
    "ExportSettings": "config.export",
    "LatencySettings": "config.latency",
    "SparsitySettings": "config.sparsity",
}
ENTRY = re.compile(r"^- `((?:amc_tf|tflite_tools)\.\w+)`:[^\n]*$", re.M)
TABLES = re.compile(r"(<!-- settings: [^\n]* -->\n).*?(<!-- end -->)", re.S)


def sentences(text: str) -> list[str]:
    """Splits the words of a docstring's first paragraph at the ends of sentences."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<!e\.g\.)(?<!i\.e\.)(?<=\.) (?=[A-Z`])", paragraph)


def attributes(cls: type) -> dict[str, str]:
    """What a class says of its attributes, by name."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2]
    section = re.split(r"^\S", section, maxsplit=1, flags=re.M)[0]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", section, re.M | re.S)
    return {name: text.replace("\n        ", "\n") for name, text in found}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return "needed"
    name = type(field.default).__name__
    if name in CLASSES:
        return f"[{name}](#{name.lower()})"
    return f"`{field.default!r}`"


def _rows(name: str) -> Iterator[str]:
    module = importlib.import_module("amc_tf")
    cls = getattr(module, name)
    said = attributes(cls)
    for field in dataclasses.fields(cls):
        first, *others = sentences(said[field.name])
        words = [first[:1].upper() + first[1:], *(s for s in others if s.startswith("Default:"))]
        yield f"| `{field.name}` | {_default(field)} | {_cell(' '.join(words))} |"


def settings() -> str:
    """The tables of all settings."""
    parts = []
    for name, place in CLASSES.items():
        head = f"## {name}\n\n"
        if place not in ("", "config"):
            head += f"In a configuration: `{place}`.\n\n"
        parts.append(head + "\n".join(["| | default | |", "| --- | --- | --- |", *_rows(name)]))
    return "\n\n".join(parts)


def settings_page(text: str) -> str:
    """The page of the settings with its tables made anew."""
    new, count = TABLES.subn(lambda m: f"{m[1]}\n{settings()}\n\n{m[2]}", text)
    assert count == 1
    return new


def public() -> list[str]:
    """Full names of everything that the products' front doors name."""
    return [f"{p}.{name}" for p in PRODUCTS for name in importlib.import_module(p).__all__]


def summary(name: str) -> str:
    """The first sentence of the docstring of a public name."""
    product, _, last = name.partition(".")
    return sentences(inspect.getdoc(getattr(importlib.import_module(product), last)) or "")[0]


def reference_page(text: str) -> str:
    """The reference page with the words after each name made anew."""
    return ENTRY.sub(lambda m: f"- `{m[1]}`: {summary(m[1])}", text)


def renew() -> None:
    """Writes both pages."""
    SETTINGS.write_text(settings_page(SETTINGS.read_text()))
    REFERENCE.write_text(reference_page(REFERENCE.read_text()))


if __name__ == "__main__":
    renew()
