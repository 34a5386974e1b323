"""Exports the fine-tuned model: checked and timed `model_*.tflite`.

amc-export --config=configs/mnist.py --workdir=runs/mnist
"""

from amc_tf import script


def main(argv: list[str]) -> None:
    """Runs the stage and prints the table of what is known by now."""
    from amc_tf import report

    del argv
    compression = script.compression_from_flags()
    compression.export()
    print(report.table(compression.workdir.read_json("result.json", {})))


def entry() -> None:
    """The command `amc-export`."""
    script.define_run_flags()
    script.run(main)


if __name__ == "__main__":
    entry()
