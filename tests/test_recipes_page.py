"""The recipes of docs/recipes.md and the notebook, each run as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from places import ROOT

import amc_tf
import tflite_tools

PAGE = (ROOT / "docs/recipes.md").read_text()
RECIPES = {
    title: code
    for title, code in re.findall(r"^## ([^\n]+)\n.*?^```python\n(.*?)^```$", PAGE, re.M | re.S)
}
NOTEBOOK = json.loads((ROOT / "examples/tutorial.ipynb").read_text())
TIMEOUT_SECS = 1200


def code_of(notebook):
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def run(code, folder):
    """Runs a script in a process of its own, as a reader does."""
    (folder / "mine.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "mine.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def check_files(folder):
    """A run ended with the files on disk, and they are smaller than what it began with."""
    (written,) = folder.glob("runs/*/result.json")
    result = json.loads(written.read_text())
    small = amc_tf.load_model(written.parent / "finetuned.keras")
    assert small.count_params() == result["finetuned"]["params"] < result["dense"]["params"]
    assert result["finetuned"]["macs"] < result["dense"]["macs"]
    for name in ("model_float32.tflite", "model_int8.tflite"):
        content = (written.parent / name).read_bytes()
        assert tflite_tools.LiteRtModel(content).input_details
        assert len(content) == result["tflite"][name]["bytes"]
    assert (written.parent / "report.html").exists()


def test_the_page_begins_with_a_table_of_its_recipes():
    linked = re.findall(r"^\| \[[^]]+\]\(#([\w-]+)\)", PAGE, re.M)
    assert linked == [title.lower().replace(" ", "-") for title in RECIPES]
    assert len(RECIPES) == len(re.findall(r"^## ", PAGE, re.M)) == PAGE.count("```python")


def test_every_recipe_is_short_and_has_a_folder_of_its_own():
    for title, code in RECIPES.items():
        assert f'"runs/{title.lower().replace(" ", "_")}"' in code
        assert "rehearse=False" not in code
        assert max(len(line) for line in code.splitlines()) <= 100, title
        assert len(code.splitlines()) <= 60, title


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_recipe(title, tmp_path):
    run(RECIPES[title], tmp_path)
    check_files(tmp_path)


def test_the_notebook_holds_no_outputs_and_short_sentences():
    cells = NOTEBOOK["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    found = [s for s in re.split(r"[.:!?;](?:\s|$)|\n\n", text) if len(s.split()) > 1]
    assert sum(len(s.split()) for s in found) / len(found) <= 18


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    printed = run(code_of(NOTEBOOK), tmp_path)
    check_files(tmp_path)
    assert "accuracy" in printed
