"""The accuracy that int8 costs, image by image, on more images than those of the test.

    python benchmarks/int8_drop.py --data=DIR --network=mobilenet_v1 --workdir=DIR

Scores the float32 and int8 files, dense and pruned, that `benchmarks/export.py` left in `--workdir`
(that script has the other flags), with LiteRT. A point of accuracy on 634 images is six images,
fewer than chance changes. So the ImageNet networks are run on both halves of the images, 1,300 in
all. The second half, without labels, gave the int8 files their ranges and the pruned network its
refit. float32 and int8 are compared on the same images, so this favours both alike.
"""

from __future__ import annotations

import json
import pathlib

import export
import numpy as np
from absl import app
from common import record
from common.intervals import difference

import tflite_tools


def parts(case: export.Case) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns images and labels, by their names in the result."""
    found = {"test": case.task.test_data}
    if export.NETWORK.value in ("mobilenet_v1", "efficientnet_lite0"):
        found["calibration"] = case.task.train
    return found


def main(argv):
    del argv
    workdir = pathlib.Path(export.WORKDIR.value)
    images = parts(export.NETWORKS[export.NETWORK.value]())
    rows = {}
    for label in ("dense", "pruned"):
        right = {}
        for name in ("float32", "int8"):
            file = tflite_tools.LiteRtModel((workdir / f"{label}_{name}.tflite").read_bytes())
            right[name] = [
                np.argmax(file.predict(x), -1) == y.reshape(-1) for x, y in images.values()
            ]
        whole = {name: np.concatenate(each) for name, each in right.items()}
        rows[label] = {
            "float32": float(whole["float32"].mean()),
            "int8": float(whole["int8"].mean()),
            "int8_better_by": difference(whole["int8"], whole["float32"]),
            "each": {
                part: difference(right["int8"][i], right["float32"][i])
                for i, part in enumerate(images)
            },
        }
        print(label, json.dumps(rows[label]), flush=True)
    record.append(
        "int8_drop",
        {
            "network": export.NETWORK.value,
            "plan": export.cited_plan(),
            "bias_samples": export.BIAS.value,
            "images": {part: len(y) for part, (_, y) in images.items()},
            "rows": rows,
        },
    )


if __name__ == "__main__":
    app.run(main)
