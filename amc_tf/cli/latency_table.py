"""Measures the latency of a network's operators on a device, for budgets of latency.

amc-latency-table --config=configs/mnist.py --device=host
amc-latency-table --config=configs/mnist.py --device=android:SERIAL --benchmark_binary=FILE

A search itself measures what is missing. This command measures it beforehand, for any number of
networks; operators that an earlier network has measured are not measured again. After an
interruption, the same command continues.
"""

import dataclasses

from absl import app, flags

from amc_tf.cli import common

# Flags with the names of the settings: the function that defines each, and its meaning.
_FLAGS = {
    "device": (flags.DEFINE_string, "host, android or android:SERIAL."),
    "table": (flags.DEFINE_string, "File of the table, shared by networks and devices."),
    "num_threads": (flags.DEFINE_integer, "Threads on the CPU."),
    "benchmark_binary": (
        flags.DEFINE_string,
        "A benchmark_model for the device. Prebuilt: "
        "https://ai.google.dev/edge/litert/next/benchmark (android_arm64).",
    ),
    "delegate": (flags.DEFINE_string, "Delegate of the phone: cpu, gpu or nnapi."),
    "taskset": (flags.DEFINE_string, "Mask of the phone's cores, in hexadecimal: f0."),
    "adb": (flags.DEFINE_string, "The adb executable."),
    "rounds": (flags.DEFINE_integer, "Series of each model, taken in turn."),
    "calibration_plans": (flags.DEFINE_integer, "Whole pruned networks that are measured."),
}


def main(argv: list[str]) -> None:
    """Builds the table of the configuration's network and prints a summary."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; options begin with --")
    common.load_tensorflow()
    from ml_collections import config_flags

    from amc_tf.latency.cost import describe, latency_cost
    from amc_tf.latency.settings import LatencySettings, open_table
    from amc_tf.pipeline import config as experiment
    from amc_tf.search.env.channels import allowed_counts
    from amc_tf.search.open_choices import min_preserves, roundings
    from amc_tf.search.settings import SearchSettings

    config = flags.FLAGS.config
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    search = experiment.section(SearchSettings, config.search)
    given = {name: flags.FLAGS[name].value for name in _FLAGS}
    settings = dataclasses.replace(
        experiment.section(LatencySettings, config.latency),
        **{name: value for name, value in given.items() if value is not None},
    )
    graph = search.constraints.analyze(
        experiment.load_module(path).get_model(config),
        search.input_shape,
        search.allow_approximate,
    )
    choices = allowed_counts(
        graph,
        roundings(graph, search),
        min_preserves(graph, search),
    )
    table = open_table(settings)
    cost = latency_cost(graph, table, choices, calibration_plans=settings.calibration_plans)
    print(describe(cost, [int(allowed[-1]) for allowed in choices]))
    print(f"{table.measured} measured now, {table.found} were in {settings.table}")


def entry() -> None:
    """Runs the command `amc-latency-table`."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config", None, "Experiment file; values as --config.search.rounding=16.", lock_config=True
    )
    flags.mark_flag_as_required("config")
    for name, (define, meaning) in _FLAGS.items():
        define(name, None, meaning)
    common.define_debug_flag()
    common.run(main, __doc__, experiment=True)


if __name__ == "__main__":
    entry()
