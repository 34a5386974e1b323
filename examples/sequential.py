"""Handwritten digits: a Sequential model, compiled and fitted on arrays.

    python examples/sequential.py               # the usual script
    python examples/sequential_compressed.py    # the same, compressed to half its MACs

Both write digits.keras into the current folder; the second keeps its run in digits_run.
"""

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(0)  # the same script begins with the same weights

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.2, random_state=0)

model = keras.Sequential(
    [
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dropout(0.2),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

model.fit(x_train, y_train, batch_size=32, epochs=8, validation_split=0.2, verbose=2)

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"test accuracy {accuracy:.1%}, {model.count_params():,} parameters")
model.save("digits.keras")
