"""Bazel's BUILD files, written from what the modules really import.

    python tests/build_files.py        # writes them; test_build_files.py compares

A package is one `py_library`, a `run_*.py` a `py_binary` of its own, a test a `py_test`. The
modules that all packages rest on are targets by themselves, as `//amc_tf` is the front door, which
names every package. Dependencies are the modules that a source imports anywhere in it, and those it
names as a string (which it loads later, or starts as a process). What comes from PyPI is a
`requirement`.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import pathlib
import sys
from collections.abc import Iterable, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = tuple(
    sorted(
        init.parent.relative_to(ROOT).as_posix()
        for product in ("amc_tf", "tflite_tools")
        for init in (ROOT / product).rglob("__init__.py")
    )
)
GROUND = (
    "amc_tf/errors.py",
    "amc_tf/files.py",
    "amc_tf/lazy.py",
    "amc_tf/story.py",
    # The agent's process needs these two, and must not have Keras 3.
    "tflite_tools/errors.py",
    "tflite_tools/isolation.py",
)
SCRIPTS = ("configs", "examples")  # their modules import each other by bare names
HEADER = '"""Written by tests/build_files.py from the imports; test_build_files.py compares."""\n'
# They read the source tree as a whole, which is not laid out in Bazel's runfiles.
OF_THE_SOURCES = (
    "test_benchmarks",
    "test_build_files",
    "test_docs",
    "test_layers",
    "test_pages",
    "test_plan_archive",
    "test_public_api",
    "test_recipes_page",
    "test_wheel",
)
# Needed when a test runs, though no source imports them.
RUN_TIME = {"configs": "//configs", "EXAMPLES": "//examples", "README": "//:readme"}

DEVICE = """
# Android's benchmark_model is not built here. Put a prebuilt one beside this file, under that name:
#     bazel run //tflite_tools:run_benchmark_android -- --device=android $PWD/model.tflite
py_binary(
    name = "run_benchmark_android",
    srcs = ["run_benchmark.py"],
    args = ["--benchmark_binary=$(location benchmark_model)"],
    data = ["benchmark_model"],
    main = "run_benchmark.py",
    tags = ["manual"],
    deps = [":tflite_tools"],
)
"""


def by_itself(source: pathlib.Path) -> bool:
    """Whether a module of a package is a target of its own."""
    return source.stem.startswith("run_") or source.relative_to(ROOT).as_posix() in GROUND


@functools.cache
def labels() -> dict[str, str]:
    """Bazel's name of the target of each of our modules."""
    found = {}
    for folder in PACKAGES:
        package = folder.replace("/", ".")
        library = f"//{folder}:{folder.rpartition('/')[2]}"
        found[package] = library
        for source in (ROOT / folder).glob("[!_]*.py"):
            label = f"//{folder}:{source.stem}" if by_itself(source) else library
            found[f"{package}.{source.stem}"] = label
    return found


