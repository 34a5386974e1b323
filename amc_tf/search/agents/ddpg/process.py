"""The DDPG agent in the user's process: a searcher that talks to a child process.

TF-Agents needs `TF_USE_LEGACY_KERAS=1`, which turns every `tf.keras` of a process into Keras 2.
So it runs in a child process, and this module imports nothing of it. The child is a plain
subprocess. A process of multiprocessing would import the user's `__main__` again, and run all of
it where it is not guarded by `if __name__ == "__main__"`.
"""

import contextlib
import importlib.util
import math
import os
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, BinaryIO

import numpy as np

from amc_tf import files
from amc_tf.errors import AmcError
from amc_tf.search.agents.ddpg.settings import DdpgSettings
from tflite_tools import isolation

_LOG_TAIL_BYTES = 4000
_WORKER = "amc_tf.search.agents.ddpg.worker"
# Far more time than the agent needs to end by itself; nothing is lost by killing it.
_CLOSE_SECONDS = 2.0
# Longest single wait for an answer.
_SLICE_SECONDS = 1.0
# Signals that end a process which got no memory.
_SIGNALS = {
    "SIGKILL": "the system does this when out of memory",
    "SIGABRT": "TensorFlow does this when out of memory, for instance",
}


class AgentError(AmcError):
    """The agent's process raised an error, died, did not start, or is closed."""


def check_installed() -> None:
    """Checks that TF-Agents is installed.

    A command of its own installs it without its dependencies: TF-Agents 0.19 pins versions of
    typing-extensions and pygame that little else can live with.

    Raises:
        AgentError: if it is missing; the message holds the command.
    """
    if importlib.util.find_spec("tf_agents") is None:
        raise AgentError(
            "TF-Agents is not installed. It needs a command of its own: "
            "pip install --no-deps tf-agents==0.19.0"
        )


class DdpgSearcher:
    """A `Searcher` that learns by DDPG, in a process of its own.

    The constructor returns at once; the first `act` waits until the agent has started. Any failure
    and any interruption of a call (Ctrl-C) closes the agent.

    Args:
        settings: the agent's settings.
        num_features: length of a state.
        seed: the agent's seed, in [0, 2**32). The same seed, settings, states and rewards give the
            same actions on the same machine.
        log_path: file to which the agent's output is appended; by default a temporary file.
        start_timeout: longest time, in seconds, that the first `act` waits for the agent to start.
            The start takes seconds on an idle machine and minutes on a busy one.
        reply_timeout: longest time, in seconds, that any other call waits for the agent's answer,
            which takes milliseconds or, where it trains, seconds. An agent that does not answer
            was stopped (SIGSTOP), for instance. The time while this process itself is stopped
            (Ctrl-Z) does not count.

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
        reply_timeout: float = 300.0,
    ) -> None:
        check_installed()
        self._start_timeout = start_timeout
        self._reply_timeout = reply_timeout
        self._up = False
        self._log = _open_log(log_path)
        self._log_start = os.fstat(self._log.fileno()).st_size
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    isolation.command(_WORKER, [str(theirs.fileno())]),
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
        # Called only once: by close, at garbage collection or at exit, whichever comes first.
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
            AgentError: if the agent failed; the message gives the reason.
        """
        return self._call("act", np.asarray(state, np.float32))

    def finish(self, actions: Sequence[float], reward: float | Sequence[float]) -> dict[str, float]:
        """Ends the episode and, after the warm-up, trains the agent.

        Args:
            actions: the actions that were executed, in [0, 1], one for each call of `act`.
            reward: the episode's reward, or what each action earned, whatever came after it.

        Returns:
            `sigma`, `baseline`, `actor_loss`, `critic_loss`; the losses are NaN for an episode
            without training.

        Raises:
            AgentError: if the agent failed; the message gives the reason.
        """
        earned = np.asarray(reward, np.float64).tolist()
        return self._call("finish", [float(action) for action in actions], earned)

    def close(self) -> None:
        """Ends the agent's process, and kills it if it does not end by itself within 2 seconds."""
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
            if not self._answered_within(self._reply_timeout):
                raise AgentError(
                    f"The agent's process {self.pid} did not answer within "
                    f"{self._reply_timeout:g} s, as it was stopped or the machine is too busy; the "
                    "same call resumes"
                )
            return self._receive()
        except BaseException:
            # An answer that was not read would be taken for the answer to the next call.
            self.close()
            raise

    def _await_start(self) -> None:
        if not self._answered_within(self._start_timeout):
            raise AgentError(
                f"The agent did not come up within {self._start_timeout:g} s; a larger "
                f"start_timeout, or the same call on a less busy machine, may help. "
                f"{self._log_tail()}"
            )
        self._receive()
        self._up = True

    def _answered_within(self, seconds: float) -> bool:
        # In slices: if both processes are stopped and go on later, only one slice is lost.
        slices = math.ceil(seconds / _SLICE_SECONDS)
        return any(self._connection.poll(seconds / slices) for _ in range(slices))

    def _send(self, *message: object) -> None:
        # If the child has ended, _receive reports its last message or how it ended.
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
        # The child writes through the same file description: a seek here would move its position.
        end = os.fstat(self._log.fileno()).st_size
        start = max(self._log_start, end - _LOG_TAIL_BYTES)
        tail = os.pread(self._log.fileno(), end - start, start).decode(errors="replace").strip()
        return f"The end of its log:\n{tail}" if tail else "Its log is empty."


def _open_log(path: str | os.PathLike[str] | None) -> BinaryIO:
    if path is None:
        return tempfile.TemporaryFile()
    with files.writing(path):
        return open(path, "ab+", opener=files.no_links)


def _environment() -> dict[str, str]:
    """Returns the child's environment: Keras 2, no accelerator."""
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # The GPU is left to the user's process, and the agent's networks are too small for one.
        **isolation.environment(TF_USE_LEGACY_KERAS="1", CUDA_VISIBLE_DEVICES=""),
    }


def _shut_down(
    parent: int, process: subprocess.Popen, connection: Connection, log: BinaryIO
) -> None:
    if os.getpid() != parent:
        return  # A fork of the parent holds copies of these, but must not close the agent.
    with contextlib.suppress(OSError):  # The agent may have died already.
        connection.send(("close",))
    connection.close()
    try:
        process.wait(_CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
