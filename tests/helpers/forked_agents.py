"""Agents that are forked from one process that has loaded TF-Agents, which takes seconds.

    python tests/helpers/forked_agents.py SOCKET

Each agent runs `amc_tf.search.agents.ddpg.worker` as usual, in a process of its own; only the start
of the interpreter is saved. `Agents` starts the program above, which ends with its starter. In a
process that searches, `forked` replaces `subprocess` for `amc_tf.search.agents.ddpg.process`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types


class Agents:
    """A context in which the program runs that agents are forked from."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __enter__(self) -> Agents:
        environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen([sys.executable, __file__, self.path], env=environment)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()


@functools.cache
def shared() -> pathlib.Path:
    """Starts the program once, for as long as this process lives; returns its socket."""
    leaving = contextlib.ExitStack()
    atexit.register(leaving.close)
    folder = leaving.enter_context(tempfile.TemporaryDirectory())
    return leaving.enter_context(Agents(pathlib.Path(folder, "socket"))).path


class _Forked:
    """The part of `subprocess.Popen` that `amc_tf.search.agents.ddpg.process` uses."""

    def __init__(
        self, path: pathlib.Path, told: pathlib.Path | None, command, pass_fds, stdout, **_
    ):
        assert command[-2] == "amc_tf.search.agents.ddpg.worker", command
        while not path.exists():  # TF-Agents is still being loaded
            time.sleep(0.05)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(path))
        socket.send_fds(self._socket, [b"fork"], [*pass_fds, stdout.fileno()])
        self.pid = int(self._socket.recv(100))
        if told:
            told.write_text(str(self.pid))
        self._status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            self._socket.settimeout(timeout)
            try:
                self._status = int(self._socket.recv(100) or b"0")
            except TimeoutError:
                raise subprocess.TimeoutExpired("agent", timeout or 0) from None
        return self._status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def forked(
    path: pathlib.Path | None = None, told: pathlib.Path | None = None
) -> types.SimpleNamespace:
    """Replaces the module `subprocess`.

    Args:
        path: socket of the program that forks; by default that of `shared`, from the first agent.
        told: file to which the agent's process id is written.
    """
    return types.SimpleNamespace(
        Popen=lambda command, **options: _Forked(path or shared(), told, command, **options),
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    )


def _serve(path: str) -> None:
    import tensorflow  # noqa: F401 - loaded once for all agents

    from amc_tf.search.agents.ddpg import learner, worker  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the middle processes leave no zombies
    starter = os.getppid()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(f"{path}.new")
    server.listen()
    os.rename(f"{path}.new", path)
    server.settimeout(5.0)
    while os.getppid() == starter:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        _, handles, _, _ = socket.recv_fds(connection, 100, 2)
        if os.fork() == 0:
            _between(connection, handles)
        connection.close()
        for handle in handles:
            os.close(handle)


def _between(connection: socket.socket, handles: list[int]) -> None:
    """Forks the agent and reports how it ended: only its parent may wait for it."""
    from amc_tf.search.agents.ddpg import worker

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.dup2(handles[1], 1)
        os.dup2(handles[1], 2)
        os._exit(worker.main([str(handles[0])]))
    for handle in handles:
        os.close(handle)
    connection.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # the searching process may be gone
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
