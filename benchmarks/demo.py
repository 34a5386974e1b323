"""The README's demo over several seeds: AMC against uniform and random, before and after.

    python benchmarks/demo.py --seeds=0,1,2

runs configs/mnist.py in a fresh folder for each seed (which also seeds the
training of the dense network), about 4 minutes each.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import app, flags
from common import record

SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
ROOT = pathlib.Path(__file__).resolve().parent.parent


def main(argv):
    del argv
    runs = []
    for seed in map(int, SEEDS.value):
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "amc_tf.cli.compress",
                    "--config=configs/mnist.py",
                    f"--config.search.seed={seed}",
                    f"--config.finetune.seed={seed}",
                    f"--workdir={folder}",
                ],
                check=True,
                cwd=ROOT,
            )
            result = json.loads((pathlib.Path(folder) / "result.json").read_text())
        result.pop("products", None)  # the files of a folder that is gone
        result["wall_seconds"] = round(time.monotonic() - start, 1)
        runs.append(result)
    record.append("demo", {"runs": runs})


if __name__ == "__main__":
    app.run(main)
