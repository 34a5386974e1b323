"""Which package may import which, and what every module keeps to."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys

import pytest
from places import ROOT

MOST_LINES = 350
# From the top. Each package may import those named here and, whatever it is, `errors` and `files`;
# what is not named here may be imported by nothing. `tflite_tools` never imports `amc_tf`.
ALLOWED = {
    "cli": "pipeline search search.agents.ddpg search.env export report latency runs pruning graph "
    "graph.inspection training tflite_tools",
    "pipeline": "sparsity recovery search search.agents.ddpg search.env export report latency "
    "runs pruning pruning.refit pruning.residuals keras2 graph training tflite_tools",
    "sparsity": "search search.agents search.agents.ddpg search.env scoring runs pruning "
    "pruning.refit graph training",
    "search": "search.agents search.agents.ddpg search.env scoring latency runs pruning "
    "pruning.importance pruning.refit graph training tflite_tools",
    "search.agents": "search.env search.agents.ddpg",
    "search.agents.ddpg": "tflite_tools",
    "search.env": "runs pruning pruning.importance graph training",
    "export": "export.qat runs pruning keras2 graph training tflite_tools",
    "export.qat": "keras2 graph training tflite_tools",
    "report": "runs training",
    "recovery": "pruning pruning.refit graph training",
    "recipes": "graph training",
    "scoring": "pruning pruning.refit graph training tflite_tools",
    "latency": "pruning graph tflite_tools",
    "runs": "keras2 graph training tflite_tools",
    "pruning": "graph training",
    "pruning.importance": "pruning pruning.refit graph training",
    "pruning.refit": "pruning graph training",
    "pruning.residuals": "pruning graph training",
    "keras2": "graph",
    "graph.inspection": "graph",
    "graph": "",
    "training": "graph",
}
GROUND = ("errors", "lazy", "files", "story")
# What Keras keeps to itself, and the only modules that touch it: a new release is met there.
PRIVATE_OF_KERAS = re.compile(
    r"\bkeras\.src\b|_keras_history|_(in|out)bound_nodes|_(inputs|outputs)_struct"
)
KNOW_KERAS = {
    "amc_tf.graph.keras_structure",
    "amc_tf.graph.layer_table",
    "amc_tf.keras2.network",  # of Keras 2
}


def modules(product: str) -> dict[str, ast.Module]:
    """The syntax of every module of a product by its name."""
    found = {}
    for path in sorted((ROOT / product).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text())
    return found


PRODUCT = modules("amc_tf")
PACKAGES = {
    ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "amc_tf").rglob("__init__.py")
}


def imports(name: str, tree: ast.Module) -> set[tuple[str, str | None]]:
    """What a module imports of the product anywhere in it: modules, and names out of them."""
    found: set[tuple[str, str | None]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{name}: imports are written in full"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                known = whole in PRODUCT
                found.add((whole, None) if known else (node.module, alias.name))
    return {
        (module, of) for module, of in found if module.split(".")[0] in ("amc_tf", "tflite_tools")
    }


def package(module: str) -> str:
    """The package of a module, without the product's name; a module of the top is its own."""
    if module.startswith("tflite_tools"):
        return "tflite_tools"
    home = module if module in PACKAGES else module.rpartition(".")[0]
    return (module if home == "amc_tf" else home).removeprefix("amc_tf").removeprefix(".")


@pytest.mark.parametrize("name", sorted(PRODUCT))
def test_imports_run_down(name):
    itself = package(name)
    if name == "amc_tf" or itself.startswith("run_"):
        allowed = {*ALLOWED, *GROUND}  # the front door of all; the older names of the commands
    elif itself in GROUND:
        allowed = {*GROUND[: GROUND.index(itself)], "tflite_tools"}
    else:
        allowed = {itself, *ALLOWED[itself].split(), *GROUND}
    reached = {package(module) for module, _ in imports(name, PRODUCT[name])}
    assert reached <= allowed, f"{name} may not import {sorted(reached - allowed)}"


@pytest.mark.parametrize("module", ["base", "random"])
def test_a_searcher_needs_no_environment(module):
    """The protocol, and the simplest searcher, know states and actions alone."""
    name = f"amc_tf.search.agents.{module}"
    assert {package(of) for of, _ in imports(name, PRODUCT[name])} <= set(GROUND)


def test_the_table_names_every_package_and_only_what_lies_below():
    assert {name.removeprefix("amc_tf.") for name in PACKAGES - {"amc_tf"}} == set(ALLOWED)
    below = {name: text.split() for name, text in ALLOWED.items()}
    graphlib.TopologicalSorter(below).prepare()  # raises where two import each other in a circle


def test_no_module_imports_itself_in_a_circle():
    graphlib.TopologicalSorter(
        {
            name: {module for module, _ in imports(name, tree) if module in PRODUCT}
            for name, tree in PRODUCT.items()
            if name != "amc_tf"
        }
    ).prepare()


@pytest.mark.parametrize("name", sorted(PRODUCT))
def test_private_names_stay_in_their_package(name):
    tree = PRODUCT[name]
    taken = [
        f"{module}.{of}" if of else module
        for module, of in imports(name, tree)
        if package(module) != package(name)
        and f".{of or module.rpartition('.')[2]}".startswith("._")
    ]
    assert not taken


@pytest.mark.parametrize("product", ["amc_tf", "tflite_tools"])
def test_no_module_is_too_long(product):
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in (ROOT / product).rglob("*.py")
    }
    assert not {path: length for path, length in lengths.items() if length > MOST_LINES}


def test_private_parts_of_keras_are_read_in_one_place():
    found = {
        name
        for name, tree in PRODUCT.items()
        if PRIVATE_OF_KERAS.search(ast.unparse(tree))  # without comments
    }
    assert found == KNOW_KERAS


def test_tflite_tools_does_without_the_product():
    for name, tree in modules("tflite_tools").items():
        assert {package(module) for module, _ in imports(name, tree)} <= {"tflite_tools"}, name


@pytest.mark.parametrize(
    "module, absent",
    [
        ("amc_tf", "tensorflow keras tf_keras numpy"),
        *[(f"amc_tf.{name}", "tensorflow keras tf_keras") for name in ALLOWED],
        ("amc_tf.report.html", "tensorflow keras tf_keras"),
        # --help should not wait for TensorFlow.
        *[
            (f"amc_tf.cli.{path.stem}", "tensorflow keras tf_keras")
            for path in sorted((ROOT / "amc_tf" / "cli").glob("[!_]*.py"))
        ],
        # Both sides of the pipe to the agent: the user's process, and its own before TF-Agents.
        ("amc_tf.search.agents.ddpg.process", "tensorflow keras tf_keras tf_agents"),
        ("amc_tf.search.agents.ddpg.worker", "tensorflow keras tf_keras tf_agents"),
    ],
)
def test_what_an_import_leaves_out(module, absent):
    code = f"import sys, {module}; print(*sorted(set({absent.split()!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
