"""Greetings are left out, all else comes through, also of a process that dies."""

import os
import subprocess
import sys
import textwrap

import pytest
from places import ROOT

GREETING = "I0000 00:00:17 1 cudart_stub.cc:31] Could not find cuda drivers on your machine\\n"


def printed(code):
    """What a process with the code prints on its standard error, and its exit code."""
    start = f"import os, signal, sys, time; from tflite_tools import greetings; G = b'{GREETING}'\n"
    done = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stderr, done.returncode


@pytest.mark.parametrize("context", ["left_out", "held_back"])
def test_what_is_no_greeting_comes_through_in_order(context):
    told, code = printed(
        f"""
        os.write(2, b"before\\n")
        with greetings.{context}():
            os.write(2, G + b"real error\\n" + G + b"no end of line")
        os.write(2, b"\\n" + G)
        """
    )
    assert code == 0
    assert told.splitlines() == ["before", "real error", "no end of line", GREETING[:-2]]


def test_it_ends_when_told():
    told, _ = printed(
        """
        with greetings.left_out() as end:
            os.write(2, G)
            end()
            os.write(2, G)
        """
    )
    assert told.splitlines() == [GREETING[:-2]]


def test_the_last_words_of_a_crash_come_through():
    told, code = printed(
        """
        with greetings.left_out():
            os.write(2, G + b"F0000 this processor lacks AVX\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert code < 0
    # The filter may write them after the process is gone: subprocess.run reads until it has.
    assert told == "F0000 this processor lacks AVX\n"


def test_a_process_that_lives_on_does_not_hold_the_command_up():
    told, code = printed(
        """
        start = time.monotonic()
        with greetings.left_out():
            if os.fork() == 0:
                time.sleep(8)
                os._exit(0)
        os.write(2, b"%d" % (time.monotonic() - start < 6))
        """
    )
    assert (told, code) == ("1", 0)


def test_an_exception_leaves_the_stream_as_it_was():
    told, code = printed(
        """
        try:
            with greetings.held_back(), greetings.left_out():
                raise ValueError
        except ValueError:
            os.write(2, G)
        """
    )
    assert code == 0 and told.splitlines() == [GREETING[:-2]]


def test_litert_greets_nobody():
    code = f"""
    sys.path.insert(0, {os.fspath(ROOT / "tests/helpers")!r})
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with greetings.left_out():
        import keras
        from tflite_tools.conversion import convert
        content = convert(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    from tflite_tools.interpreter import LiteRtModel
    LiteRtModel(content)
    """
    assert printed(code)[0] == ""
