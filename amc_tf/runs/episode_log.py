"""The log of a search, which is also its checkpoint.

A search is a deterministic function of its configuration, its seed and the
scores of the plans it tries. So a resumed search needs only the log of scores:
it runs again from the start and takes every known score from the log. It
reaches the point of interruption in the time that the agent alone takes, with
the agent in the same state as before.

Each line is sealed with a checksum of everything but the seconds that the
episode took, so that logs of the same search differ in nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.runs import layout
from amc_tf.runs.former_keys import with_names_of_now
from amc_tf.runs.forms import Episode
from amc_tf.runs.json_types import mismatch
from amc_tf.training.score import Score

_LOG = logging.getLogger(__name__)
_APART = ("seconds",)
# The key of records whose score is an estimate from part of the data, and that of how far the
# plan's outputs are from the dense network's, where it is known.
CUT, DIVERGENCE = "cut", "divergence"


class EpisodeLog:
    """A log of episodes: one JSON object for each, in the order in which they were run.

    Args:
        path: the file; made if absent. A last line cut short by a crash is dropped.
        ranks: checksum of the ranks that turn channel counts into channels, as scores of
            other channels would be wrong here. Empty where no such ranks are used.

    Raises:
        AmcError: a complete line is not an episode or was changed after it was
            written, or the log's scores are of other channels.
    """

    def __init__(self, path: str | os.PathLike, ranks: str = ""):
        self._path = pathlib.Path(path)
        self._ranks = ranks
        self._records: dict[tuple[str, int], dict[str, Any]] = {}
        self._scores: dict[tuple[int, ...], Score] = {}
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        whole, rest = _parsed(self._path)
        for record in whole:
            if record.pop("ranks", self._ranks) != self._ranks:
                raise AmcError(
                    f"the scores in {self._path} are of other channels than {layout.IMPORTANCE} "
                    "(or what it is computed from) now gives; restore that file, or use another "
                    "workdir"
                )
            self._records[record["policy"], record["episode"]] = record
            self._remember(record)
        if rest or len(self._records) != len(whole):
            self._rewrite()

    def _rewrite(self) -> None:
        lines = [self._line(record) for record in self._records.values()]
        files.write_atomically(self._path, b"".join(lines))

    def _line(self, record: dict[str, Any]) -> bytes:
        ranks = {"ranks": self._ranks} if self._ranks else {}
        return (json.dumps(files.sealed({**record, **ranks}, _APART)) + "\n").encode()

    def _remember(self, record: dict[str, Any]) -> None:
        if not record.get(CUT):
            self._scores[tuple(record["counts"])] = score_of(record)

    def score(self, counts: Sequence[int]) -> Score | None:
        """Returns the score of channel counts, with its divergence; None if they are new.

        A score that was cut short, at what another policy's best plan made hopeless, is none.
        """
        return self._scores.get(tuple(counts))

    def played(self, policy: str, episode: int, counts: Sequence[int]) -> dict[str, Any] | None:
        """Returns the record of an episode; None if it was not played, or with other counts."""
        record = self._records.get((policy, episode))
        return record if record is not None and tuple(record["counts"]) == tuple(counts) else None

    def add(self, record: dict[str, Any]) -> None:
        """Appends an episode, unless it is in the log already.

        If the log has a different episode under the same number (the numerics
        of another machine led the agent to other actions), this episode replaces
        that record, and all later records of the policy are removed.

        Raises:
            AmcError: the file cannot be written.
        """
        key = (record["policy"], record["episode"])
        old = self._records.get(key)
        if old is not None and tuple(old["counts"]) == tuple(record["counts"]):
            return
        self._remember(record)
        if old is not None:
            _LOG.warning(
                "%s: episode %s of %r decides on other channels than in the log, as numbers "
                "differ in their last digits here; it and later ones are played again, and the "
                "search may end with another plan than it would have",
                self._path,
                record["episode"],
                record["policy"],
            )
            self._records = {
                (policy, episode): r
                for (policy, episode), r in self._records.items()
                if policy != key[0] or episode < key[1]
            }
            self._records[key] = record
            self._rewrite()
            return
        # Unbuffered: a buffer would write the rest of a failed line when the file is closed.
        with (
            files.writing(self._path),
            open(self._path, "ab", buffering=0, opener=files.no_links) as file,
        ):
            start = file.tell()
            rest = self._line(record)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)  # a full disk leaves no half line behind
                raise
        self._records[key] = record

    def best(
        self, count: int, key: Callable[[Mapping[str, Any]], Any] = lambda record: record["reward"]
    ) -> list[dict[str, Any]]:
        """Returns the records of the `count` best plans, each choice of channels once.

        Args:
            count: number of records, at most.
            key: function of a record that is largest for the best one; by default its reward.
        """
        ranked = sorted(self._records.values(), key=key, reverse=True)
        distinct: dict[tuple[int, ...], dict[str, Any]] = {}
        for record in ranked:
            distinct.setdefault(tuple(record["counts"]), record)
        return list(distinct.values())[:count]


def score_of(record: Mapping[str, Any]) -> Score:
    """Returns the score of an episode, as it was when it was logged."""
    distance = record.get(DIVERGENCE)
    known = None if distance is None else float(distance)
    return Score(float(record["score"]), known, bool(record.get(CUT)))


def read_log(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the episodes of a log that a search may still be writing to.

    The file is not changed; a last line that is not complete yet is skipped.

    Args:
        path: the file; if it is absent, there are no episodes.

    Raises:
        AmcError: a complete line is not an episode, or was changed after it was written.
    """
    path = pathlib.Path(path)
    return _parsed(path)[0] if path.exists() else []


def _parsed(path: pathlib.Path) -> tuple[list[dict[str, Any]], bytes]:
    """Returns the episodes of all complete lines, and the bytes after these."""
    with files.reading(path):
        lines = path.read_bytes().split(b"\n")
    whole, rest = lines[:-1], lines[-1]
    records, sealed = [], False
    for number, line in enumerate(whole, start=1):
        try:
            content = json.loads(line)
            if sealed and files.SEAL not in content:  # only the first lines are of old versions
                raise ValueError("it has no checksum, which the line before it has")
            sealed = files.SEAL in content
            record = with_names_of_now(files.unsealed(content, _APART))
            wrong = mismatch(record, Episode)
            if wrong:
                raise ValueError(wrong)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise AmcError(
                f"line {number} of {path} is not an episode as it was written ({error}); "
                "delete that line and run again: its episode will be repeated"
            ) from None
        records.append(record)
    return records, rest
