"""`python -m amc_tf.run_inspect`, kept for older scripts: `amc_tf.cli.inspect`."""

from amc_tf.cli.inspect import entry

if __name__ == "__main__":
    entry()
