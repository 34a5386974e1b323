"""`python -m amc_tf.run_export`, kept for older scripts: `amc_tf.cli.export`."""

from amc_tf.cli.export import entry

if __name__ == "__main__":
    entry()
