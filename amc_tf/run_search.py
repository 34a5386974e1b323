"""`python -m amc_tf.run_search`, kept for older scripts: `amc_tf.cli.search`."""

import runpy

if __name__ == "__main__":
    # As the module itself, whose text and flags --help shows.
    runpy.run_module("amc_tf.cli.search", run_name="__main__", alter_sys=True)
else:
    from amc_tf.cli.search import entry as entry
