"""Pages made from the sources, the error messages that a page quotes, and the site of all pages."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator

import pages
import pytest
from places import ROOT

import amc_tf

FAQ = ROOT / "docs/faq.md"
README = ROOT / "README.md"


@pytest.fixture(autouse=True, scope="module")
def renewed():
    """AMC_TF_RENEW_GOLDEN=1 writes the pages anew; read the difference before committing it."""
    if os.environ.get("AMC_TF_RENEW_GOLDEN") == "1":
        pages.renew()


def test_the_settings_are_those_of_the_classes():
    text = pages.SETTINGS.read_text()
    assert text == pages.settings_page(text), "renew it: python tests/helpers/pages.py"


def test_the_table_of_readme_has_the_defaults():
    rows = re.findall(r"^\| `(\w+)\((\w+)=\.\.\.\)` \| (.*?) \|", README.read_text(), re.MULTILINE)
    assert len(rows) >= 4
    for name, field, told in rows:
        default = getattr(getattr(amc_tf, name)(), field)
        if isinstance(default, tuple):
            assert told == ", ".join(f"`{part}`" for part in default), field
        elif default is None:  # chosen by the widths and the budget, as a sentence there says
            assert field in ("rounding", "min_preserve")
        else:
            assert told == str(default), field


def test_the_page_of_settings_names_every_class_of_settings():
    named = {name for name in amc_tf.__all__ if name.endswith("Settings")}
    # They record how a model was compiled, and are not for users to fill in.
    assert named - {"CompileSettings", "OptimizerSettings"} <= set(pages.CLASSES)


def test_the_reference_says_what_the_docstrings_say():
    text = pages.REFERENCE.read_text()
    assert text == pages.reference_page(text), "renew it: python tests/helpers/pages.py"


def test_the_reference_lists_every_public_name_once():
    assert sorted(pages.ENTRY.findall(pages.REFERENCE.read_text())) == sorted(pages.public())


@pytest.mark.parametrize("name", pages.public())
def test_every_public_name_has_a_docstring(name):
    assert pages.summary(name).endswith(".")


def test_sentences_end_where_they_end():
    text = "Bounds, e.g. Budget(x). `more` of it is\nbetter. See i.e. this.\n\nNot this."
    assert pages.sentences(text) == [
        "Bounds, e.g. Budget(x).",
        "`more` of it is better.",
        "See i.e. this.",
    ]


def test_attributes_are_read_to_their_ends():
    class Some:
        """A class.

        Attributes:
            one: the first,
                on two lines.
            two: the second.

        Raises:
            ValueError: never.
        """

    assert inspect.getdoc(Some)
    assert {name: text.split() for name, text in pages.attributes(Some).items()} == {
        "one": ["the", "first,", "on", "two", "lines."],
        "two": ["the", "second."],
    }


# --- messages -------------------------------------------------------------------------------------


def _text(node: ast.expr) -> str:
    """The text of a message; what is filled in at run time is an ellipsis."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return "…"


def messages() -> Iterator[str]:
    for path in (ROOT / "amc_tf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and "Error" in ast.unparse(node.func):
                yield _text(node.args[0])


def quoted() -> list[str]:
    return re.findall(r"^### `(.*)`$", FAQ.read_text(), re.M)


def test_the_page_of_messages_quotes_enough():
    assert len(quoted()) >= 10


@pytest.mark.parametrize("beginning", quoted())
def test_a_quoted_message_begins_one_of_the_sources(beginning):
    pattern = re.escape(beginning).replace("…", "…+")
    assert any(re.match(pattern, message) for message in messages()), beginning


# --- the site -------------------------------------------------------------------------------------


def test_the_site_has_every_page_in_its_menu():
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = set(re.findall(r": (\w+\.md)$", menu, re.M))
    pages_of_docs = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert named == pages_of_docs | {"index.md", "contributing.md", "results.md"}


@pytest.mark.parametrize(
    ("page", "link", "place"),
    [
        ("index.md", "docs/export.md", "export.md"),
        ("index.md", "CONTRIBUTING.md", "contributing.md"),
        ("export.md", "litert.md", "litert.md"),
        ("export.md", "../benchmarks/RESULTS.md", "results.md"),
        ("results.md", "../README.md", "index.md"),
        ("own_model.md", "../configs/mnist.py", "source/configs/mnist.py.md"),
        ("source/examples/tutorial.ipynb.md", "../docs/apps.md", "apps.md"),
    ],
)
def test_links_out_of_docs_lead_to_pages_of_the_site(page, link, place):
    hooks = runpy.run_path(str(ROOT / "docs/site_hooks.py"))
    assert hooks["_place"](hooks["_target"](page, link)) == place


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None,
    reason="mkdocs is not installed: the extra `docs` brings it; `make docs` builds the site",
)
def test_the_site_is_built_without_warnings(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text()
    assert not [name for name in pages.public() if f'id="{name}"' not in reference]
