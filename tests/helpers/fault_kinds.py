"""The faults of a search for `fault_runs`: a table of functions.

Each function does one fault to a run that is resumed afterwards, and records what the disturbed
processes reported; `fault_runs.judged` resumes and compares.

    python tests/helpers/fault_kinds.py FOLDER "disk full" ...
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import blobs
import forked_agents
import tqdm
from fault_runs import Reference, Run, Verdict, can_mount, ended, judged, records

import amc_tf

Fault = Callable[[Run, Reference, Verdict], None]
# Longest waits: the start takes seconds, an episode of the reference milliseconds.
_EPISODES_SECONDS = 0.1
_START_SECONDS = 6.0


def _moment(run: Run, reference: Reference, pid: int) -> None:
    """Waits for a random moment: one time in four of the start, else of the episodes."""
    if run.rng.random() < 0.25:
        time.sleep(run.rng.uniform(0, _START_SECONDS))
    else:
        run.await_lines(pid, run.rng.randrange(len(reference.records) - 1))
        time.sleep(run.rng.uniform(0, _EPISODES_SECONDS))


def _kill(pid: int | None) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


def kill_parent(run: Run, reference: Reference, verdict: Verdict) -> None:
    pid = run.start()
    _moment(run, reference, pid)
    _kill(pid)
    ended(verdict, run.wait(pid), reference, "never")


def kill_agent(run: Run, reference: Reference, verdict: Verdict) -> None:
    pid = run.start()
    while run.agent() is None:
        time.sleep(0.01)  # not forked yet
    if run.rng.random() < 0.25:
        time.sleep(run.rng.uniform(0, 1))
    else:
        # The agent must still be needed: the last dozen episodes are of random search.
        run.await_lines(pid, run.rng.randrange(len(reference.records) - 13))
    _kill(run.agent())
    ended(verdict, run.wait(pid), reference, "ended by SIGKILL .*out of memory.*call resumes")


def kill_both(run: Run, reference: Reference, verdict: Verdict) -> None:
    pid = run.start()
    _moment(run, reference, pid)
    for process in run.rng.sample([pid, run.agent()], 2):
        _kill(process)
    ended(verdict, run.wait(pid), reference, "ended by SIGKILL")


def agent_out_of_memory(run: Run, reference: Reference, verdict: Verdict) -> None:
    """From a random moment on, the agent gets no more memory."""
    pid = run.start()
    while run.agent() is None:
        time.sleep(0.01)
    time.sleep(run.rng.uniform(0, 1))
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(run.agent(), resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))
    ended(verdict, run.wait(pid), reference, "memory")


def disk_full(run: Run, reference: Reference, verdict: Verdict) -> None:
    """Fills the file system after a random number of bytes, and enlarges it later."""
    run.workdir.mkdir()
    used = sum(f.stat().st_size for f in reference.workdir.rglob("*") if f.is_file())
    room = run.rng.randrange(4096, used + 16384) // 4096 * 4096
    with _mounted(run, f"size={room}"):
        ended(verdict, run.finish(), reference, "cannot be written: No space left on device")
        shutil.copytree(run.workdir, run.root / "left")
    shutil.rmtree(run.workdir)
    (run.root / "left").rename(run.workdir)


def read_only(run: Run, reference: Reference, verdict: Verdict) -> None:
    run.workdir.mkdir()
    with _mounted(run, "ro"):
        ended(verdict, run.finish(), reference, "cannot be written: Read-only file system")


@contextlib.contextmanager
def _mounted(run: Run, options: str):
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(run.workdir)],
        check=True,
        capture_output=True,
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(run.workdir)], check=True)


def _finished(run: Run, reference: Reference) -> None:
    shutil.copytree(reference.workdir, run.workdir)


def _flip(path: pathlib.Path, run: Run, start: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[run.rng.randrange(start, len(data))] ^= 1 << run.rng.randrange(8)
    path.write_bytes(data)


def _cut(path: pathlib.Path, run: Run) -> None:
    path.write_bytes(path.read_bytes()[: run.rng.randrange(path.stat().st_size)])


def cut_log(run: Run, reference: Reference, verdict: Verdict) -> None:
    del verdict
    _finished(run, reference)
    _cut(run.log, run)


def flipped_log(run: Run, reference: Reference, verdict: Verdict) -> None:
    """Flips one bit anywhere in the log."""
    del verdict
    _finished(run, reference)
    _flip(run.log, run)


def zeros_in_log(run: Run, reference: Reference, verdict: Verdict) -> None:
    """Writes zeros, which a power cut leaves of a block that was not written."""
    del verdict
    _finished(run, reference)
    data = bytearray(run.log.read_bytes())
    start = run.rng.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    run.log.write_bytes(data)


def damaged_importance(run: Run, reference: Reference, verdict: Verdict) -> None:
    del verdict
    _finished(run, reference)
    (_cut if run.rng.random() < 0.5 else _flip)(run.workdir / "importance.json", run)


def damaged_plan(run: Run, reference: Reference, verdict: Verdict) -> None:
    """Damages a plan: it must be refused or mean the same, and the search writes it again.

    Where it could have been changed by hand, the search wants it removed first.
    """
    _finished(run, reference)
    path = run.workdir / "plan.json"
    (_cut if run.rng.random() < 0.5 else _flip)(path, run)
    try:
        kept = amc_tf.PruningPlan.load(path).keep
        verdict.wrong = {k: list(v) for k, v in kept.items()} != reference.outcome["plan"]
    except amc_tf.AmcError as error:
        ended(verdict, {"error": str(error)}, reference, "is not a pruning plan|is damaged")
    outcome = run.finish()
    if "error" in outcome:
        ended(verdict, outcome, reference, "is not as the search wrote it; .*remove the file")
        path.unlink()


def _bad_score(value: float) -> Fault:
    def fault(run: Run, reference: Reference, verdict: Verdict) -> None:
        def inside() -> Mapping[str, Any]:
            return {"evaluate": _evaluating(_an_episode(run), lambda: value)}

        ended(verdict, run.finish(inside), reference, r"^episode \d+ of '\w+': .*evaluate")

    return fault


def _an_episode(run: Run) -> int:
    """Draws a call of evaluate: the first ones score the dense network and constant answers."""
    return run.rng.randrange(8, 12)


def _evaluating(count: int, act: Callable[[], float]) -> Callable[..., float]:
    """Makes an evaluate like the default one, except that one call does something else."""
    calls = []
    good = blobs.task()

    def evaluate(model, data):
        calls.append(1)
        return act() if len(calls) == count else good.score(model, data)

    return evaluate


def one_enormous(run: Run, reference: Reference, verdict: Verdict) -> None:
    """A score may be of any size: it is kept as it is, and the best of the others is chosen."""
    score = -1e30

    def inside() -> Mapping[str, Any]:
        return {"evaluate": _evaluating(_an_episode(run), lambda: score)}

    outcome = run.finish(inside)
    if "plan" not in outcome:
        verdict.unclear = json.dumps(outcome)
        return
    played = records(run.log).values()
    counts = [len(kept) for kept in outcome["plan"].values()]
    chosen = {record["reward"] for record in played if record["counts"] == counts}
    verdict.wrong = chosen != {max(record["reward"] for record in played)}
    verdict.wrong |= score not in {record["score"] for record in played}
    shutil.rmtree(run.workdir)  # the same call without that score is another search


def raises(run: Run, reference: Reference, verdict: Verdict) -> None:
    def act() -> float:
        raise RuntimeError("the images are gone")

    def inside() -> Mapping[str, Any]:
        return {"evaluate": _evaluating(_an_episode(run), act)}

    ended(verdict, run.finish(inside), reference, r"^episode \d+ .*RuntimeError: the images are g")


def hangs(run: Run, reference: Reference, verdict: Verdict) -> None:
    """Hangs an evaluate: it sleeps, or waits in C++ of a dataset, where no signal reaches it."""

    def act() -> float:
        import tensorflow as tf

        def endless():
            time.sleep(1e6)
            yield 0

        if run.rng.random() < 0.5:
            time.sleep(1e6)
        next(iter(tf.data.Dataset.from_generator(endless, output_types=tf.int32)))
        return 0.0

    def inside() -> Mapping[str, Any]:
        evaluate = _evaluating(_an_episode(run), act)
        return {"evaluate": evaluate, "evaluate_timeout": 20.0}

    ended(verdict, run.finish(inside), reference, "did not end within 20 s")


def two_processes(run: Run, reference: Reference, verdict: Verdict) -> None:
    """Starts a second process: it is refused and names the first, which ends undisturbed."""
    first = run.start()
    while not (run.workdir / ".lock").exists() or not (run.workdir / ".lock").read_text():
        time.sleep(0.002)
    second = Run(run.root / "second", run.workdir, run.model, run.agents, run.rng)
    second.root.mkdir()
    outcome = second.finish()
    if "plan" in outcome:  # it began when the first had ended
        verdict.unclear = "the second was not refused"
    ended(verdict, outcome, reference, f"is in use by process {first} on ")
    done = run.wait(first)
    verdict.wrong |= done != reference.outcome


def clock(run: Run, reference: Reference, verdict: Verdict) -> None:
    """Makes the clock jump at every call, back to 1970 and on to 2100."""

    def inside() -> Mapping[str, Any]:
        def jumping() -> float:
            return run.rng.uniform(0, 4.1e9)

        time.time = tqdm.std.time = jumping
        time.time_ns = lambda: int(jumping() * 1e9)
        return {}

    outcome = run.finish(inside)
    ended(verdict, outcome, reference, "never")
    verdict.wrong |= outcome != reference.outcome


FAULTS: Mapping[str, Fault] = {
    "kill -9 of the process that searches": kill_parent,
    "kill -9 of the agent": kill_agent,
    "kill -9 of both": kill_both,
    "agent out of memory": agent_out_of_memory,
    "disk full": disk_full,
    "read-only workdir": read_only,
    "log cut off": cut_log,
    "log with a flipped bit": flipped_log,
    "log with 512 zero bytes": zeros_in_log,
    "importance.json cut off or with a flipped bit": damaged_importance,
    "plan.json cut off or with a flipped bit": damaged_plan,
    "reward NaN": _bad_score(float("nan")),
    "reward infinite": _bad_score(float("-inf")),
    "one score of -1e30": one_enormous,
    "evaluate raises": raises,
    "evaluate hangs": hangs,
    "two processes on one workdir": two_processes,
    "clock jumps to and fro": clock,
}


def main(folder: str, *faults: str) -> None:
    """Does each fault once in a new folder and prints the verdicts."""
    root = pathlib.Path(folder)
    verdicts = []
    with forked_agents.Agents(root / "agents") as agents:
        reference = Reference.made(root, agents.path)
        for number, name in enumerate(faults):
            if name == "disk full" and not can_mount():
                continue
            run = reference.run(str(number), random.Random(number))
            with judged(name, run, reference) as verdict:
                FAULTS[name](run, reference, verdict)
            verdicts.append(vars(verdict))
    print(json.dumps(verdicts))


if __name__ == "__main__":
    main(*sys.argv[1:])
