"""Transfer learning: a pretrained backbone within a Functional model, tf.data and callbacks.

    python examples/transfer_learning.py               # the usual script
    python examples/transfer_learning_compressed.py    # the same, compressed to half its MACs

A backbone that knows the digits 0 to 4 (`pretrained_backbone.py` trains it) learns 5 to 9: first
only a new head is trained, then the whole network. Both write new_digits.keras into the current
folder; the second keeps its run in transfer_run.
"""

import pretrained_backbone
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers


def pipeline(images, labels, training=False):
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images)) if training else data
    return data.batch(64).prefetch(tf.data.AUTOTUNE)


keras.utils.set_random_seed(0)  # the same script begins with the same weights

images, labels = pretrained_backbone.digits(range(5, 10))
train = pipeline(images[:1500], labels[:1500], training=True)
validation = pipeline(images[1500:2000], labels[1500:2000])
test = pipeline(images[2000:], labels[2000:])

backbone = pretrained_backbone.load("backbone.keras")
backbone.trainable = False

inputs = keras.Input((28, 28, 1))
x = layers.RandomTranslation(0.1, 0.1)(inputs)
x = layers.Rescaling(1 / 255)(x)
x = backbone(x)
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dropout(0.2)(x)
model = keras.Model(inputs, layers.Dense(5)(x))

loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
model.fit(train, validation_data=validation, epochs=2, verbose=2)

backbone.trainable = True
model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
callbacks = [
    keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True),
    keras.callbacks.ReduceLROnPlateau(patience=2),
    keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True),
]
model.fit(train, validation_data=validation, epochs=4, callbacks=callbacks, verbose=2)

loss, accuracy = model.evaluate(test, verbose=0)
print(f"test accuracy {accuracy:.1%}, {model.count_params():,} parameters")
model.save("new_digits.keras")
