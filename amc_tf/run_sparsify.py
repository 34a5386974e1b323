"""`python -m amc_tf.run_sparsify`, kept for older scripts: `amc_tf.cli.sparsify`."""

from amc_tf.cli.sparsify import entry

if __name__ == "__main__":
    entry()
