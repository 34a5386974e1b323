"""The log of a search, which is also its checkpoint.

A search is a deterministic function of its configuration, its seed and the
scores of the plans it tries. So the log of scores is all that a resumed search
needs: it runs again from the start, takes every score it knows from the log,
and reaches the point of interruption in the time the agent takes, with the
agent in the very same state.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from amc_tf import files
from amc_tf.errors import AmcError


class EpisodeLog:
    """`episodes.jsonl`: one JSON object an episode, in the order they were run.

    Args:
        path: the file; made if absent. A last line cut short by a crash is dropped.

    Raises:
        AmcError: a line before the last is not an episode.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = pathlib.Path(path)
        self._records: dict[tuple[str, int], dict[str, Any]] = {}
        self._accuracy: dict[tuple[int, ...], float] = {}
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        whole, rest = _parsed(self._path)
        for record in whole:
            self._records[record["policy"], record["episode"]] = record
            self._accuracy[tuple(record["counts"])] = float(record["accuracy"])
        if rest or len(self._records) != len(whole):
            self._rewrite()

    def _rewrite(self) -> None:
        lines = [json.dumps(record) + "\n" for record in self._records.values()]
        files.write_atomically(self._path, "".join(lines).encode())

    def accuracy(self, counts: Sequence[int]) -> float | None:
        """The score of channel counts tried before, if they were."""
        return self._accuracy.get(tuple(counts))

    def add(self, record: dict[str, Any]) -> None:
        """Appends an episode, unless it is there already.

        Where the log tells of another episode under the same number (the
        numerics of another machine led the agent elsewhere), that record and
        all later ones of the policy are replaced.
        """
        key = (record["policy"], record["episode"])
        old = self._records.get(key)
        if old is not None and tuple(old["counts"]) == tuple(record["counts"]):
            return
        self._accuracy[tuple(record["counts"])] = record["accuracy"]
        if old is not None:
            self._records = {
                (policy, episode): r
                for (policy, episode), r in self._records.items()
                if policy != key[0] or episode < key[1]
            }
            self._records[key] = record
            self._rewrite()
            return
        # Unbuffered: a buffer would write the rest of a failed line when the file is closed.
        with open(self._path, "ab", buffering=0) as file:
            start = file.tell()
            rest = (json.dumps(record) + "\n").encode()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)  # a full disk leaves no half line behind
                raise
        self._records[key] = record

    def best(self, count: int) -> list[dict[str, Any]]:
        """The records of the `count` best rewards, each choice of channels once."""
        ranked = sorted(self._records.values(), key=lambda record: -record["reward"])
        distinct = {tuple(record["counts"]): record for record in reversed(ranked)}
        return sorted(distinct.values(), key=lambda record: -record["reward"])[:count]


def read_log(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The episodes of a log to which a search may be writing meanwhile.

    The file is left as it is; a last line that is not whole yet is passed over.

    Args:
        path: the file; no episodes if it is absent.

    Raises:
        AmcError: a line before the last is not an episode.
    """
    path = pathlib.Path(path)
    return _parsed(path)[0] if path.exists() else []


def _parsed(path: pathlib.Path) -> tuple[list[dict[str, Any]], bytes]:
    """The episodes of all whole lines, and what follows them."""
    lines = path.read_bytes().split(b"\n")
    whole, rest = lines[:-1], lines[-1]
    records = []
    for number, line in enumerate(whole, start=1):
        try:
            record = json.loads(line)
            _ = record["policy"], record["episode"], tuple(record["counts"])
            float(record["accuracy"])
        except (ValueError, KeyError, TypeError) as error:
            raise AmcError(
                f"line {number} of {path} is not an episode ({error}); delete that line "
                "and run again: its episode will be repeated"
            ) from None
        records.append(record)
    return records, rest
