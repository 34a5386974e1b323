"""`python -m amc_tf.run_report`, kept for older scripts: `amc_tf.cli.report`."""

import runpy

if __name__ == "__main__":
    # As the module itself, whose text and flags --help shows.
    runpy.run_module("amc_tf.cli.report", run_name="__main__", alter_sys=True)
else:
    from amc_tf.cli.report import entry as entry
