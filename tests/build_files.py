"""Bazel's BUILD files, written from what each module really imports.

    python tests/build_files.py        # writes them; test_build_files.py compares

A module is a `py_library`, a `run_*.py` a `py_binary`, a test a `py_test`. Dependencies are the
modules that its source imports anywhere in it, and those it names as a string (which it loads
later, or starts as a process). What comes from PyPI is a `requirement`.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import pathlib
import sys
from collections.abc import Iterable

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = tuple(
    sorted(
        init.parent.relative_to(ROOT).as_posix()
        for product in ("amc_tf", "tflite_tools")
        for init in (ROOT / product).rglob("__init__.py")
    )
)
SCRIPTS = ("configs", "examples", "tests")  # their modules import each other by bare names
HEADER = '"""Written by tests/build_files.py from the imports; test_build_files.py compares."""\n'
# They read the source tree as a whole, which is not laid out in Bazel's runfiles.
OF_THE_SOURCES = ("test_build_files", "test_docs", "test_plan_archive", "test_wheel")
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
    deps = [":run_benchmark"],
)
"""


@functools.cache
def labels() -> dict[str, str]:
    """Bazel's name of each of our modules: `amc_tf.latency.cost` is `//amc_tf/latency:cost`."""
    found = {}
    for folder in PACKAGES:
        package = folder.replace("/", ".")
        found[package] = f"//{folder}:{folder.rpartition('/')[2]}"
        for source in (ROOT / folder).glob("[!_]*.py"):
            found[f"{package}.{source.stem}"] = f"//{folder}:{source.stem}"
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


def dependencies(source: pathlib.Path) -> tuple[list[str], list[str]]:
    """Labels of our modules and distributions of others' that a file needs."""
    ours, others = set(), set()
    for name in imported(source):
        top = name.split(".")[0]
        if name in labels():
            ours.add(labels()[name])
        elif (beside := source.parent / f"{top}.py").exists() and source.parent.name in SCRIPTS:
            ours.add(f"//{source.parent.name}:{beside.stem}")
        elif top not in sys.stdlib_module_names and top in distributions():
            others.add(distributions()[top])
    package = source.parent.relative_to(ROOT).as_posix()
    itself = f"//{package}:{target(source)}"
    return sorted(_short(x, package) for x in ours - {itself}), sorted(others)


def target(source: pathlib.Path) -> str:
    """A package's own file carries the package's name, so that `//amc_tf` is the package."""
    return source.parent.name if source.stem == "__init__" else source.stem


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


def _deps(source: pathlib.Path, more: Iterable[str] = ()) -> list[str]:
    ours, others = dependencies(source)
    ours = sorted({*ours, *more}, key=lambda x: (not x.startswith(":"), x.replace(":", "!")))
    return [*(f'"{x}"' for x in ours), *(f'requirement("{x.lower()}")' for x in others)]


def package(folder: str) -> str:
    """The BUILD file of a package of the product."""
    rules = []
    for source in sorted((ROOT / folder).glob("*.py"), key=target):
        kind = "py_binary" if source.stem.startswith("run_") else "py_library"
        rules.append(rule(kind, target(source), srcs=[f'"{source.name}"'], deps=_deps(source)))
    text = _assembled(rules)
    return text + DEVICE if folder == "tflite_tools" else text


def sources(folder: str) -> str:
    """The BUILD file of configurations or examples: files that are read or run, and modules."""
    rules = [f'filegroup(\n    name = "{folder}",\n    srcs = glob(["*.py"]),\n)']
    for source in sorted((ROOT / folder).glob("*.py")):
        deps = _deps(source)
        rules.append(
            rule("py_library", source.stem, srcs=[f'"{source.name}"'], imports=['"."'], deps=deps)
        )
    return _assembled(rules)


def tests() -> str:
    """The BUILD file of the tests; pytest runs each."""
    folder, rules = ROOT / "tests", []
    for source in sorted(folder.glob("*.py")):
        if source.stem.startswith("test_"):
            text = source.read_text()
            data = [f'"{label}"' for word, label in RUN_TIME.items() if word in text]
            rules.append(
                rule(
                    "py_test",
                    source.stem,
                    size="large",
                    srcs=['"run_pytest.py"', f'"{source.name}"'],
                    args=[f'"$(location {source.name})"'],
                    data=['":files"', *sorted(data)],
                    main="run_pytest.py",
                    tags=['"manual"'] * (source.stem in OF_THE_SOURCES),
                    deps=_deps(source, [":conftest", ":run_pytest"]),
                )
            )
        else:
            rules.append(
                rule(
                    "py_library",
                    source.stem,
                    srcs=[f'"{source.name}"'],
                    imports=['"."'],
                    deps=_deps(source),
                )
            )
    files = (
        'filegroup(\n    name = "files",\n    srcs = glob(["*/**"]) + ["benchmark_model.py"],\n)'
    )
    return _assembled([files, *rules])


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
    texts |= {"configs": sources("configs"), "examples": sources("examples"), "tests": tests()}
    return {ROOT / folder / "BUILD.bazel": text for folder, text in texts.items()}


def main() -> None:
    """Writes the files."""
    for path, text in build_files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
