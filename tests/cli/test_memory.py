"""How the commands set glibc's memory."""

import ctypes
import os
import types

import pytest

from amc_tf.cli import memory


@pytest.fixture
def calls(monkeypatch):
    """What is asked of mallopt."""
    found = {}
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name: types.SimpleNamespace(mallopt=found.__setitem__)
    )
    for name in list(os.environ):
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)
    return found


def test_freed_memory_is_kept(calls):
    memory.keep_freed()
    assert len(calls) == 3 and all(abs(value) < 2**31 for value in calls.values())


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_users_own_settings_stay(calls, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    memory.keep_freed()
    assert not calls


def test_systems_without_glibc_are_left_alone(calls, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace())
    memory.keep_freed()
