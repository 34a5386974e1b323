"""The flags and the error handling that the commands share."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Literal

from absl import app, flags

from amc_tf.cli import known_settings, memory
from tflite_tools import greetings
from tflite_tools.command_help import PACKAGE, introduce, version

# How ml_collections tells it, of the experiment file and of the command line.
_MISSPELT = re.compile(r'^\W*(?:Key\W+)?(\w+)\W(?:.*Did you mean "(\w+)")?', re.DOTALL)
_VERBOSE_FLAG = re.compile("--?verbose(=|$)|--?flagfile")
_OF_SETTINGS = re.compile("Did you mean|config is locked")
_HELP = {"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"}
_VERBOSE: Mapping[str, bool | Literal["json"]] = {"true": True, "json": "json", "false": False}

# TensorFlow reads it at import. Without it, its messages would hide the progress bar.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def load_tensorflow() -> None:
    """Imports TensorFlow without its greetings."""
    if "tensorflow" not in sys.modules:
        with greetings.left_out():
            importlib.import_module("tensorflow")


def define_verbose_flag() -> None:
    """Defines `--verbose`, whose value `verbose` returns."""
    flags.DEFINE_enum(
        "verbose", "true", list(_VERBOSE), "Sentences and bars, JSON lines, or warnings alone."
    )


def verbose() -> bool | Literal["json"]:
    """Returns what `--verbose` says, as `amc_tf.compress` takes it."""
    return _VERBOSE[flags.FLAGS.verbose]


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
    load_tensorflow()
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
    define_verbose_flag()
    define_debug_flag()
    define_unsafe_flag()

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unknown argument {argv[1]!r}; options begin with --")
        load_tensorflow()
        from amc_tf.pipeline import config

        path = config_flags.get_config_filename(flags.FLAGS["config"])
        compression = config.load(
            flags.FLAGS.config,
            path,
            flags.FLAGS.workdir,
            safe_mode=not flags.FLAGS.unsafe,
            verbose=verbose(),
        )
        getattr(compression, stage)()
        if stage != "run":  # this stage writes the report and tells the result itself
            compression.report()
            compression.tell_result()

    run(main, about, experiment=True)


def run(
    main: Callable[[list[str]], None], about: str | None = None, experiment: bool = False
) -> None:
    """Runs an absl main; an error becomes one line on stderr and exit code 1.

    Args:
        main: the function.
        about: what `--help` says before it lists the flags: the docstring of the command's module.
        experiment: whether the command takes the settings of an experiment by `--config`.
    """
    if experiment and _HELP.intersection(sys.argv[1:]):
        about = f"{about}\n{known_settings.listing()}"
    introduce(about)
    memory.keep_freed()
    try:
        if experiment and not any(map(_VERBOSE_FLAG.match, sys.argv[1:])):
            # At once, as all else has to wait for TensorFlow.
            print(f"{PACKAGE} {version()}: loading TensorFlow", flush=True)
        known_settings.check_spelling(sys.argv[1:] if experiment else ())
        sys.path[:0] = _folder_of_config(sys.argv)
        with greetings.left_out() as let_through:  # the configuration file may load TensorFlow

            def started(argv: list[str]) -> None:
                let_through()
                main(argv)

            app.run(started)
    except KeyboardInterrupt as stopped:
        how = str(stopped) or "the same command goes on"
        print(f"interrupted: {how}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
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
    told = _MISSPELT.match(str(error))
    if told and isinstance(error, (AttributeError, KeyError)) and _OF_SETTINGS.search(str(error)):
        return known_settings.no_such(told[1], [told[2]] if told[2] else [])
    text = (str(error).strip() or "no message").splitlines()[0]
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return printable(f"{error.strerror}{where}")
    return printable(f"{type(error).__name__}: {text} (--debug shows where)")
