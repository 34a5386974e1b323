"""The seconds at which each episode of a search ended, whatever version of amc_tf runs it.

A thread watches the search's log. An interrupted search repeats its set-up when it is resumed, and
reads known scores from its log. The clock stands still meanwhile: its time is that of a search that
was never interrupted.
"""

from __future__ import annotations

import json
import os
import pathlib
import threading
import time

_TICK = 0.05  # seconds


class SearchClock:
    """A context in which one search runs.

    Args:
        log: the search's `episodes.jsonl`; it may not exist yet.
        kept: file of the clock's times, read if the search is resumed.
        now: function that returns seconds.

    Attributes:
        ends: seconds at which each episode of the log ended, from the start of the search.
        set_up: seconds before the first episode began; None if there was no episode.
        whole: seconds of the whole search, known after the context. What is done after the last
            episode counts twice if the search was interrupted then.
    """

    def __init__(self, log: pathlib.Path, kept: pathlib.Path, now=time.monotonic):
        self._log, self._kept, self._now = log, kept, now
        known = json.loads(kept.read_text()) if kept.exists() else {"ends": [], "set_up": None}
        self.ends: list[float] = known["ends"]
        self.set_up: float | None = known["set_up"]
        self.whole = 0.0
        # What is added to the seconds of this session; unknown until a resumed one plays on.
        self._offset = None if self.ends else 0.0
        self._size = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> SearchClock:
        self._start = self._now()
        self._thread.start()
        return self

    def __exit__(self, *failed) -> None:
        self._done.set()
        self._thread.join()
        self.look()
        offset = self.ends[-1] if self._offset is None else self._offset
        self.whole = self._now() - self._start + offset

    def _watch(self) -> None:
        while not self._done.wait(_TICK):
            self.look()

    def look(self) -> None:
        """Notes the episodes that ended since the last look."""
        size = self._log.stat().st_size if self._log.exists() else 0
        if size == self._size:
            return
        self._size, seconds = size, self._now() - self._start
        lines = self._log.read_bytes().split(b"\n")[:-1]
        del self.ends[len(lines) :]  # the numerics of another machine led elsewhere
        for line in lines[len(self.ends) :]:
            taken = json.loads(line)["seconds"]
            if self._offset is None:
                self._offset = self.ends[-1] + taken - seconds
            if self.set_up is None:
                self.set_up = max(seconds - taken, 0.0)
            self.ends.append(seconds + self._offset)
        written = self._kept.with_suffix(".new")
        written.write_text(json.dumps({"ends": self.ends, "set_up": self.set_up}))
        os.replace(written, self._kept)
