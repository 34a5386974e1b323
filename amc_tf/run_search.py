"""`python -m amc_tf.run_search`, kept for older scripts: `amc_tf.cli.search`."""

from amc_tf.cli.search import entry

if __name__ == "__main__":
    entry()
