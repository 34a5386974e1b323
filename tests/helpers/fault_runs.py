"""A tiny search in processes that suffer faults; it is resumed and compared.

Loading TensorFlow takes longer than the search. So each run is a fork of this process, which has
imported all modules. It must not have computed anything, as TensorFlow's threads do not survive a
fork.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import blobs
import forked_agents

import amc_tf
from amc_tf.runs import workdir  # noqa: F401 - before the fork
from amc_tf.search.agents.ddpg import process

SETTINGS = {"episodes": 12, "response_share": 0.5}
BUDGET = {"macs": 0.5}
_PATIENCE = 900.0  # seconds after which a run counts as hung


@dataclasses.dataclass
class Run:
    """A folder in which one process after another searches.

    Attributes:
        root: folder of the workdir, the model and the reports of each process.
        workdir: work directory of the search.
        model: file of the dense model.
        agents: socket of the program that forks agents.
        rng: random generator of the moments and places of faults.
    """

    root: pathlib.Path
    workdir: pathlib.Path
    model: pathlib.Path
    agents: pathlib.Path
    rng: random.Random

    @property
    def log(self) -> pathlib.Path:
        return self.workdir / "episodes.jsonl"

    def start(self, inside: Callable[[], Mapping[str, Any]] | None = None) -> int:
        """Forks a process that searches; returns its id.

        Args:
            inside: function that is called in it first and returns changes of the task.
        """
        outcome = self.root / "outcome.json"
        for path in (outcome, self.root / "agent.pid"):
            path.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            _child(self, outcome, inside)
        return pid

    def wait(self, pid: int) -> dict[str, Any]:
        """Waits; returns how a process ended: `plan` and `chosen`, `error`, `crash` or `signal`."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return {"crash": "hung"}
            time.sleep(0.01)
        if os.WIFSIGNALED(status):
            return {"signal": os.WTERMSIG(status)}
        outcome = self.root / "outcome.json"
        return json.loads(outcome.read_text()) if outcome.exists() else {"crash": "no outcome"}

    def finish(self, inside: Callable[[], Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """Searches in a process of its own and waits for its end."""
        return self.wait(self.start(inside))

    def lines(self) -> list[bytes]:
        """Reads the complete lines of the log."""
        return self.log.read_bytes().split(b"\n")[:-1] if self.log.exists() else []

    def agent(self) -> int | None:
        """Returns the process id of the agent, None before it is forked."""
        told = self.root / "agent.pid"
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(told.read_text())
        return None

    def await_lines(self, pid: int, count: int) -> bool:
        """Waits until the log has `count` lines; False if the process ends before."""
        while len(self.lines()) < count:
            if _ended(pid):
                return False
            time.sleep(0.002)
        return True


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _child(run: Run, outcome: pathlib.Path, inside: Any) -> None:
    """Searches, reports how it went, and ends the process."""
    told: dict[str, Any] = {}
    try:
        log = os.open(run.root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        process.subprocess = forked_agents.forked(run.agents, run.root / "agent.pid")
        changes = inside() if inside else {}
        settings = blobs.search_settings(**SETTINGS)
        found = amc_tf.search_plan(
            amc_tf.load_model(run.model),
            blobs.task(**changes),
            amc_tf.Budget(**BUDGET),
            run.workdir,
            settings,
        )
        plan = {name: list(kept) for name, kept in found.plan.keep.items()}
        told = {"plan": plan, "chosen": found.chosen}
    except amc_tf.AmcError as error:
        told = {"error": str(error)}
    except BaseException:
        told = {"crash": traceback.format_exc()}
    finally:
        outcome.write_text(json.dumps(told))
        os._exit(0)


def records(path: pathlib.Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Reads the episodes of a log by policy and number, without times."""
    found = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        record.pop("seconds")
        found[record["policy"], record["episode"]] = record
    return found


@dataclasses.dataclass(frozen=True)
class Reference:
    """A search without faults."""

    root: pathlib.Path
    outcome: dict[str, Any]
    records: dict[tuple[str, int], dict[str, Any]]
    workdir: pathlib.Path
    agents: pathlib.Path

    def run(self, name: str, rng: random.Random) -> Run:
        """Makes a new run of the same search."""
        root = self.root / name
        root.mkdir()
        return Run(root, root / "run", self.root / "model.keras", self.agents, rng)

    @classmethod
    def made(cls, root: pathlib.Path, agents: pathlib.Path) -> Reference:
        """Trains the model and searches, each in a process of its own."""
        model = root / "model.keras"
        pid = os.fork()
        if pid == 0:
            try:
                blobs.trained().save(model)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        empty = cls(root, {}, {}, root / "reference" / "run", agents)
        run = empty.run("reference", random.Random(0))
        outcome = run.finish()
        if "plan" not in outcome:
            raise RuntimeError(f"the search without faults failed: {outcome}")
        return dataclasses.replace(empty, outcome=outcome, records=records(run.log))


@dataclasses.dataclass
class Verdict:
    """The outcome of one run.

    Attributes:
        fault: name of the fault.
        error: error message of the disturbed process, if there was one.
        resumed: whether the same call ended with the plan of the reference.
        wrong: whether any process ended with another plan.
        unclear: a crash, a hang, or an error of several lines, if there was one.
        lost: number of episodes that were in the log after the fault but not at the end, and of
            those of the reference that are missing or differ.
        seconds: seconds of all processes.
    """

    fault: str
    error: str = ""
    resumed: bool = False
    wrong: bool = False
    unclear: str = ""
    lost: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def judged(fault: str, run: Run, reference: Reference) -> Iterator[Verdict]:
    """Resumes and compares after the fault, which the body of the context does and records."""
    verdict = Verdict(fault)
    start = time.monotonic()
    yield verdict
    kept = set(run.lines())
    outcome: dict[str, Any] = {}
    for _ in range(4):  # each time the error says what to do, and it is done
        outcome = run.finish()
        if "error" not in outcome or not obeyed(outcome["error"], run):
            break
        verdict.error = verdict.error or outcome["error"]
        kept = set(run.lines())
    verdict.resumed = outcome == reference.outcome
    verdict.wrong |= "plan" in outcome and not verdict.resumed
    if "plan" not in outcome:
        verdict.unclear = verdict.unclear or json.dumps(outcome)
    verdict.lost = len(kept - set(run.lines()))
    found = records(run.log) if run.log.exists() else {}
    verdict.lost += sum(found.get(key) != record for key, record in reference.records.items())
    verdict.seconds = round(time.monotonic() - start, 2)


def ended(verdict: Verdict, outcome: Mapping[str, Any], reference: Reference, says: str) -> None:
    """Judges how a disturbed process ended.

    Args:
        verdict: verdict that is filled in.
        outcome: result of `Run.wait`.
        reference: the undisturbed search, whose plan a plan must equal.
        says: pattern that an error must hold.
    """
    if "plan" in outcome:
        verdict.wrong = outcome != reference.outcome
    elif "error" in outcome:
        verdict.error = outcome["error"]
        sentence = outcome["error"].split(". The end of its log:")[0]
        if "\n" in sentence or not re.search(says, outcome["error"]):
            verdict.unclear = outcome["error"]
    elif "crash" in outcome:
        verdict.unclear = outcome["crash"]


def obeyed(error: str, run: Run) -> bool:
    """Does what an error about a damaged file asks for; False if it asks for nothing."""
    line = re.search(r"line (\d+) of (\S+) is not an episode as it was written", error)
    if line:
        number, path = int(line[1]), pathlib.Path(line[2])
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([*lines[: number - 1], *lines[number:]]))
        return True
    damaged = re.search(r"(\S+) is damaged .*; delete it and run again", error)
    if damaged and pathlib.Path(damaged[1]).is_relative_to(run.workdir):
        pathlib.Path(damaged[1]).unlink()
        return True
    return False


def can_mount() -> bool:
    """Tells whether disks can be made full or read-only here."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "tmpfs", folder]
        try:
            subprocess.run(mount, check=True, capture_output=True)
            subprocess.run(["umount", folder], check=True)
        except (OSError, subprocess.CalledProcessError):
            return False
    return True
