"""Silence for converters, which print too much."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silences converter and quantizer; their errors still arrive as exceptions.

    What they print in Python is advice that no caller can follow (a ``trackable_obj``, which a
    frozen graph does not need; statistics, which only the retired quantisation-aware path used).
    What the converter prints in C++ goes past Python to the process's standard error: when it
    refuses a model, it prints the whole graph.
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
