"""The built wheel: complete, and working away from the source tree.

Its dependencies are taken from the running environment (`make check-wheel` installs them afresh).
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import keras
import pytest
from places import ROOT


def run(*command, **kwargs):
    # The sources may be on the path of the tests; here they must not be.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=env, **kwargs
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # Built from a copy: setuptools leaves its build folder beside the sources.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("amc_tf", "tflite_tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--disable-pip-version-check", "--quiet"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", out, source)
    (built,) = out.glob("*.whl")
    return built


def test_holds_every_module_and_nothing_else(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    packages = (ROOT / "amc_tf", ROOT / "tflite_tools")
    modules = {p.relative_to(ROOT).as_posix() for d in packages for p in d.rglob("*.py")}
    assert names == modules | {"amc_tf/py.typed", "tflite_tools/py.typed"}


def test_commands_run_away_from_the_sources(wheel, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A folder on a .pth line is searched, but its own .pth files, such as the one of the editable
    # installation under test here, are not read.
    (pathlib.Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        *(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"),
        *("install", "--quiet", "--no-deps", "--no-index", wheel),
    )
    where = run(python, "-c", "import amc_tf; print(amc_tf.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    scripts = {p.name for p in (tmp_path / "venv/bin").glob("amc-*")}
    declared = {line.split("=")[0].strip(' "') for line in _entry_points()}
    assert scripts == declared
    layers = [keras.layers.Dense(3, name="d"), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((4,)), *layers]).save(tmp_path / "model.keras")
    assert "1 groups, 3 prunable channels" in run(
        tmp_path / "venv/bin/amc-inspect", "model.keras", cwd=tmp_path
    )
    # One file of tests stands for all, which `make check-wheel` runs.
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    tests = run(python, "-m", "pytest", "tests/graph/test_unfit_rows.py", cwd=tmp_path)
    assert " passed" in tests


def _entry_points():
    text = (ROOT / "pyproject.toml").read_text()
    return [line for line in text.splitlines() if line.startswith("amc-")]
