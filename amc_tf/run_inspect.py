"""Prints the groups, refusals, MACs and parameters of any .keras file.

amc-inspect model.keras
"""

from absl import app

from amc_tf import run_stage


def main(argv: list[str]) -> None:
    """Prints the channel graph of each file named."""
    from amc_tf import channels, workdir

    if len(argv) < 2:
        raise app.UsageError("name at least one .keras file: amc-inspect model.keras")
    for path in argv[1:]:
        print(channels.analyze(workdir.load_model(path)))


def entry() -> None:
    """The command `amc-inspect`."""
    run_stage.define_debug_flag()
    run_stage.run(main)


if __name__ == "__main__":
    entry()
