"""Fine-tunes the pruned model of a search: `finetuned.keras`.

amc-finetune --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf import run_stage


def entry() -> None:
    """The command `amc-finetune`."""
    run_stage.run_stage("finetune")


if __name__ == "__main__":
    entry()
