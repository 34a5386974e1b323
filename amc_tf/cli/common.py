"""The flags and the error handling that the commands share."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import app, flags

from amc_tf.cli import memory
from tflite_tools.command_help import show_in_help

if TYPE_CHECKING:  # importing it takes seconds, which --help should not
    from amc_tf.runs.workdir import Workdir

# TensorFlow reads it at import. Without it, its messages would hide the progress bar.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def define_debug_flag() -> None:
    """Defines `--debug`."""
    flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def define_unsafe_flag() -> None:
    """Defines `--unsafe`."""
    flags.DEFINE_bool(
        "unsafe", False, "Let model files execute their own code (Lambda layers, SavedModels)."
    )


def define_import_flag() -> None:
    """Defines `--import`."""
    flags.DEFINE_list(
        "import", [], "Python files that register the classes and functions which a model needs."
    )


def import_files() -> None:
    """Executes the files of `--import`."""
    from amc_tf.pipeline import config

    for path in flags.FLAGS["import"].value:
        config.load_module(path)


def run_stage(stage: str, about: str | None) -> None:
    """Defines the flags, runs a stage of `Compression` and prints the tables.

    Args:
        stage: name of the method: `search`, `finetune`, `export`, `sparsify` or `run`.
        about: see `run`.
    """
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config", None, "Experiment file; values as --config.search.episodes=100.", lock_config=True
    )
    flags.DEFINE_string("workdir", None, "Folder of the run; the same command resumes it.")
    flags.mark_flags_as_required(["config", "workdir"])
    define_debug_flag()
    define_unsafe_flag()

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unknown argument {argv[1]!r}; options begin with --")
        from amc_tf.pipeline import config

        path = config_flags.get_config_filename(flags.FLAGS["config"])
        compression = config.load(
            flags.FLAGS.config, path, flags.FLAGS.workdir, safe_mode=not flags.FLAGS.unsafe
        )
        getattr(compression, stage)()
        if stage != "run":  # this stage writes the report itself
            compression.report()
        show(compression.workdir)

    run(main, about)


def show(workdir: Workdir) -> None:
    """Prints the tables of a run and the path of its report."""
    from amc_tf.report import tables
    from amc_tf.runs import layout

    print(tables.table(workdir.result))
    print(f"report: {workdir / layout.REPORT}")


def run(main: Callable[[list[str]], None], about: str | None = None) -> None:
    """Runs an absl main; an error becomes one line on stderr and exit code 1.

    Args:
        main: the function.
        about: what `--help` says before it lists the flags: the docstring of the command's module.
    """
    show_in_help(about)
    memory.keep_freed()
    try:
        sys.path[:0] = _folder_of_config(sys.argv)
        app.run(main)
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command resumes")
    except Exception as error:
        if "--debug" in sys.argv or "--debug=true" in sys.argv:
            traceback.print_exc()
        sys.exit(f"error: {_sentence(error)}")


def _folder_of_config(argv: list[str]) -> list[str]:
    """Returns the folder of the configuration file, whose modules the file may import."""
    # ml_collections loads the file while flags are parsed and does not say which file is missing.
    from amc_tf.errors import AmcError

    for i, argument in enumerate(argv):
        name, given, path = argument.lstrip("-").partition("=")
        if name == "config" and argument.startswith("-"):
            path = path if given else "".join(argv[i + 1 : i + 2])
            if not os.path.isfile(path):
                raise AmcError(f"there is no configuration file {path!r}")
            return [os.path.dirname(os.path.abspath(path))]
    return []


def _sentence(error: Exception) -> str:
    from amc_tf.errors import AmcError, printable

    if isinstance(error, AmcError):
        return str(error)
    text = (str(error).strip() or "no message").splitlines()[0]
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return printable(f"{error.strerror}{where}")
    return printable(f"{type(error).__name__}: {text} (--debug shows where)")
