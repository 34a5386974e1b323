"""`python -m amc_tf.run_latency_table`, kept for older scripts: `amc_tf.cli.latency_table`."""

import runpy

if __name__ == "__main__":
    # As the module itself, whose text and flags --help shows.
    runpy.run_module("amc_tf.cli.latency_table", run_name="__main__", alter_sys=True)
else:
    from amc_tf.cli.latency_table import entry as entry
