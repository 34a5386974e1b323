"""What a run tells: to a reader, to a program, and to the handlers of others."""

import io
import json
import logging
import math
import sys
import threading

import numpy as np
import pytest

from amc_tf import story
from amc_tf.errors import AmcError

LOG = logging.getLogger("amc_tf.somewhere")


def everything():
    """Tells a sentence, a detail, a remark, what only a logger hears, and a warning."""
    story.tell("model", "found: a model", groups=3, worst=[math.nan, {"a": np.float32(0.5)}])
    story.mention("episode", "amc 1 of 2", best=0.5)
    story.remark(LOG, "a %s", "remark")
    LOG.info("for the log alone")
    LOG.warning("mind %s", "this")


def test_sentences(capsys):
    with story.told(True):
        everything()
    assert capsys.readouterr().out == "found: a model\n  a remark\nwarning: mind this\n"


def test_json_lines(capsys):
    with story.told("json"):
        everything()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["model", "episode", "remark", "warning"]
    assert lines[0]["groups"] == 3 and lines[0]["worst"] == [None, {"a": 0.5}]
    assert lines[1]["best"] == 0.5
    assert lines[3]["text"] == "mind this" and all(line["time"] > 0 for line in lines)


def test_nothing_but_warnings(capsys, caplog):
    with story.told(False):
        everything()
        with story.bar(2, "search", "ep") as bar:
            bar.update()
    captured = capsys.readouterr()
    assert captured.out == "" and "search" not in captured.err
    assert [record.getMessage() for record in caplog.records] == ["mind this"]


def test_sentences_for_a_handler_of_ones_own(caplog):
    """Whoever sets the logger's level receives them, and nothing is printed."""
    with caplog.at_level(logging.INFO, "amc_tf"), story.told(False):
        everything()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["found: a model", "a remark", "for the log alone", "mind this"]
    assert caplog.records[0].event == "model" and caplog.records[0].facts["groups"] == 3


@pytest.mark.parametrize(("verbose", "shown"), [(True, True), ("json", False)])
def test_bars(verbose, shown, capsys):
    with story.told(verbose), story.bar(2, "search", "ep") as bar:
        bar.update()
    assert ("search" in capsys.readouterr().err) == shown


def test_others_receive_what_they_would_have(capsys):
    """A file of the user's gets warnings once; what prints on the terminal does not repeat them."""
    received = []
    root = logging.getLogger()
    own, terminal = logging.Handler(), logging.StreamHandler(sys.stderr)
    own.emit = received.append
    for handler in (own, terminal):
        root.addHandler(handler)
    try:
        with story.told(True), story.told(False):  # the outer one decides
            everything()
    finally:
        for handler in (own, terminal):
            root.removeHandler(handler)
    captured = capsys.readouterr()
    assert [record.getMessage() for record in received] == ["mind this"]
    assert captured.err == "" and captured.out.count("mind this") == 1


def test_advice_of_tensorflow_on_retracing_is_left_out(caplog):
    tensorflow = logging.getLogger("tensorflow")
    with story.told(False):
        tensorflow.warning("5 out of the last 5 calls triggered tf.function retracing.")
        tensorflow.warning("something else")
    tensorflow.warning("6 out of the last 6 calls triggered tf.function retracing.")
    assert [r.getMessage()[:9] for r in caplog.records] == ["something", "6 out of "]


def test_other_values_are_refused():
    told = "expected verbose as True, False or 'json', received 2"
    with pytest.raises(AmcError, match=told), story.told(2):
        pass


@pytest.mark.parametrize("others", [True, "json", False])
def test_runs_in_two_threads_tell_their_own(others, capsys):
    """The second begins while the first is told, and ends after it."""
    begun, ended = threading.Event(), threading.Event()
    before = logging.getLogger("amc_tf").level, logging.getLogger("amc_tf").propagate

    def second():
        with story.told(others):
            begun.set()
            ended.wait(60)
            story.tell("model", "the second")

    thread = threading.Thread(target=second)
    with story.told(True):
        thread.start()
        begun.wait(60)
        everything()
    ended.set()
    thread.join(60)
    out = capsys.readouterr().out
    assert out.startswith("found: a model\n  a remark\nwarning: mind this\n")
    assert out.count("mind this") == 1 and out.count("the second") == bool(others)
    assert (logging.getLogger("amc_tf").level, logging.getLogger("amc_tf").propagate) == before


class Writer:
    """A stream as people write them who send what is printed to a logger."""

    def write(self, text):
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize("stream", [None, Writer(), io.StringIO()])
def test_streams_of_every_kind(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    for verbose in (True, "json", False):
        with story.told(verbose), story.bar(1, "search", "ep") as bar:
            everything()
            bar.update()


def test_letters_that_the_terminal_lacks(monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    with story.told(True):
        story.tell("dense", "97 % ± 1 %")
    assert ascii_only.buffer.getvalue() == rb"97 % \xb1 1 %" + b"\n"
