"""Searches for the pruning plan of an experiment: `plan.json`, `pruned.keras`.

amc-search --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf.cli import common


def entry() -> None:
    """Runs the command `amc-search`."""
    common.run_stage("search", __doc__)


if __name__ == "__main__":
    entry()
