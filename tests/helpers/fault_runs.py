"""A tiny search, run in processes that faults are done to, resumed and compared.

Loading TensorFlow takes longer than the search. So each run is a fork of this
process, which has imported all modules and must not have computed anything: TensorFlow's
threads do not live on in a fork.
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
import fault_agents

import amc_tf
from amc_tf.runs import workdir  # noqa: F401 - before the fork
from amc_tf.search.agents.ddpg import process

SETTINGS = {"episodes": 12, "response_share": 0.5}
BUDGET = {"macs": 0.5}
_PATIENCE = 900.0  # seconds after which a run counts as hung


@dataclasses.dataclass
class Run:
    """One folder, in which one process after another searches.

    Attributes:
        root: holds the workdir, the model and what is told of each process.
        workdir: of the search.
        model: file of the dense model.
        agents: where agents are forked.
        rng: of the moments and places of faults.
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
            inside: called in it beforehand; gives changes of the task.
        """
        outcome = self.root / "outcome.json"
        for path in (outcome, self.root / "agent.pid"):
            path.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            _child(self, outcome, inside)
        return pid

    def wait(self, pid: int) -> dict[str, Any]:
        """How a process ended: `plan` and `chosen`, `error`, `crash`, or `signal`."""
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
        """Searches in a process of its own until that ends."""
        return self.wait(self.start(inside))

    def lines(self) -> list[bytes]:
        """The whole lines of the log."""
        return self.log.read_bytes().split(b"\n")[:-1] if self.log.exists() else []

    def agent(self) -> int | None:
        """The process id of the agent, once it was forked."""
        told = self.root / "agent.pid"
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(told.read_text())
        return None

    def await_lines(self, pid: int, count: int) -> bool:
        """Waits for a log of so many lines; False if the process ended before."""
        while len(self.lines()) < count:
            if _ended(pid):
                return False
            time.sleep(0.002)
        return True


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _child(run: Run, outcome: pathlib.Path, inside: Any) -> None:
    """Searches, tells how it went, and ends the process."""
    told: dict[str, Any] = {}
    try:
        log = os.open(run.root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        process.subprocess = fault_agents.forked(run.agents, run.root / "agent.pid")
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
    """The episodes of a log by policy and number, without what time tells."""
    found = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        record.pop("seconds")
        found[record["policy"], record["episode"]] = record
    return found


@dataclasses.dataclass(frozen=True)
class Reference:
    """A search that nothing was done to."""

    root: pathlib.Path
    outcome: dict[str, Any]
    records: dict[tuple[str, int], dict[str, Any]]
    workdir: pathlib.Path
    agents: pathlib.Path

    def run(self, name: str, rng: random.Random) -> Run:
        """A new run of the same search."""
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
    """What became of one run.

    Attributes:
        fault: its name.
        error: what the disturbed process told, if it was an error.
        resumed: whether the same call ended with the plan of the reference.
        wrong: whether any process ended with another plan.
        unclear: a crash, a hang, or an error of several sentences' worth of lines.
        lost: episodes that were in the log after the fault and are not at the end,
            and those of the reference that are missing or differ.
        seconds: of all processes.
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
    """After the fault, which its context does and fills in: resumes and compares."""
    verdict = Verdict(fault)
    start = time.monotonic()
    yield verdict
    kept = set(run.lines())
    outcome: dict[str, Any] = {}
    for _ in range(4):  # as often as an error tells what to do, and it is done
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
        verdict: filled in.
        outcome: of `Run.wait`.
        reference: what a plan must be like.
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
    """Does what an error about a damaged file tells the user to do; False if it tells nothing."""
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
    """Whether disks can be made full or read-only here."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "tmpfs", folder]
        try:
            subprocess.run(mount, check=True, capture_output=True)
            subprocess.run(["umount", folder], check=True)
        except (OSError, subprocess.CalledProcessError):
            return False
    return True
