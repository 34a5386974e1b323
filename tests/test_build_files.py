"""Bazel's BUILD files: dependencies as imported, none missing, none in a circle."""

from __future__ import annotations

import graphlib
import re

import build_files
import pytest

FILES = build_files.build_files()


def targets() -> dict[str, dict]:
    """Every target by its full label; Starlark without definitions is Python."""
    found: dict[str, dict] = {}
    for path in [*FILES, build_files.ROOT / "BUILD.bazel"]:
        folder = path.parent.relative_to(build_files.ROOT).as_posix().removeprefix(".")

        def declare(name, folder=folder, **attributes):
            found[f"//{folder}:{name}"] = {"package": folder, **attributes}

        names = {k: declare for k in ("py_library", "py_binary", "py_test", "filegroup")}
        ignored = {k: lambda *a, **k: [] for k in ("load", "package", "exports_files", "glob")}
        exec(path.read_text(), {**names, **ignored, "requirement": "@pypi//{}".format})
    return found


def full(label: str, package: str) -> str:
    if label.startswith(":"):
        return f"//{package}{label}"
    return label if ":" in label or label[0] == "@" else f"{label}:{label.rpartition('/')[2]}"


def graph() -> dict[str, list[str]]:
    return {
        name: [full(d, t["package"]) for d in t.get("deps", [])] for name, t in targets().items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_written_from_the_imports(path):
    assert path.read_text() == FILES[path], "run `python tests/build_files.py`"


def test_every_module_is_a_target_and_every_dependency_exists():
    everything = graph()
    modules = {f for p in build_files.PACKAGES for f in (build_files.ROOT / p).glob("*.py")}
    sources = [
        build_files.ROOT / target["package"] / source
        for target in targets().values()
        if target["package"] in build_files.PACKAGES and "tags" not in target
        for source in target["srcs"]
    ]
    assert set(sources) == modules and len(sources) == len(modules)
    missing = {d for deps in everything.values() for d in deps if d[0] != "@"} - set(everything)
    assert not missing


def test_no_circles():
    list(graphlib.TopologicalSorter(graph()).static_order())


def test_requirements_are_pinned():
    pins = (build_files.ROOT / "constraints.txt").read_text()
    pinned = {
        re.sub("[-_.]+", "-", line.split("==")[0]).lower()
        for line in pins.splitlines()
        if "==" in line
    }
    wanted = {d.removeprefix("@pypi//") for deps in graph().values() for d in deps if d[0] == "@"}
    assert {re.sub("[-_.]+", "-", name) for name in wanted} <= pinned


def test_the_agents_process_has_keras_2_alone():
    edges, waiting, reached = graph(), ["//amc_tf/search/agents/ddpg:ddpg"], set()
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += [label for label in edges.get(name, []) if label not in reached]
    assert "@pypi//tf-agents" in reached and "@pypi//keras" not in reached


def test_the_wheels_check_leaves_out_the_same_tests():
    """What reads the sources can run neither in Bazel's runfiles nor beside a wheel."""
    text = (build_files.ROOT / "Makefile").read_text().replace("\\\n", " ")
    listed = re.search(r"^OF_THE_SOURCES := (.*)$", text, re.M).group(1).split()
    assert listed == [f"{name}.py" for name in build_files.OF_THE_SOURCES]
