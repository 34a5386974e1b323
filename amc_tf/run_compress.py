"""`python -m amc_tf.run_compress`, kept for older scripts: `amc_tf.cli.compress`."""

from amc_tf.cli.compress import entry

if __name__ == "__main__":
    entry()
