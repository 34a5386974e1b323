"""Fine-tunes the pruned model of a search to `finetuned.keras`.

amc-finetune --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf.cli import common


def entry() -> None:
    """Runs the command `amc-finetune`."""
    common.run_stage("finetune", __doc__)


if __name__ == "__main__":
    entry()
