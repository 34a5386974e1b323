"""Sets single weights to zero, in rounds of search and fine-tuning: `sparse/round1.keras`, ...

amc-sparsify --config=configs/mnist.py --workdir=runs/mnist

It starts from the fine-tuned model of the work directory, or from the dense one if there is none.
"""

from amc_tf.cli import common


def entry() -> None:
    """Runs the command `amc-sparsify`."""
    common.run_stage("sparsify", __doc__)


if __name__ == "__main__":
    entry()