def imported(source: pathlib.Path) -> set[str]:
    """Full names of the modules that a file imports or names, ours and others'."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in labels() else node.module)
        elif isinstance(node, ast.Constant) and node.value in labels() and "." in node.value:
            names.add(node.value)
    return names


@functools.cache
def distributions() -> dict[str, str]:
    """The distribution on PyPI that brings a top-level module, of those installed."""
    found = importlib.metadata.packages_distributions()
    return {module: names[0] for module, names in found.items()}


@functools.cache
def helpers() -> dict[str, str]:
    """The target of each module that tests import by its bare name."""
    found = {source.stem: "//tests:helpers" for source in (ROOT / "tests/helpers").glob("*.py")}
    return {**found, "build_files": "//tests:build_files"}


def dependencies(sources: Iterable[pathlib.Path], itself: str) -> list[str]:
    """What a target needs, as its `deps` say it: ours first, then `requirement`s.

    Args:
        sources: its files.
        itself: its label.
    """
    ours, others = set(), set()
    for source in sources:
        folder = source.relative_to(ROOT).parts[0]
        beside = {
            path.stem: f"//{folder}:{path.stem}"
            for path in (source.parent.glob("*.py") if folder in SCRIPTS else ())
        }
        for name in imported(source):
            top = name.split(".")[0]
            if name in labels():
                ours.add(labels()[name])
            elif folder == "tests" and top in helpers():
                ours.add(helpers()[top])
            elif top in beside:
                ours.add(beside[top])
            elif top not in sys.stdlib_module_names and top in distributions():
                others.add(distributions()[top])
    return _deps(ours - {itself}, others, itself.removeprefix("//").partition(":")[0])


def _deps(ours: Iterable[str], others: Iterable[str], package: str) -> list[str]:
    short = sorted(
        {_short(label, package) for label in ours},
        key=lambda x: (not x.startswith(":"), x.replace(":", "!")),
    )
    return [
        *(f'"{label}"' for label in short),
        *(f'requirement("{name.lower()}")' for name in sorted(others)),
    ]


def _short(name: str, package: str) -> str:
    name = name.removeprefix(f"//{package}") if name.startswith(f"//{package}:") else name
    head, _, last = name.partition(":")
    return head if head.rpartition("/")[2] == last else name


def rule(kind: str, name: str, **attributes: Iterable[str] | str) -> str:
    """One target, as buildifier lays it out."""
    lines = [f"{kind}(", f'    name = "{name}",']
    for key, value in attributes.items():
        if isinstance(value, str):
            lines.append(f'    {key} = "{value}",')
        elif len(value := list(value)) == 1:
            lines.append(f"    {key} = [{value[0]}],")
        elif value:
            lines += [f"    {key} = [", *(f"        {entry}," for entry in value), "    ],"]
    return "\n".join([*lines, ")"])


def _library(label: str, sources: Sequence[pathlib.Path], **attributes: Iterable[str]) -> str:
    """A `py_library` of some files."""
    folder, _, name = label.removeprefix("//").partition(":")
    named = [f'"{source.relative_to(ROOT / folder).as_posix()}"' for source in sources]
    deps = dependencies(sources, label)
    return rule("py_library", name, srcs=named, **attributes, deps=deps)


def package(folder: str) -> str:
    """The BUILD file of a package of the product."""
    sources = sorted((ROOT / folder).glob("*.py"))
    typed = ['"py.typed"'] * (ROOT / folder / "py.typed").exists()
    whole = [source for source in sources if not by_itself(source)]
    rules = [_library(labels()[folder.replace("/", ".")], whole, data=typed)]
    for source in filter(by_itself, sources):
        label = f"//{folder}:{source.stem}"
        if source.stem.startswith("run_"):
            deps = dependencies([source], label)
            rules.append(rule("py_binary", source.stem, srcs=[f'"{source.name}"'], deps=deps))
        else:
            rules.append(_library(label, [source]))
    text = _assembled(rules)
    return text + DEVICE if folder == "tflite_tools" else text


def scripts(folder: str) -> str:
    """The BUILD file of configurations or examples: files that are read or run, and modules."""
    rules = [f'filegroup(\n    name = "{folder}",\n    srcs = glob(["*.py"]),\n)']
    for source in sorted((ROOT / folder).glob("*.py")):
        rules.append(_library(f"//{folder}:{source.stem}", [source], imports=['"."']))
    return _assembled(rules)


def tests() -> str:
    """The BUILD file of the tests; pytest runs each."""
    folder = ROOT / "tests"
    files = 'glob(["data/**"]) + ["helpers/benchmark_model.py"]'
    rules = [
        f'filegroup(\n    name = "files",\n    srcs = {files},\n)',
        _library("//tests:build_files", [folder / "build_files.py"], imports=['"."']),
        _library("//tests:conftest", [folder / "conftest.py"], imports=['"."']),
        _library(
            "//tests:helpers", sorted((folder / "helpers").glob("*.py")), imports=['"helpers"']
        ),
    ]
    for source in sorted(folder.rglob("test_*.py"), key=lambda path: path.stem):
        text, name = source.read_text(), source.relative_to(folder).as_posix()
        needed = [f'"{label}"' for word, label in RUN_TIME.items() if word in text]
        deps = dependencies([source, folder / "helpers/run_pytest.py"], f"//tests:{source.stem}")
        rules.append(
            rule(
                "py_test",
                source.stem,
                size="large",
                srcs=sorted(['"helpers/run_pytest.py"', f'"{name}"']),
                args=[f'"$(location {name})"'],
                data=['":files"', *sorted(needed)],
                main="helpers/run_pytest.py",
                tags=['"manual"'] * (source.stem in OF_THE_SOURCES),
                deps=[*sorted({'":conftest"', '":helpers"', *(d for d in deps if d[1] == ":")})]
                + [d for d in deps if d[1] != ":"],
            )
        )
    return _assembled(rules)


def _assembled(rules: list[str]) -> str:
    kinds = {rule.partition("(")[0] for rule in rules}
    quoted = ", ".join(f'"{kind}"' for kind in sorted(kinds) if kind.startswith("py_"))
    loads = [f'load("@rules_python//python:defs.bzl", {quoted})']
    if any("requirement(" in r for r in rules):
        loads.insert(0, 'load("@pypi//:requirements.bzl", "requirement")')
    visible = 'package(default_visibility = ["//visibility:public"])'
    return HEADER + "\n" + "\n\n".join(["\n".join(loads), visible, *rules]) + "\n"


def build_files() -> dict[pathlib.Path, str]:
    """Every generated file and what it should hold."""
    texts = {folder: package(folder) for folder in PACKAGES}
    texts |= {folder: scripts(folder) for folder in SCRIPTS}
    texts |= {"tests": tests()}
    return {ROOT / folder / "BUILD.bazel": text for folder, text in texts.items()}


def main() -> None:
    """Writes the files."""
    for path, text in build_files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
