"""`python -m amc_tf.run_report`, kept for older scripts: `amc_tf.cli.report`."""

from amc_tf.cli.report import entry

if __name__ == "__main__":
    entry()
