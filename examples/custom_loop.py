"""A custom training loop and a custom evaluation: balanced accuracy.

    python examples/custom_loop.py               # the usual script
    python examples/custom_loop_compressed.py    # the same, compressed to half its MACs

Both write loop.keras into the current folder; the second keeps its run in loop_run.
"""

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score

layers = tf.keras.layers
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
data = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(2000, 0, False).batch(32)
test_data, validation_data, train_data = data.take(12), data.skip(12).take(12), data.skip(24)


def build():
    inputs = tf.keras.Input((8, 8, 1))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(x + y)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    return tf.keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def train(model):
    optimizer = tf.keras.optimizers.Adam(2e-3)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    for epoch in range(6):
        losses = [step(x, y) for x, y in train_data]
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}")


def evaluate(model, data):
    answers = np.concatenate([np.argmax(model(x, training=False), -1) for x, _ in data])
    return balanced_accuracy_score(np.concatenate([y for _, y in data]), answers)


tf.keras.utils.set_random_seed(0)
model = build()
train(model)

print(f"balanced accuracy {evaluate(model, test_data):.1%}, {model.count_params():,} parameters")
model.save("loop.keras")
