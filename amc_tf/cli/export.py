"""Exports and checks `model_FORMAT.tflite`, of a run or of any Keras file.

A run's fine-tuned model, timed beside the dense one:

    amc-export --config=configs/mnist.py --workdir=runs/mnist

Any .keras or .h5 file, with the task and the settings of a configuration, or only with samples:

    amc-export --model=net.keras --config=configs/mnist.py --out=files
    amc-export --model=net.keras --representative=samples.npz --formats=float16,int8 --out=files

The .npz file holds an array `x` (or one for each input, by its name) and optionally class indices
`y`.
"""

from __future__ import annotations

import dataclasses

from absl import app, flags

from amc_tf.cli import common


def _define_flags() -> None:
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config",
        None,
        "Experiment file; values as --config.export.tolerance=0.02.",
        lock_config=True,
    )
    flags.DEFINE_string("workdir", None, "Folder of a run whose model is exported.")
    flags.DEFINE_string("model", None, "Keras file to export instead of a run's model.")
    flags.DEFINE_string("out", None, "Folder for the files of --model.")
    flags.DEFINE_string("representative", None, "File of samples (.npz), instead of --config.")
    flags.DEFINE_list("formats", None, "Formats, instead of those of the configuration.")
    common.define_verbose_flag()
    common.define_debug_flag()
    common.define_unsafe_flag()
    common.define_import_flag()


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; options begin with --")
    given = flags.FLAGS
    common.load_tensorflow()
    if given.model is None:
        _export_run(given)
    else:
        _export_file(given)


def _export_run(given: flags.FlagValues) -> None:
    from ml_collections import config_flags

    from amc_tf.errors import AmcError
    from amc_tf.pipeline import config

    if given.config is None or given.workdir is None:
        raise AmcError("give --config and --workdir of a run, or --model and --out of a Keras file")
    if given.formats:
        given.config.export.formats = tuple(given.formats)
    path = config_flags.get_config_filename(given["config"])
    compression = config.load(given.config, path, given.workdir, not given.unsafe, common.verbose())
    compression.export()
    compression.report()
    compression.tell_result()


def _export_file(given: flags.FlagValues) -> None:
    from ml_collections import config_flags

    from amc_tf import story
    from amc_tf.errors import AmcError
    from amc_tf.export import standalone
    from amc_tf.export.settings import ExportSettings
    from amc_tf.pipeline import config
    from amc_tf.report import export_table
    from amc_tf.runs.model_files import load_model
    from amc_tf.runs.result import ExportResult

    if given.out is None:
        raise AmcError("give --out, the folder for the files of --model")
    if (given.config is None) == (given.representative is None):
        raise AmcError("--model needs either --config or --representative, for data to check on")
    common.import_files()
    model = load_model(given.model, safe_mode=not given.unsafe)
    if given.config is None:
        settings, task = (
            ExportSettings(),
            standalone.representative_task(model, given.representative),
        )
    else:
        path = config_flags.get_config_filename(given["config"])
        settings = config.section(ExportSettings, given.config.export)
        task = config.load_module(path).get_task(given.config)
        task.check(model)
    if given.formats:
        settings = dataclasses.replace(settings, formats=tuple(given.formats))
    with story.told(common.verbose()):
        result = standalone.export_model(model, task, given.out, settings)
    print(export_table.table(ExportResult.from_json(result), settings.tolerance))


def entry() -> None:
    """Runs the command `amc-export`."""
    _define_flags()
    common.run(_main, __doc__, experiment=True)


if __name__ == "__main__":
    entry()
