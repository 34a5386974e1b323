"""What `make docs` adds to the pages of docs/, which are written to be read on GitHub.

README, CONTRIBUTING and the results become pages of the site, and so does every source file that a
page links to. Links that lead out of docs/ are turned to these. On the reference page, a line on a
public name becomes its whole documentation; a name without any is an error.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Pages of the site that have another place in the repository.
MOVED = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "results.md": "benchmarks/RESULTS.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
ENTRY = re.compile(r"^- `((?:amc_tf|tflite_tools)\.\w+)`:[^\n]*$", re.M)
# How a front door tells type checkers its names.
PUBLIC = re.compile(r" import (\w+) as \1$", re.M)
# A child of `mkdocs`: in strict mode, its warnings are errors.
_LOG = logging.getLogger("mkdocs.hooks.site")


def _origin(page: str) -> pathlib.PurePosixPath:
    """Where the text of a page is in the repository."""
    if page.startswith("source/"):
        return pathlib.PurePosixPath(page.removeprefix("source/").removesuffix(".md"))
    return pathlib.PurePosixPath(MOVED.get(page, f"docs/{page}"))


def _target(page: str, link: str) -> str:
    """The file of the repository that a page links to."""
    return os.path.normpath(_origin(page).parent / link)


def _place(target: str) -> str:
    """Where a file of the repository is in the site."""
    for page, moved in MOVED.items():
        if target == moved:
            return page
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"source/{target}.md"


def _shown(path: pathlib.Path, title: str) -> str:
    """A source file as a page."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        parts = ["".join(cell["source"]) for cell in cells]
        return "\n\n".join(
            part if cell["cell_type"] == "markdown" else f"```python\n{part}\n```"
            for part, cell in zip(parts, cells, strict=True)
        )
    language = {".py": "python", ".sh": "sh"}.get(path.suffix, "text")
    return f"# {title}\n\n````{language}\n{text}\n````"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are not in docs/."""
    from mkdocs.structure.files import File

    for page, origin in MOVED.items():
        files.append(File.generated(config, page, content=(ROOT / origin).read_text()))
    linked = {
        _target(file.src_uri, link)
        for file in files.documentation_pages()
        for link in LINK.findall(file.content_string)
    }
    for target in sorted(linked):
        place = _place(target)
        if place.startswith("source/") and (ROOT / target).is_file():
            files.append(File.generated(config, place, content=_shown(ROOT / target, target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links into those of the site, and names of the reference page into what they are."""
    here = page.file.src_uri
    if here.startswith("source/") and not here.endswith(".ipynb.md"):
        return markdown
    if here == "reference.md":
        markdown = ENTRY.sub(r"::: \1", markdown)
    start = os.path.dirname(here) or "."
    return LINK.sub(lambda m: os.path.relpath(_place(_target(here, m[1])), start), markdown)


def on_nav(nav: Any, config: Any, files: Any) -> None:
    """Warns of every public name that the reference page leaves out, or that has no docstring."""
    import griffe

    named = set(ENTRY.findall((ROOT / "docs/reference.md").read_text()))
    for product in ("amc_tf", "tflite_tools"):
        package = griffe.load(product, search_paths=[str(ROOT)])
        for name in PUBLIC.findall((ROOT / product / "__init__.py").read_text()):
            if f"{product}.{name}" not in named:
                _LOG.warning("docs/reference.md does not list %s.%s", product, name)
            found = package[name].final_target
            methods = found.members.values() if found.is_class else ()
            for each in (found, *(m for m in methods if m.is_function and m.name[0] != "_")):
                if not each.has_docstring:
                    _LOG.warning("%s has no docstring", each.path)
