"""Writes the report of a run, or a comparison of several, as one HTML page.

amc-report runs/mnist
amc-report --out=half_or_third.html runs/half runs/third
"""

from absl import app, flags

from amc_tf.cli import common
from amc_tf.runs import layout


def main(argv: list[str]) -> None:
    """Writes the page of the given work directories."""
    from amc_tf.report import html

    if len(argv) < 2:
        raise app.UsageError("name at least one workdir: amc-report runs/mnist")
    print(html.write_report(argv[1:], flags.FLAGS.out))


def entry() -> None:
    """Runs the command `amc-report`."""
    usual = f"{layout.REPORT} in the workdir, {layout.COMPARISON} for several, if unset"
    flags.DEFINE_string("out", None, f"The file; {usual}.")
    common.define_debug_flag()
    common.run(main, __doc__)


if __name__ == "__main__":
    entry()
