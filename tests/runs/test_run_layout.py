"""File names of a run stand in one module."""

from __future__ import annotations

import ast
import inspect
import pathlib
import re

import pytest

from amc_tf.runs import layout

PRODUCT = pathlib.Path(layout.__file__).parent.parent
HOME = PRODUCT / "runs" / "layout.py"
# Members of the archives that Keras writes are called likewise.
ARCHIVES = PRODUCT / "keras2"


def _names() -> list[str]:
    """Every name, `{}` where a policy, a format or a number goes."""
    found = []
    for name, value in vars(layout).items():
        own = inspect.isfunction(value) and value.__module__ == layout.__name__
        if own and name != "is_compared":
            value = value(*len(inspect.signature(value).parameters) * ["{}"])
        if isinstance(value, layout.ModelFile):
            value = value.name
        if not name.startswith("_") and isinstance(value, str) and ("." in value or "{}" in value):
            found.append(value)
    return [*found, "plans/", "sparse/", "tensorboard/"]


def _texts(tree: ast.Module) -> list[str]:
    """The strings of a module but for docstrings, `{}` for what is put into them."""
    skipped = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
            skipped |= {id(v) for v in node.values}
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            found.append(str(node.value))
    return found


def test_the_names_are_found():
    assert {"result.json", "model_{}.tflite", "plans/{}_finetuned.keras", ".lock"} <= set(_names())


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.relative_to(PRODUCT).as_posix())
        for path in sorted(PRODUCT.rglob("*.py"))
        if path != HOME and ARCHIVES not in path.parents
    ],
)
def test_no_module_but_the_layout_spells_a_file_name_of_a_run(path):
    pattern = re.compile("|".join(rf"(?<![\w.]){re.escape(name)}" for name in _names()))
    spelt = [text for text in _texts(ast.parse(path.read_text())) if pattern.search(text)]
    assert not spelt


@pytest.mark.parametrize("name", ["model_int8.tflite", layout.tflite_file("float32")])
def test_only_files_of_policies_are_for_comparison(name):
    assert not layout.is_compared(name)
    assert layout.is_compared(layout.compared_file("dense"))


def test_names_that_carry_a_number():
    assert [layout.finals_file(), layout.finals_file(2)] == ["finals.jsonl", "finals2.jsonl"]
    assert layout.round_model(1).name == "round1.keras"
    assert layout.round_episodes(3) == "episodes3.jsonl"
