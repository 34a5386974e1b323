"""Converters talk too much."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silences converter and quantizer, whose errors come as exceptions too.

    What they say in Python is advice that no caller can act upon (a ``trackable_obj``, which a
    frozen graph does not need; statistics, which only the retired quantisation-aware path used).
    What the converter says in C++ goes to the process's standard error, past Python: the whole
    graph, when it refuses a model.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
            os.dup2(nowhere.fileno(), 2)
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logger.setLevel(level)
