"""Processes of the product's own modules execute nothing that happens to lie around."""

import json
import subprocess
import sys
import sysconfig

import pytest

from tflite_tools import host, isolation
from tflite_tools.reference import reference_model

# Modules that the timing worker imports, of Python and of this product, and what `site` would.
_TRAPS = ("statistics", "json", "sitecustomize", "usercustomize", "numpy", "tflite_tools")


@pytest.fixture
def trapped(tmp_path, monkeypatch):
    """A working directory in which every module writes a file as soon as it is executed."""
    folder = tmp_path / "trap"
    for name in _TRAPS:
        module = folder / name / "__init__.py" if name == "tflite_tools" else folder / f"{name}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(f"open({str(folder / 'executed')!r}, 'w').close()")
    monkeypatch.chdir(folder)
    return folder


def test_the_timing_worker_executes_nothing_of_the_working_directory(trapped, monkeypatch):
    # The traps work: this is how the worker was started.
    subprocess.run(
        [sys.executable, "-m", "tflite_tools.time_model"], check=False, capture_output=True
    )
    assert (trapped / "executed").exists()
    (trapped / "executed").unlink()
    monkeypatch.setenv("PYTHONPATH", str(trapped))
    monkeypatch.setenv("PYTHONSTARTUP", str(trapped / "json.py"))
    (trapped / "model.tflite").write_bytes(reference_model())
    flags = ["--num_runs=1", "--min_secs=0", "--warmup_min_secs=0"]
    path = str(trapped / "model.tflite")
    (result,) = host.run_worker("tflite_tools.time_model", [path, *flags], hang_secs=60)
    assert result["runs"] == 1
    assert not (trapped / "executed").exists()


def test_the_search_path_of_a_process(tmp_path, monkeypatch):
    """The standard library, the product, the caller's folders, and last what nobody asked for."""
    script, asked = tmp_path / "script", tmp_path / "asked"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script / "train.py"), False)
    monkeypatch.setattr(sys, "path", ["", str(script), str(asked), "relative", *sys.path])
    path = isolation.search_path("tflite_tools")
    home = str(host.Path(host.__file__).parent.parent)
    inside = path.index(home)
    assert path[0] in isolation._standard_library()
    assert sysconfig.get_path("stdlib") in path[:inside]
    assert path[inside + 1 : inside + 3] == [str(asked), str(tmp_path / "relative")]
    assert path[-2:] == [str(tmp_path), str(script)]


def test_a_process_gets_the_path_its_arguments_and_none_of_pythons_variables(monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("OTHER", "kept")
    assert "PYTHONWARNINGS" not in isolation.environment()
    assert isolation.environment(ONE="1")["OTHER"] == "kept"
    # `json.tool` is any module with a `main` that reads its arguments.
    command = isolation.command("json.tool", ["--help"])
    assert json.loads(command[4]) == isolation.search_path("json")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage" in done.stdout
