"""Plain-20 on CIFAR-10 at half its MACs (AMC, table 3), trained from scratch first.

    AMC_TF_DATA=DIR amc-compress --config=configs/cifar10_plain20.py --workdir=runs/plain20

DIR holds `cifar10.npz`. Plain-20 is ResNet-20 without its shortcuts: nineteen 3 x 3 convolutions in
three stages of 16, 32 and 64 channels, each with batch norm and ReLU. The dense network is kept as
`dense.keras` in the workdir.

With half the epochs of training, `--config.dense_epochs=30 --config.epochs=15
--config.precision=mixed_bfloat16` (seed 0, 10,000 test images), the dense network had 86.9 %. At
half its MACs, before fine-tuning, the search found 81.5 %, uniform pruning 81.0 % and random search
78.5 %. After fine-tuning the pruned network had 85.4 %. As int8 it had 85.5 % in 171,616 bytes; the
dense network takes 1,088,160 as float32. That took 97 minutes of one core beside other work: 55 to
train, 16 to search (300 episodes, including those of random search), 25 to fine-tune and one to
export. With so little training the dense network is below the paper's 90.5 %, and the pruned one
too.
"""

import cifar10
import keras
from keras import layers

import amc_tf


def get_config():
    config = cifar10.default_config()
    config.train_dense = True
    config.dense_epochs = 60
    config.dense_rate = 0.1
    return config


def get_model(config):
    del config
    x = inputs = keras.Input((32, 32, 3), name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2)(x)
    for number in range(19):
        stage, first = max(number - 1, 0) // 6, number in (7, 13)
        conv = layers.Conv2D(
            16 * 2**stage,
            3,
            strides=2 if first else 1,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )
        x = layers.BatchNormalization(name=f"norm{number}")(conv(x))
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="plain20")


def get_task(config):
    train, validation, test = cifar10.load(config)

    def training(epochs, rate):
        def fit(model):
            backup = cifar10.backup(config, model)
            cifar10.fit(model, train, epochs, rate, backup=backup, precision=config.precision)

        return fit

    return amc_tf.Task(
        train=train,
        validation=validation,
        test=test,
        compile=cifar10.compile,
        fit=training(config.dense_epochs, config.dense_rate),
        fine_tune=training(config.epochs, config.rate),
        calibration=cifar10.spread(train[0], config.calibration_size),
        batch_size=250,
    )
