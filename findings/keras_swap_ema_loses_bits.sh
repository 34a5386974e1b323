#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0, jax 0.10.2
# Behaviour: the callback SwapEMAWeights exchanges weights and their moving average by additions and
#   subtractions where the backend is TensorFlow. A weight that is small beside its average is not
#   what it was after two exchanges, as every evaluation makes them: 1e-9 beside an average of 1
#   becomes 0, and a third of the weights of an ordinary layer change in their last bits. So a
#   training that is evaluated after each epoch ends with other weights than one that is not. On
#   JAX the same callback goes through a copy, and every weight is the same bit for bit.
# Seen: 2026-11-29, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0 jax==0.10.2
cat > "$folder/swap.py" <<'PY'
import keras
import numpy as np

tensorflow = keras.backend.backend() == "tensorflow"


def swapped_twice(weights, averages):
    """The weights of a layer after an evaluation, with the callback alone."""
    layer = keras.layers.Dense(weights.shape[1], use_bias=False)
    model = keras.Sequential([keras.Input((len(weights),)), layer])
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.99)
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    layer.set_weights([weights])
    optimizer._model_variables_moving_average[0].assign(averages)
    x, y = np.ones((2, len(weights))), np.ones((2, weights.shape[1]))
    model.evaluate(x, y, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()])
    return layer.get_weights()[0], np.array(optimizer._model_variables_moving_average[0])


rng = np.random.default_rng(0)
weights = rng.normal(0, 0.05, (64, 64)).astype("float32")
averages = (weights + rng.normal(0, 0.01, (64, 64))).astype("float32")
weights[0, 0], averages[0, 0] = 1e-9, 1
after, average_after = swapped_twice(weights, averages)
if tensorflow:
    assert after[0, 0] == 0, after[0, 0]
    changed = np.mean(after != weights)
    assert 0.1 < changed < 0.9, changed
    np.testing.assert_allclose(after, weights, atol=1e-6)
else:
    assert np.array_equal(after, weights) and np.array_equal(average_after, averages)
print(keras.backend.backend(), "as described")
PY
for backend in tensorflow jax; do
  TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=$backend "$folder/venv/bin/python" "$folder/swap.py"
done
