"""Exports the fine-tuned model: checked and timed `model_*.tflite`.

amc-export --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf import run_stage


def entry() -> None:
    """The command `amc-export`."""
    run_stage.run_stage("export")


if __name__ == "__main__":
    entry()
