"""The DDPG agent as the user's process sees it: a searcher that talks to a child process.

TF-Agents needs `TF_USE_LEGACY_KERAS=1`, which turns every `tf.keras` of a process into Keras 2.
So it lives in a child, and here nothing of it is imported. The child is a plain subprocess rather
than one of multiprocessing's: that would import the user's `__main__` again, and run it whole
where it is not guarded by `if __name__ == "__main__"`.
"""

import contextlib
import importlib.util
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, BinaryIO

import numpy as np

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.search.agents.ddpg.settings import DdpgSettings

_LOG_TAIL_BYTES = 4000
_WORKER = "amc_tf.search.agents.ddpg.worker"
# Time for the agent to end by itself, far more than it needs; nothing is lost by killing it.
_CLOSE_SECONDS = 2.0
# Which ends are those of a process that got no memory.
_SIGNALS = {
    "SIGKILL": "the system does this when out of memory",
    "SIGABRT": "TensorFlow does this when out of memory, for instance",
}


class AgentError(AmcError):
    """The agent's process raised, died, did not come up, or is closed."""


def check_installed() -> None:
    """Refuses early where TF-Agents is missing.

    On Python 3.12 and later it needs a command of its own: pip would reject it for the sake of
    pygame, which TF-Agents 0.19 pins in a version without wheels there.

    Raises:
        AgentError: if it is missing; the message holds the command.
    """
    if importlib.util.find_spec("tf_agents") is None:
        raise AgentError(
            "TF-Agents is not installed, which on Python 3.12 and later takes a command of its "
            "own: pip install --no-deps tf-agents==0.19.0"
        )


class DdpgSearcher:
    """A `Searcher` that learns by DDPG, in a process of its own.

    The constructor returns at once; the first `act` waits until the agent is up. Any failure, and
    any interruption of a call (Ctrl-C), closes the agent.

    Args:
        settings: of the agent.
        num_features: length of a state.
        seed: in [0, 2**32). Same seed, settings, states and rewards on the same machine: same
            actions.
        log_path: file to which what the agent prints is appended; by default a temporary one.
        start_timeout: seconds the first `act` waits for the agent to come up: some on an idle
            machine, minutes on one that others load.

    Raises:
        AgentError: if TF-Agents is missing or the agent's process cannot be started.
        AmcError: if its log cannot be written.
    """

    def __init__(
        self,
        settings: DdpgSettings,
        num_features: int,
        seed: int,
        log_path: str | os.PathLike[str] | None = None,
        start_timeout: float = 600.0,
    ) -> None:
        check_installed()
        self._start_timeout = start_timeout
        self._up = False
        self._log = _open_log(log_path)
        self._log_start = os.fstat(self._log.fileno()).st_size
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", _WORKER, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    env=_environment(),
                )
            except OSError as error:
                ours.close()
                self._log.close()
                raise AgentError(f"The agent's process could not be started: {error}") from error
        self._connection = Connection(ours.detach())
        # Called by close, at garbage collection or at exit, whichever comes first, and only once.
        self._shut_down = weakref.finalize(
            self, _shut_down, os.getpid(), self._process, self._connection, self._log
        )
        self._send("start", settings, num_features, seed)

    @property
    def pid(self) -> int:
        """Process id of the agent."""
        return self._process.pid

    def act(self, state: np.ndarray) -> float:
        """Proposes the action of one decision.

        Args:
            state: float32 [num_features], each feature in [0, 1].

        Returns:
            The proposed share to keep, in [0, 1].

        Raises:
            AgentError: if the agent failed; the message says how.
        """
        return self._call("act", np.asarray(state, np.float32))

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Ends the episode, and trains after the warm-up.

        Args:
            actions: the actions really executed, in [0, 1], one for each call of `act`.
            reward: the episode's reward.

        Returns:
            `sigma`, `baseline`, `actor_loss`, `critic_loss`; the losses are NaN for an episode
            without training.

        Raises:
            AgentError: if the agent failed; the message says how.
        """
        return self._call("finish", [float(action) for action in actions], float(reward))

    def close(self) -> None:
        """Ends the agent's process, killing it if it does not end by itself within 2 seconds."""
        self._shut_down()

    def __enter__(self) -> "DdpgSearcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, kind: str, *content: object) -> Any:
        if not self._shut_down.alive:
            raise AgentError("The agent is closed; make a new searcher.")
        try:
            if not self._up:
                self._await_start()
            self._send(kind, *content)
            return self._receive()
        except BaseException:
            # A request without its answer would put every later answer one call too late.
            self.close()
            raise

    def _await_start(self) -> None:
        if not self._connection.poll(self._start_timeout):
            raise AgentError(
                f"The agent did not come up within {self._start_timeout:g} s; a larger "
                f"start_timeout, or the same call on a machine less busy, may help. "
                f"{self._log_tail()}"
            )
        self._receive()
        self._up = True

    def _send(self, *message: object) -> None:
        # If the child is gone, what it sent last, or how it ended, is for _receive to tell.
        with contextlib.suppress(ConnectionError):
            self._connection.send(message)

    def _receive(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise AgentError(self._death()) from error
        if kind == "error":
            sentence, details = value
            raise AgentError(f"The agent's process {sentence}") from RuntimeError(details)
        return value

    def _death(self) -> str:
        try:
            status = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return f"The agent's process closed its connection. {self._log_tail()}"
        if status >= 0:
            return (
                f"The agent's process ended with exit code {status}; once the cause is mended, the "
                f"same call resumes. {self._log_tail()}"
            )
        name = signal.Signals(-status).name
        hint = f" ({_SIGNALS[name]})" if name in _SIGNALS else ""
        return (
            f"The agent's process was ended by {name}{hint}; the same call resumes. "
            f"{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        # The child writes through the same file description: seeking would move where it writes.
        end = os.fstat(self._log.fileno()).st_size
        start = max(self._log_start, end - _LOG_TAIL_BYTES)
        tail = os.pread(self._log.fileno(), end - start, start).decode(errors="replace").strip()
        return f"The end of its log:\n{tail}" if tail else "Its log is empty."


def _open_log(path: str | os.PathLike[str] | None) -> BinaryIO:
    if path is None:
        return tempfile.TemporaryFile()
    with files.writing(path):
        return open(path, "ab+")


def _environment() -> dict[str, str]:
    """Returns the child's environment: the parent's imports, Keras 2, no accelerator."""
    # The parent's whole path, in its order: the child finds the same packages, also those a
    # script has added to sys.path by itself.
    path = [os.path.abspath(entry) for entry in sys.path]
    root = str(pathlib.Path(__file__).resolve().parents[4])
    if root not in path:
        path.append(root)
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1",
        # A GPU belongs to the user's process, and the agent's networks are too small for one.
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(path),
        # Else `-m` puts the working directory before all of them (heeded from Python 3.11 on).
        "PYTHONSAFEPATH": "1",
    }


def _shut_down(
    owner: int, process: subprocess.Popen, connection: Connection, log: BinaryIO
) -> None:
    if os.getpid() != owner:
        return  # A fork of the owner holds copies; the agent is not its to close.
    with contextlib.suppress(OSError):  # Dead already.
        connection.send(("close",))
    connection.close()
    try:
        process.wait(_CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
