"""`python -m amc_tf.run_finetune`, kept for older scripts: `amc_tf.cli.finetune`."""

from amc_tf.cli.finetune import entry

if __name__ == "__main__":
    entry()
