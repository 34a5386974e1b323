"""Names from models and files reach no terminal, picture or page unescaped."""

import json
import types
import xml.etree.ElementTree

import keras
import made_up_run
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.cli import common
from amc_tf.graph import inspection
from amc_tf.report import html, tables
from amc_tf.runs import layout
from amc_tf.runs.result import ExportResult, RunResult
from tflite_tools import DeviceError, Latency, run_benchmark
from tflite_tools.errors import printable

# Sets the title of the terminal, clears it, and reverses the direction of writing.
HOSTILE = "a\x1b]0;title\x07\x1b[2J\u202eb\x9b"
ESCAPED = r"a\x1b]0;title\x07\x1b[2J\u202eb\x9b"


def _harmless(text):
    assert ESCAPED in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_every_character_that_is_not_printable_is_escaped():
    assert printable(HOSTILE) == ESCAPED
    assert printable("a\nb\tc", keep="\n") == r"a" + "\n" + r"b\tc"
    assert printable("é 中 \ud800") == r"é 中 \ud800"


@pytest.fixture(scope="module")
def graph():
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, name="conv" + HOSTILE)(inputs)
    x = kl.Conv2D(8, 3, name="second")(kl.BatchNormalization(name="norm" + HOSTILE)(x))
    x = kl.Lambda(lambda t: t * 2, name="lambda" + HOSTILE)(kl.Conv2D(4, 3)(x))
    model = keras.Model(inputs, kl.Dense(2)(kl.Flatten()(x)), name="model" + HOSTILE)
    return amc_tf.analyze(model)


def test_a_model_in_text_and_pictures(graph):
    for text in (str(graph), amc_tf.describe(graph)):
        _harmless(text)
    drawn = inspection.picture(graph)
    _harmless(inspection.to_dot(drawn).replace("\\\\", "\\"))
    page = inspection.to_html(drawn)
    _harmless(page)
    xml.etree.ElementTree.fromstring(page)  # control characters would not be XML


def test_errors(graph, monkeypatch, capsys):
    with pytest.raises(amc_tf.AmcError) as told:
        amc_tf.Constraints(freeze=(HOSTILE,)).analyze(graph.network.model)
    _harmless(str(told.value))
    _harmless(str(DeviceError(HOSTILE, "Do this.")))
    for error in (ValueError(HOSTILE), OSError(2, HOSTILE, HOSTILE), amc_tf.AmcError(HOSTILE)):

        def fail(main, error=error):
            raise error

        monkeypatch.setattr(common.app, "run", fail)
        with pytest.raises(SystemExit) as end:
            common.run(lambda argv: None)
        _harmless(str(end.value))


def test_tables_and_the_page_of_a_run(tmp_path):
    folder = made_up_run.write(tmp_path / "run", episodes=3)
    for name in (layout.RESULT, layout.SEARCH, layout.CONFIG):
        text = (folder / name).read_text()
        known = json.dumps(HOSTILE)[1:-1]
        for old in ("model_int8.tflite", "made_up_net", "made_up.py"):
            text = text.replace(old, old + known)
        (folder / name).write_text(text)
    _harmless(tables.table(RunResult.read(folder)))
    body = html.write_report([folder]).read_text().partition("<script")[0]
    _harmless(body)


def test_the_table_of_a_standalone_export():
    from amc_tf.report import export_table

    file = {"score": 0.5, "bytes": 10, "max_abs_error": 0.1, "float_operators": [HOSTILE]}
    result = ExportResult.from_json({"tflite": {HOSTILE: file}})
    _harmless(export_table.table(result, 0.01))


def test_the_table_of_amc_benchmark(monkeypatch):
    latency = Latency((1.0, 2.0), 10, None, {"device": "android", "phone": HOSTILE})
    _harmless(run_benchmark.table({"android:" + HOSTILE: {HOSTILE: latency}}))
    monkeypatch.setattr(run_benchmark, "_DEBUG", types.SimpleNamespace(value=False))
    with pytest.raises(SystemExit) as end:
        run_benchmark._guarded(["amc-benchmark", HOSTILE])
    _harmless(str(end.value))
