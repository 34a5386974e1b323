"""Bazel's BUILD files: dependencies as imported, none missing, none in a circle, layers kept."""

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
    modules = [f for p in build_files.PACKAGES for f in (build_files.ROOT / p).glob("*.py")]
    assert len(modules) == sum(
        len(t.get("srcs", [])) and t["package"] in build_files.PACKAGES and "tags" not in t
        for t in targets().values()
    )
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


# What may not be reached from where, through any number of dependencies.
LAYERS = [
    ("//tflite_tools", r"//amc_tf\b"),  # useful without the product
    ("//amc_tf:", r"//(tests|configs)\b"),
    ("//amc_tf/search/agents/ddpg:", r"@pypi//keras$"),  # the agent's process has Keras 2 alone
    ("//amc_tf/graph:", r"//amc_tf/(search|latency|sparsity)\b|tflite"),
    ("//amc_tf/search/env:", r"//amc_tf/search:|//amc_tf/(pipeline|export)|:finetune"),
    ("//amc_tf/pipeline:", r"//amc_tf/cli|:run_"),
]


@pytest.mark.parametrize("start, forbidden", LAYERS)
def test_layers(start, forbidden):
    edges = graph()
    reached = {name for name in edges if name.startswith(start)}
    assert reached
    waiting = list(reached)
    while waiting:
        for dependency in edges.get(waiting.pop(), []):
            assert not re.search(forbidden, dependency), f"{start} reaches {dependency}"
            if dependency not in reached:
                reached.add(dependency)
                waiting.append(dependency)
