"""MobileNet-V1 0.75 at 192 x 192 on ImageNet at half its MACs (AMC, table 4).

    AMC_TF_DATA=DIR amc-search --config=configs/imagenet_mobilenet_v1.py --workdir=runs/mobilenet

DIR holds `mobilenet_v1_075_192.keras` (pixels in, 1001 classes, the background first) and the
folders `imagenet_val/calibration` and `imagenet_val/validation`, of images by class. They are not
the training set, so there is nothing to fine-tune on: this stops at the searched and refitted
network.

On 634 images the dense network has 78.4 %; 50 episodes find plans of 51.4 to 54.7 % before
fine-tuning (six seeds, two versions of the agent; uniform 43.4 to 45.3 %; `python
benchmarks/search.py --data=DIR --network=mobilenet_v1 --macs=0.5 --episodes=50 --seed=0 --rerank=5
--policies=amc,random,cmaes,uniform --workdir=DIR`). An episode takes two seconds on two cores
(`python benchmarks/episode.py --data=DIR --network=mobilenet_v1 --refit=quick_in_order`).
"""

import os
import pathlib

import imagenet_folder


def get_config():
    config = imagenet_folder.get_config()
    config.train = "imagenet_val/calibration"
    config.validation = "imagenet_val/validation"
    config.first_label = 1
    return config


def get_model(config):
    config.model = str(_folder(config) / "mobilenet_v1_075_192.keras")
    return imagenet_folder.get_model(config)


def get_task(config):
    return imagenet_folder.get_task(config)


def _folder(config):
    return pathlib.Path(config.data or os.environ.get("AMC_TF_DATA", "")).expanduser()
