"""Searches that are resumed, stages whose files are gone, and folders that stay locked."""

from __future__ import annotations

import os
import shutil
import signal
import time

import blobs
import silent_shared
from silent_judge import Bench, Silently, expect
from silent_shared import FINISHED, SHUFFLED, TAYLOR, finished_settings
from silent_tasks import HALF, classification, dense, scores

import amc_tf
from amc_tf.runs.lock import FolderLock

# --- restarts ---------------------------------------------------------------------------------


def _resumed(name: str, bench: Bench, **changes) -> None:
    """Takes back what came after six episodes; the plan must be that of the whole search."""
    bench.finished(name)
    whole = amc_tf.PruningPlan.load(bench.workdir / "plan.json").keep
    log, logged = bench.workdir / "episodes.jsonl", scores(bench.workdir)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:6]))
    for later in ("plan.json", "best_plans.json", "search.json", "finals.jsonl"):
        (bench.workdir / later).unlink(missing_ok=True)
    shutil.rmtree(bench.workdir / "plans", ignore_errors=True)
    found = amc_tf.search_plan(
        dense(bench),
        silent_shared.shuffled(),
        HALF,
        bench.workdir,
        silent_shared.long_search(**changes),
    )
    wanted, got = ({k: list(v) for k, v in p.items()} for p in (whole, found.plan.keep))
    widths = [[len(v) for v in p.values()] for p in (wanted, got)]
    expect(wanted == got, f"{widths[0]} channels whole, {widths[1]} when resumed")
    # The plan may be the same by luck.
    again = scores(bench.workdir)
    other = sum(a != b for a, b in zip(logged, again, strict=True))
    expect(not other, f"{other} of {len(logged)} episodes have another score when resumed")


def resumed(bench: Bench) -> None:
    _resumed(SHUFFLED, bench)


def resumed_taylor(bench: Bench) -> None:
    _resumed(TAYLOR, bench, importance="taylor")


def resumed_one_thread(bench: Bench) -> str | None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))})
    try:
        _resumed(SHUFFLED, bench)
    except Silently:
        said = bench.heard("thread")
        if not said:
            raise
        return said
    return None


def without_result(bench: Bench) -> None:
    """amc-finetune where the search's result.json is gone."""
    bench.finished(FINISHED)
    (bench.workdir / "result.json").unlink()
    (bench.workdir / "finetuned.keras").unlink()
    trained = []

    def fine_tune(model):
        trained.append(model)
        model.fit(*blobs.data(200, 0), epochs=1, verbose=0)

    run = amc_tf.Compression(
        dense(bench),
        classification(fine_tune=fine_tune),
        HALF,
        bench.workdir,
        finished_settings(),
    )
    try:
        run.finetune()
    except amc_tf.AmcError:
        expect(not trained, "trains to its end, and then says that there is no search")
        raise


def forked_lock(bench: Bench) -> None:
    """A killed process that had forked a worker."""
    bench.workdir.mkdir()
    read_end, write_end = os.pipe()
    holder = os.fork()
    if holder == 0:
        with FolderLock(bench.workdir).held():
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            os.write(write_end, b"!")
            time.sleep(30)
        os._exit(0)
    os.read(read_end, 1)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        with FolderLock(bench.workdir).held():
            pass
    except amc_tf.AmcError as error:
        raise Silently(f"locked by a dead process: {error}") from error


def lock_held(bench: Bench) -> None:
    """The control: a living holder keeps others out, also after it forked and after a child."""
    bench.workdir.mkdir()
    with FolderLock(bench.workdir).held():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        pid = os.fork()
        if pid == 0:
            try:
                with FolderLock(bench.workdir).held():
                    os._exit(0)
            except amc_tf.AmcError:
                os._exit(7)
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    expect(code == 7, f"two processes in one folder (exit code {code})")


CASES = {
    "shuffled training data, resumed": resumed,
    "shuffled data and importance taylor, resumed": resumed_taylor,
    "resumed on one thread": resumed_one_thread,
    "amc-finetune without result.json": without_result,
    "a lock left by a killed process that had forked": forked_lock,
    "the lock of a living process (control)": lock_held,
}
