"""Searches the pruning plan of an experiment: `plan.json`, `pruned.keras`.

amc-search --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf import run_stage


def entry() -> None:
    """The command `amc-search`."""
    run_stage.run_stage("search")


if __name__ == "__main__":
    entry()
