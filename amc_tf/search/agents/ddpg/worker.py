"""The agent's own process: `python -m amc_tf.search.agents.ddpg.worker FD`.

Started by `process`, never by hand. FD is one end of a socket pair. Requests are pickled tuples.
Each is answered by ('done', value) or by ('error', (sentence, traceback text)). After an error the
process ends, as the agent's state may be wrong.

    ('start', settings, num_features, seed) -> None, first and once
    ('act', state)                          -> float
    ('finish', actions, reward)             -> dict[str, float]
    ('close',)                              no answer; the process ends
"""

import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection


def main(arguments: list[str]) -> int:
    """Serves requests until a 'close' arrives or the other end is closed.

    Args:
        arguments: the command line after the module's name: the file descriptor.

    Returns:
        The exit status: 1 after an error, which was sent to the other end; 0 otherwise.
    """
    # Ctrl-C reaches all processes of the terminal; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(int(arguments[0])) as connection:
        try:
            _serve(connection)
        except (EOFError, ConnectionError):
            return 0  # The parent has ended, so nobody needs an answer.
        except Exception as error:
            connection.send(("error", (_sentence(error), traceback.format_exc())))
            return 1
    return 0


def _sentence(error: Exception) -> str:
    # TensorFlow's error is known by its name only: its import may be what failed.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "ran out of memory; free some, and the same call resumes"
    said = (str(error).strip() or "no message").splitlines()[0]
    return f"raised {type(error).__name__}: {said}"


def _serve(connection: Connection) -> None:
    kind, *content = connection.recv()
    if kind == "close":
        return
    if kind != "start":
        raise ValueError(f"Expected 'start' as the first message, received {kind!r}.")

    import tensorflow as tf

    # Sums in a fixed order make two runs with one seed equal. The networks are too small to gain
    # from threads, and the user's process needs the cores.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    # Imported here, so that a failing import is sent as an error.
    from amc_tf.search.agents.ddpg.learner import DdpgLearner

    learner = DdpgLearner(*content)
    connection.send(("done", None))
    while True:
        kind, *content = connection.recv()
        if kind == "act":
            connection.send(("done", learner.act(*content)))
        elif kind == "finish":
            connection.send(("done", learner.finish(*content)))
        elif kind == "close":
            return
        else:
            raise ValueError(f"Expected 'act', 'finish' or 'close', received {kind!r}.")


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # An orderly exit of TensorFlow takes more than a second, and the parent waits for it.
    os._exit(status)
