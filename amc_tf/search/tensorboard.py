"""Scalars of a search for TensorBoard, written while it runs."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from amc_tf.runs.progress import Progress
from amc_tf.training.metric import ACCURACY, Metric

_LOG = logging.getLogger(__name__)


class TensorBoardLog:
    """Event files in a folder, one TensorBoard run for each policy; a context manager.

    A resumed search replays its episodes from its log, beginning with the
    first. So earlier event files are removed at the start, and every episode is
    written once.

    Args:
        folder: folder for the files; made with the first episode.
        dense: costs of the dense network (see `Progress`).
        metric: what the scores are; they are written under its name.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        dense: Mapping[str, float],
        metric: Metric = ACCURACY,
    ):
        self._folder = pathlib.Path(folder)
        self._progress = Progress(dense)
        self._names = {"score": metric.name}
        self._writers: dict[str, Any] = {}
        self._failed = False
        for old in self._folder.glob("*/events.out.tfevents.*"):
            old.unlink()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Writes the scalars of an episode, with its number as the step (see `Progress`)."""
        if self._failed:
            return
        try:
            self._write(record)
        except tf.errors.OpError as error:
            # These are for display only: the search goes on, and its log holds everything.
            self._failed = True
            _LOG.warning("no more scalars for TensorBoard: %s", str(error).splitlines()[0])

    def _write(self, record: Mapping[str, Any]) -> None:
        policy = record["policy"]
        if policy not in self._writers:
            self._writers[policy] = tf.summary.create_file_writer(str(self._folder / policy))
        writer = self._writers[policy]
        with writer.as_default(step=record["episode"]):
            for name, value in self._progress(record).items():
                tf.summary.scalar(self._names.get(name, name), value)
        writer.flush()  # an episode may take minutes

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            with contextlib.suppress(tf.errors.OpError):  # a warning was logged before
                writer.close()
