"""Searches, fine-tunes and exports: all stages that are not done yet.

amc-compress --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf import run_stage


def entry() -> None:
    """The command `amc-compress`."""
    run_stage.run_stage("run")


if __name__ == "__main__":
    entry()
