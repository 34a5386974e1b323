"""A lock that admits one process at a time to a folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import platform
import weakref
from collections.abc import Iterator

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.runs import layout

_LOG = logging.getLogger(__name__)


class FolderLock:
    """A lock that the kernel releases however its holder ends, even by `kill -9`.

    It is flock(2) on the file `.lock`. This file is never removed: a third process
    could then lock a new file of the same name. On NFS the lock works between
    machines from Linux 2.6.12 on, if the server's lock service runs.

    A forked process inherits flock locks, and would keep the folder locked when its
    parent is killed. So the file is closed in processes that Python forks (of
    multiprocessing, of data loaders); those that it starts anew never have it. (POSIX
    locks are not inherited, but any close of the file in the process ends them, and they
    do not tell two objects of one process apart.)

    Args:
        folder: the folder; it must exist.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._handle = -1
        self._depth = 0
        self._closes_in_children = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Returns a context that holds the lock; it may be nested.

        Raises:
            AmcError: another process (or object) holds the lock; the message names it.
        """
        if not self._depth:
            self._handle = self._acquire()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._close()

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:  # not in a child that has closed it
            os.close(handle)

    def _close_in_children(self) -> None:
        """Makes processes that are forked from now on close the file, once for each object."""
        if self._closes_in_children:
            return
        self._closes_in_children = True
        itself = weakref.ref(self)  # a registration lasts as long as the process

        def close() -> None:
            lock = itself()
            if lock is not None:
                lock._close()

        os.register_at_fork(after_in_child=close)

    def _acquire(self) -> int:
        self._close_in_children()
        path = self._folder / layout.LOCK
        with files.writing(path):
            handle = files.no_links(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            os.close(handle)
            raise AmcError(
                f"{self._folder} is in use by {holder or 'another process'}; wait for its end, or "
                "use another workdir"
            ) from None
        except OSError as error:
            _LOG.warning(
                "%s cannot be locked (%s): make sure that only one process at a time uses it",
                self._folder,
                error.strerror,
            )
            return handle
        # Only for the message above, so a full disk is no error here.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        return handle
