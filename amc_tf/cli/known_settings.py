"""All settings of an experiment with their defaults, for `--help` and for misspelt ones.

They are read from the sources of their classes: importing these loads TensorFlow, which takes
seconds.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from amc_tf.errors import AmcError

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ALL = ("amc_tf.pipeline.settings", "Settings")
_BUDGET = ("amc_tf.search.env.budget", "Budget")
_FLAG = "config."
_WIDTH = 76


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting.

    Attributes:
        name: its name on the command line, such as `search.episodes`.
        default: its default, as Python code.
        about: the first sentence of its description.
    """

    name: str
    default: str
    about: str


def known_settings() -> dict[str, Setting]:
    """Returns the settings of all stages by name, those of the budget first."""
    found = [*_settings(*_BUDGET, "budget."), *_settings(*_ALL, "")]
    return {setting.name: setting for setting in found}


def _settings(module: str, name: str, prefix: str) -> Iterator[Setting]:
    tree = _source(module)
    homes = _homes(tree)
    (of,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    sentences = _sentences(ast.get_docstring(of) or "")
    for node in of.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        own, kind = node.target.id, ast.unparse(node.annotation)
        if homes.get(kind, "").startswith("amc_tf.") and _made_by_default(node, kind):
            yield from _settings(homes[kind], kind, f"{prefix}{own}.")
        elif node.value is not None:
            default = ast.unparse(_Constants(tree).visit(node.value))
            yield Setting(prefix + own, default, sentences.get(own, ""))


def _source(module: str) -> ast.Module:
    path = _ROOT / f"{module.replace('.', '/')}.py"
    return ast.parse(path.read_text(encoding="utf-8"))


class _Constants(ast.NodeTransformer):
    """Puts values in the place of names that stand for texts and numbers.

    Args:
        tree: the module in which the names are used.
    """

    def __init__(self, tree: ast.Module):
        self._tree = tree

    def visit_Name(self, node: ast.Name) -> ast.expr:  # noqa: N802  (of ast)
        """Returns the value of a name, or the name where it is not written out."""
        return _constant(self._tree, node.id) or node


def _constant(tree: ast.Module, name: str) -> ast.Constant | None:
    """Returns the value that a module, or one that it imports the name from, gives a name."""
    for line in tree.body:
        if isinstance(line, ast.Assign):
            for target, value in _pairs(line.targets[0], line.value):
                if ast.unparse(target) == name and isinstance(value, ast.Constant):
                    return value
    home = _homes(tree).get(name, "")
    return _constant(_source(home), name) if home.startswith("amc_tf.") else None


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Returns what an assignment gives to what."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _homes(tree: ast.Module) -> dict[str, str]:
    """Returns the modules from which a module imports names, by the name."""
    return {
        alias.name: str(node.module)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _made_by_default(node: ast.AnnAssign, kind: str) -> bool:
    """Returns whether a field is a section: its default is made by its class."""
    return node.value is not None and ast.unparse(node.value).startswith(f"{kind}(")


def _sentences(docstring: str) -> dict[str, str]:
    """Returns the first sentence on each attribute that a docstring describes."""
    _, _, described = docstring.partition("Attributes:\n")
    described = re.split(r"\n\S", described)[0]
    found = {}
    for name, text in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", described, re.MULTILINE):
        flat = " ".join(text.split())
        found[name] = re.split(r"(?<=[^.][.;]) (?=[A-Z`])", flat)[0].rstrip(".;")
    return found


def listing() -> str:
    """Returns the settings as `--help` shows them."""
    lines = ["settings of the experiment, with their defaults:"]
    for setting in known_settings().values():
        about = textwrap.indent(textwrap.fill(setting.about, _WIDTH), " " * 4)
        lines.append(f"  --{_FLAG}{setting.name}={setting.default}\n{about}")
    return "\n".join(lines)


def check_spelling(argv: Sequence[str]) -> None:
    """Checks the settings on a command line, before the experiment is loaded.

    Keys outside the known sections are the experiment's own.

    Raises:
        AmcError: a section has no such setting.
    """
    given = (argument.lstrip("-").partition("=")[0] for argument in argv if argument[:1] == "-")
    names = [flag.removeprefix(_FLAG) for flag in given if flag.startswith(_FLAG)]
    if not names:
        return  # to read the sources takes a tenth of a second
    known = known_settings()
    sections = {name.rpartition(".")[0] for name in known} - {""}
    for name in names:
        if name.rpartition(".")[0] in sections and name not in known and name not in sections:
            raise AmcError(no_such(name, known))


def no_such(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """Says that there is no such setting, and which is nearest."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
