"""Any classification network on folders of images, one folder for each class.

    amc-compress --config=configs/imagenet_folder.py --workdir=runs/mine \
        --config.model=mine.keras --config.data=DIR --config.train=train \
        --config.validation=validation --config.first_label=0

The classes are the sorted names of the folders in DIR/train. `first_label` is the index of the
output of the first class (1 for networks whose output 0 is a background class). Images are resized
to the network's input. Pixels go in from 0 to 255, so the network itself must normalise them. The
reward is measured on DIR/validation, which is kept in memory; the refit's statistics come from
DIR/train.

On EfficientNet-Lite0, with 666 ImageNet images in DIR/train and 634 in DIR/validation (dense
81.1 %), 30 episodes find plans of half the MACs with 38.5 to 51.4 % before fine-tuning (three
seeds; uniform 33.6 to 36.6 %). An episode takes 12 seconds on one core, the last refit of a
finalist 50 (`python benchmarks/search.py --data=DIR --network=efficientnet_lite0 --macs=0.5
--episodes=30 --seed=0 --early_stop=2 --rerank=3 --policies=amc,random,cmaes,uniform
--workdir=DIR`).
"""

import os
import pathlib

import keras
import numpy as np

import amc_tf


def get_config():
    config = amc_tf.default_config()
    config.model = ""  # the .keras file
    config.data = ""  # folder of the splits, or the environment variable AMC_TF_DATA
    config.train = "train"
    config.validation = "validation"
    config.test = ""  # if empty, the validation split
    config.first_label = 0
    config.logits = False  # whether the network ends without softmax
    config.budget.macs = 0.5
    config.calibration_size = 1000
    config.epochs = 30
    config.rate = 1e-2
    config.batch_size = 64
    return config


def get_model(config):
    return amc_tf.load_model(config.model)


def get_task(config):
    size = get_model(config).input_shape[1:3]
    train = folder(config, config.train, size, shuffle=True)
    calibration = np.concatenate(
        [x for x, _ in train.unbatch().batch(64).take(-(-config.calibration_size // 64))]
    )[: config.calibration_size]
    steps = config.epochs * len(train)

    def compile(model):
        schedule = keras.optimizers.schedules.CosineDecay(config.rate, steps)
        model.compile(
            keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
            keras.losses.SparseCategoricalCrossentropy(from_logits=config.logits),
            metrics=["accuracy"],
        )

    def fit(model):
        mirrored = train.map(lambda x, y: (keras.layers.RandomFlip("horizontal")(x), y))
        model.fit(mirrored.prefetch(2), epochs=config.epochs, verbose=2)

    return amc_tf.Task(
        train=train,
        validation=arrays(config, config.validation, size),
        test=arrays(config, config.test, size) if config.test else None,
        compile=compile,
        fit=fit,
        calibration=calibration,
        batch_size=config.batch_size,
    )


def folder(config, split, size, shuffle=False):
    """Reads a split as batches of float32 images and int32 labels."""
    path = pathlib.Path(config.data or os.environ.get("AMC_TF_DATA", "")).expanduser() / split
    if not path.is_dir():
        raise amc_tf.AmcError(
            f"there is no folder {str(path)!r}; give the folder of the splits as --config.data=DIR "
            "or in the environment variable AMC_TF_DATA"
        )
    data = keras.utils.image_dataset_from_directory(
        path, image_size=size, batch_size=config.batch_size, shuffle=shuffle, seed=0, verbose=False
    )
    return data.map(lambda x, y: (x, y + config.first_label))


def arrays(config, split, size):
    """Reads a split into memory."""
    images, labels = zip(*folder(config, split, size).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)
