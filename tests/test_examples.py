"""The scripts of examples/: each pair differs by few lines, and all run as they stand."""

from __future__ import annotations

import difflib
import json
import re
import runpy

import marks
import pytest
from places import ROOT

import amc_tf

EXAMPLES = ROOT / "examples"
# Script to its run's folder, the file it saves, and the accuracy to expect of the small network.
PAIRS = {
    "sequential": ("digits_run", "digits.keras", 0.9),
    "transfer_learning": ("transfer_run", "new_digits.keras", 0.85),
    "custom_loop": ("loop_run", "loop.keras", 0.9),
}


def lines(name):
    return (EXAMPLES / f"{name}.py").read_text().splitlines()


@pytest.mark.parametrize("name", PAIRS)
def test_compression_adds_few_lines_and_changes_none(name):
    plain, compressed = lines(name), lines(f"{name}_compressed")
    changes = [d for d in difflib.ndiff(plain, compressed) if d[0] in "+-"]
    added = [d for d in changes if d[0] == "+" and d[2:].strip()]
    assert all(d[0] == "+" for d in changes)
    assert 2 <= len(added) <= 10


# They are alike, and take a minute or two each.
@pytest.mark.parametrize("name", marks.slow_but(PAIRS, ["sequential"]))
def test_runs(name, tmp_path, monkeypatch, capsys):
    folder, saved, accuracy = PAIRS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    runpy.run_path(str(EXAMPLES / f"{name}_compressed.py"), run_name="__main__")
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / folder / "result.json").read_text())
    model = amc_tf.load_model(tmp_path / saved)
    macs = amc_tf.macs(amc_tf.analyze(model))
    assert macs == result["finetuned"]["macs"] <= result["dense"]["macs"] / 2
    told = re.search(r"accuracy ([\d.]+)%, ([\d,]+) parameters", printed)
    assert told is not None, printed
    assert float(told[1]) / 100 >= accuracy
    assert int(told[2].replace(",", "")) == model.count_params()
    for file in ("model_float32.tflite", "model_int8.tflite"):
        assert result["tflite"][file]["score"] >= accuracy
        assert (tmp_path / folder / file).stat().st_size == result["tflite"][file]["bytes"]
