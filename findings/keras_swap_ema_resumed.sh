#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: SwapEMAWeights(swap_on_epoch=True) leaves the averaged weights in the model at the end
#   of an epoch, so that a checkpoint holds them, and takes them out when the next one begins. If
#   BackupAndRestore makes that checkpoint and the training is interrupted, the next call restores
#   it, but the new callback does not know that weights and averages are exchanged: training goes
#   on from the averaged weights, and the optimizer averages into what was the trained ones. The
#   result differs from that of a training that was not interrupted, without a word. Without
#   swap_on_epoch the interrupted training ends with the same weights, but for the last bits.
# Seen: 2026-11-29, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow "$folder/venv/bin/python" - "$folder" <<'PY'
import sys

import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(64, 8)).astype("float32")
y = x @ rng.normal(size=(8, 1)).astype("float32")


class Interrupts(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


def trained(swap_on_epoch, backup=None, interrupted=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "mse")
    callbacks = [keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)]
    if backup:
        callbacks.append(keras.callbacks.BackupAndRestore(backup, delete_checkpoint=False))
    if interrupted:
        callbacks.append(Interrupts())
    try:
        model.fit(x, y, epochs=6, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
    except KeyboardInterrupt:
        return None
    return np.concatenate([w.ravel() for w in model.get_weights()])


for swap_on_epoch in (True, False):
    folder = f"{sys.argv[1]}/{swap_on_epoch}"
    whole = trained(swap_on_epoch)
    assert trained(swap_on_epoch, folder, interrupted=True) is None
    resumed = trained(swap_on_epoch, folder)
    difference = np.abs(resumed - whole).max()
    print(swap_on_epoch, difference, np.abs(whole).max())
    assert (difference > 1e-3) == swap_on_epoch, difference
print("as described")
PY
