"""The tree of this repository, and other commits of it checked out for a while."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def git(*arguments: str) -> str:
    """Runs git in this repository; returns what it prints."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[pathlib.Path]:
    """Checks out a commit for the time of the context; yields its folder."""
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder).resolve() / "base"
        try:
            git("worktree", "add", "--quiet", "--detach", str(tree), commit)
            yield tree
        finally:
            if tree.exists():
                git("worktree", "remove", "--force", str(tree))


def present() -> dict:
    """Describes the working tree: its commit, and whether its sources differ from it."""
    others = ".", ":!benchmarks/results"  # a benchmark itself adds to its results
    changes = git("status", "--porcelain", "--untracked-files=no", "--", *others)
    return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": bool(changes)}


def state_of(folder: str) -> str:
    """Computes a checksum of the tracked files of a folder as they are now."""
    parts = git("rev-parse", f"HEAD:{folder}"), git("diff", "HEAD", "--", folder)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
