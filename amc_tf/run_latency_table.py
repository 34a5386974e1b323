"""`python -m amc_tf.run_latency_table`, kept for older scripts: `amc_tf.cli.latency_table`."""

from amc_tf.cli.latency_table import entry

if __name__ == "__main__":
    entry()
