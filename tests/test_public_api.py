"""The front doors of the packages: what they name, and that type checkers know it."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import pathlib
import subprocess
import sys
import textwrap

import pytest
from places import ROOT

import amc_tf

DOORS = sorted(
    ".".join(init.parent.relative_to(ROOT).parts)
    for product in ("amc_tf", "tflite_tools")
    for init in (ROOT / product).rglob("__init__.py")
    if init.parent.name != "cli"  # nothing imports the commands
)


def source(module: str) -> ast.Module:
    """The syntax of a module or package."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text())


def told(package: str) -> dict[str, str]:
    """What a package tells type checkers: its public names, and the module of each."""
    (block,) = [node for node in source(package).body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    pairs = [(node.module, alias) for node in block.body for alias in node.names]
    assert all(alias.asname == alias.name for _, alias in pairs), "re-exports are explicit"
    return {alias.name: module for module, alias in pairs}


@pytest.mark.parametrize("package", DOORS)
def test_type_checkers_are_told_what_is_loaded(package):
    door, names = importlib.import_module(package), told(package)
    assert sorted(names) == sorted(door.__all__) and set(names) <= set(dir(door))
    for name, module in names.items():
        assert getattr(door, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        door.nothing_of_the_kind  # noqa: B018


@pytest.mark.parametrize("package", DOORS)
def test_no_public_name_is_a_modules(package):
    """An imported module becomes an attribute of its package, in the place of what is public."""
    folder = ROOT.joinpath(*package.split("."))
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", DOORS)
def test_public_names_are_documented(package):
    door = importlib.import_module(package)
    assert inspect.getdoc(door)
    for name in door.__all__:
        value = getattr(door, name)
        assert not callable(value) or inspect.getdoc(value), name


def annotations(node: ast.AST) -> list[ast.expr]:
    """The types that a function's signature, or a class's fields and methods, name."""
    if isinstance(node, ast.FunctionDef):
        every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        found = [argument.annotation for argument in every] + [node.returns]
        return [annotation for annotation in found if annotation is not None]
    found = []
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name.strip("_")[:1] != part.name[:1]:
                found += annotations(part) if part.name == "__init__" else []
            elif isinstance(part, ast.FunctionDef):
                found += annotations(part)
            elif isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
                found.append(part.annotation)
    elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        found.append(node.value)  # an alias of types
    return found


def definitions(tree: ast.Module) -> dict[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target): node for target in node.targets}
    return found


def origins(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Names that a module imports from the product: their module, and their name there."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("amc_tf.")
        for alias in node.names
    }


def test_every_class_that_a_public_signature_names_is_public():
    waiting = [(module, name, "amc_tf") for name, module in told("amc_tf").items()]
    seen, hidden = set(), {}
    while waiting:
        module, name, by = waiting.pop()
        if (module, name) in seen:
            continue
        seen.add((module, name))
        tree = source(module)
        defined, imported = definitions(tree), origins(tree)
        if isinstance(defined[name], ast.ClassDef) and name not in amc_tf.__all__:
            hidden[f"{module}.{name}"] = by
        for annotation in annotations(defined[name]):
            for node in ast.walk(annotation):
                text = ast.unparse(node)
                head, _, last = text.rpartition(".")
                if isinstance(node, ast.Attribute) and head in imported:  # module.Class
                    waiting.append((".".join(imported[head]), last, name))
                elif isinstance(node, ast.Name) and text in defined and text != name:
                    waiting.append((module, text, name))
                elif isinstance(node, ast.Name) and text in imported:
                    home, original = imported[text]
                    if not ROOT.joinpath(*home.split("."), f"{original}.py").exists():
                        waiting.append((home, original, name))
    assert len(seen) > len(amc_tf.__all__)
    assert not hidden


def checked(folder: pathlib.Path, code: str) -> list[str]:
    """The errors that a type checker finds in code of a user's."""
    (folder / "mine.py").write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-m", "pyrefly", "check", "mine.py", "--preset=default"]
        + [f"--search-path={ROOT}", f"--python-interpreter-path={sys.executable}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in done.stdout.splitlines() if line.startswith("ERROR")]


def test_a_type_checker_finds_misspelt_settings(tmp_path):
    errors = checked(
        tmp_path,
        """
        import amc_tf
        import tflite_tools

        amc_tf.Budget(makcs=0.5)
        amc_tf.SearchSettings(episode=3)
        amc_tf.Budget(macs="half")
        amc_tf.compres
        tflite_tools.conver
        """,
    )
    expected = ["`makcs`", "`episode`", "`Literal['half']`", "compres", "conver"]
    assert len(errors) == len(expected)
    for error, part in zip(errors, expected, strict=True):
        assert part in error


def test_a_type_checker_takes_what_is_right(tmp_path):
    assert not checked(
        tmp_path,
        """
        import amc_tf

        settings = amc_tf.Settings(search=amc_tf.SearchSettings(episodes=3))
        budget: amc_tf.Budget = amc_tf.Budget(macs=0.5)


        def plan_of(result: amc_tf.SearchResult) -> amc_tf.PruningPlan:
            return result.plan


        def widths(graph: amc_tf.ChannelGraph) -> dict[str, int]:
            return {group.name: group.channels for group in graph.groups.values()}
        """,
    )


def test_the_version_has_one_source():
    assert amc_tf.__version__ == importlib.metadata.version("amc_tf")
