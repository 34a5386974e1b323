"""Searches, fine-tunes and exports: runs all stages that are not done yet.

amc-compress --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf.cli import common


def entry() -> None:
    """Runs the command `amc-compress`."""
    common.run_stage("run", __doc__)


if __name__ == "__main__":
    entry()
