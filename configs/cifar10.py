"""CIFAR-10 for the configurations in this folder: data, augmentation, training recipe.

`cifar10.npz` in the folder `config.data`, or else AMC_TF_DATA, holds `x_train`, `y_train`,
`x_test`, `y_test`: 50,000 and 10,000 images as uint8 (n, 32, 32, 3), labels 0 to 9.
"""

import contextlib
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

import amc_tf
import tflite_tools


def default_config():
    """Returns the settings that the networks of the paper's table 3 share."""
    config = amc_tf.default_config()
    config.data = ""  # or the environment variable AMC_TF_DATA
    config.budget.macs = 0.5
    config.search.episodes = 150
    config.search.rounding = 1
    config.search.min_preserve = 0.2
    config.calibration_size = 2000
    config.epochs = 40
    config.rate = 0.02
    config.precision = "float32"  # or mixed_bfloat16, see fit
    config.backup = ""  # folder of checkpoints, from which an interrupted training resumes
    return config


def backup(config, model):
    """Returns the folder of the checkpoints of a model's training, None if there is none."""
    folder = f"{model.name}_{model.count_params()}"
    return pathlib.Path(config.backup, folder) if config.backup else None


def folder(config):
    """Returns the folder of the data."""
    path = pathlib.Path(config.data or os.environ.get("AMC_TF_DATA", "")).expanduser()
    if not (path / "cifar10.npz").exists():
        raise amc_tf.AmcError(
            f"there is no cifar10.npz in {str(path)!r}; give its folder as --config.data=DIR or in "
            "the environment variable AMC_TF_DATA"
        )
    return path


def load(config):
    """Loads (train, validation, test); validation is 500 images of each class, split off train."""
    with np.load(folder(config) / "cifar10.npz") as arrays:
        x, y = arrays["x_train"], arrays["y_train"].reshape(-1).astype("int32")
        test = arrays["x_test"].astype("float32"), arrays["y_test"].reshape(-1).astype("int32")
    rng = np.random.default_rng(0)
    held_out = np.sort(
        np.concatenate([rng.permutation(np.flatnonzero(y == c))[:500] for c in range(10)])
    )
    kept = np.setdiff1d(np.arange(len(x)), held_out)
    return (x[kept], y[kept]), (x[held_out].astype("float32"), y[held_out]), test


def spread(images, count):
    """Returns `count` of the images, evenly spaced, as float32."""
    return images[np.linspace(0, len(images) - 1, count).astype(int)].astype("float32")


def augmented(x, y, batch_size, seed=0):
    """Makes training batches, padded by 4 and cropped and mirrored at random in every epoch."""

    def augment(images, labels):
        count = tf.shape(images)[0]
        padded = tf.pad(tf.cast(images, tf.float32), [[0, 0], [4, 4], [4, 4], [0, 0]])
        rows, columns = (
            tf.random.uniform([count, 1], 0, 9, tf.int32) + tf.range(32) for _ in range(2)
        )
        images = tf.gather(tf.gather(padded, rows, batch_dims=1), columns, axis=2, batch_dims=1)
        mirror = tf.random.uniform([count, 1, 1, 1]) < 0.5
        return tf.where(mirror, images[:, :, ::-1], images), labels

    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    return data.batch(batch_size, drop_remainder=True).map(augment, 2)


def compile(model):
    """Compiles a model for scoring: logits against integer labels."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)
    model.compile(optimizer, loss, metrics=["accuracy"])


def fit(
    model,
    train,
    epochs,
    rate,
    teacher=None,
    batch_size=128,
    backup=None,
    batches=None,
    jit_compile="auto",
    precision="float32",
):
    """Trains by SGD with a cosine schedule; with a teacher, half of the loss follows its logits.

    Args:
        model: model that is trained in place.
        train: uint8 images and labels.
        epochs: number of passes over them.
        rate: first learning rate.
        teacher: a network of the same inputs and classes whose softened
            outputs are matched as well (Hinton et al., 2015; temperature 3).
        batch_size: number of images of a step.
        backup: folder for a checkpoint after each epoch, from which an
            interrupted call resumes; None for no checkpoints.
        batches: number of batches of a short epoch; None for all images.
        jit_compile: as in `keras.Model.compile`.
        precision: dtype policy to train in. On a CPU with bfloat16 instructions
            (lscpu shows avx512_bf16 or amx_bf16), "mixed_bfloat16" is faster.
    """
    steps = epochs * (batches or len(train[0]) // batch_size)
    warmup = min(steps // 10, 500)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 10, steps - warmup, warmup_target=rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=5e-4)
    data = augmented(*train, batch_size)
    loss, metric = keras.losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"
    if teacher is not None:
        data, loss, metric = data.map(_taught(teacher, train[0])), _distillation, _accuracy
    # A second model of the same layers, so that `model` stays compiled as the user left it.
    trained = keras.Model(model.inputs, model.outputs[0])
    trained.compile(optimizer, loss, metrics=[metric], jit_compile=jit_compile)
    callbacks = []
    if backup is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(str(backup)))
    data = data.prefetch(4) if batches is None else data.repeat().prefetch(4)
    with _computed_in(trained, precision):
        trained.fit(data, epochs=epochs, steps_per_epoch=batches, verbose=2, callbacks=callbacks)


@contextlib.contextmanager
def _computed_in(model, policy):
    """Makes all layers except those of the logits compute in a policy; weights do not change."""
    before = {x: x.dtype_policy for x in model.layers if x.name not in model.output_names}
    for layer in before:
        layer.dtype_policy = policy
    try:
        yield
    finally:
        for layer, old in before.items():
            layer.dtype_policy = old


def _taught(teacher, images):
    """Makes a function from (images, labels) to (images, labels with the teacher's logits).

    The teacher runs as an int8 file while the batches are made. This is several times faster than
    as a part of the trained model.
    """
    samples = spread(images, 200)[:, None]
    file = tflite_tools.LiteRtModel(tflite_tools.convert(teacher, "int8_float_io", samples))

    def teach(x, labels):
        logits = tf.numpy_function(file.predict, [x], tf.float32)
        logits.set_shape([None, teacher.output_shape[-1]])
        return x, tf.concat([tf.cast(labels, tf.float32)[:, None], logits], axis=1)

    return teach


def _distillation(labels_and_logits, student, temperature=3.0):
    labels, teacher = labels_and_logits[:, 0], labels_and_logits[:, 1:]
    hard = keras.losses.sparse_categorical_crossentropy(labels, student, from_logits=True)
    soft = keras.losses.categorical_crossentropy(
        keras.ops.softmax(teacher / temperature), student / temperature, from_logits=True
    )
    return 0.5 * hard + 0.5 * temperature**2 * soft


def _accuracy(labels_and_logits, student):
    return keras.metrics.sparse_categorical_accuracy(labels_and_logits[:, 0], student)
