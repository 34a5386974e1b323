"""`python -m amc_tf.run_sparsify`, kept for older scripts: `amc_tf.cli.sparsify`."""

import runpy

if __name__ == "__main__":
    # As the module itself, whose text and flags --help shows.
    runpy.run_module("amc_tf.cli.sparsify", run_name="__main__", alter_sys=True)
else:
    from amc_tf.cli.sparsify import entry as entry
