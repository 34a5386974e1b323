"""The plans that results and documents cite, kept in one compressed file, plans.tar.xz.

Each plan is stored as `PruningPlan.save` wrote it. Results cite a plan as plans/NAME.json, and
commands as benchmarks/plans/NAME.json. Only the last part of such a path counts, so these citations
stay valid.
"""

from __future__ import annotations

import difflib
import io
import lzma
import os
import pathlib
import tarfile
import tempfile
from collections.abc import Mapping

import amc_tf
from amc_tf import files

ARCHIVE = pathlib.Path(__file__).resolve().parent.parent / "plans.tar.xz"


def name_of(plan: str | os.PathLike) -> str:
    """Returns the name of a plan: its file name without folder and suffix."""
    return pathlib.PurePath(plan).name.removesuffix(".json")


def cited(plan: str | os.PathLike) -> str:
    """Returns the path by which results cite a plan."""
    return f"plans/{name_of(plan)}.json"


def names(archive: pathlib.Path = ARCHIVE) -> list[str]:
    """Lists the names of the plans in plans.tar.xz."""
    return list(map(name_of, _contents(archive)))


def load(plan: str | os.PathLike, archive: pathlib.Path = ARCHIVE) -> amc_tf.PruningPlan:
    """Loads the plan of a file or, if there is no such file, the kept plan of this name.

    Raises:
        AmcError: there is neither a file nor a kept plan.
    """
    if pathlib.Path(plan).is_file():
        return amc_tf.PruningPlan.load(plan)
    content = _contents(archive).get(f"{name_of(plan)}.json")
    if content is None:
        known = names(archive)
        close = difflib.get_close_matches(name_of(plan), known) or known[:3]
        raise amc_tf.AmcError(
            f"no plan {str(plan)!r}: neither a file nor one of the {len(known)} in {archive.name}, "
            f"such as {', '.join(close)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"{name_of(plan)}.json"
        path.write_bytes(content)
        return amc_tf.PruningPlan.load(path)


def keep(plans: Mapping[str, amc_tf.PruningPlan], archive: pathlib.Path = ARCHIVE) -> None:
    """Adds plans to plans.tar.xz; a kept plan of the same name is replaced."""
    contents = _contents(archive) if archive.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, plan in plans.items():
            path = pathlib.Path(folder) / f"{name}.json"
            plan.save(path)
            contents[path.name] = path.read_bytes()
    files.write_atomically(archive, _packed(contents))


def _contents(archive: pathlib.Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def _packed(contents: Mapping[str, bytes]) -> bytes:
    """Makes the archive. Order and times are fixed, so the same contents give the same bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME)
