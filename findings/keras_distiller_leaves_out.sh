#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: keras.distillation.Distiller trains its student on another loss than `fit` of the
#   student itself would, without a word. With student_loss_weight=1, where nothing is distilled,
#   the penalties of kernel regularizers are left out of the loss, and sample weights and class
#   weights count for nothing: the loss of a step, and the weights after it, are those of unweighted
#   samples. And the teacher that is handed over stays frozen after the training: the caller's own
#   model, if it goes on with it, has no trainable weight left.
# Seen: 2026-11-30, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
cat > "$folder/distiller.py" <<'PY'
import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(0, 1, (32, 6)).astype("float32")
y = rng.integers(0, 3, 32)


def network(penalty=None):
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(3, kernel_regularizer=penalty)
    return keras.Sequential([keras.Input((6,)), layer])


def distiller(student, teacher, share):
    followed = keras.distillation.LogitsDistillation(temperature=2.0)
    made = keras.distillation.Distiller(teacher, student, followed, student_loss_weight=share)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.1), loss)
    return made


def alone(student):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.SGD(0.1), loss)
    return student


def step(model, student, **more):
    """The loss of a step, and the kernel after it."""
    loss = model.train_on_batch(x, y, return_dict=True, **more)["loss"]
    return float(loss), student.layers[0].get_weights()[0]


# The same network, trained alone and as the student of a distiller that distils nothing.
student = network()
plain_loss, plain_kernel = step(alone(student), student)
student = network()
loss, kernel = step(distiller(student, network(), 1.0), student)
assert np.isclose(loss, plain_loss) and np.allclose(kernel, plain_kernel)

# A penalty that is larger than the loss changes a step alone, and none of the distiller.
student = network(keras.regularizers.L2(1.0))
with_penalty, kernel = step(alone(student), student)
assert with_penalty > plain_loss + 0.5 and not np.allclose(kernel, plain_kernel, atol=1e-2)
student = network(keras.regularizers.L2(1.0))
loss, kernel = step(distiller(student, network(), 1.0), student)
assert np.isclose(loss, plain_loss) and np.allclose(kernel, plain_kernel)

# So do weights of samples and classes.
weights = np.where(y == 0, 5.0, 0.0).astype("float32")
for more in ({"sample_weight": weights}, {"class_weight": {0: 5.0, 1: 0.0, 2: 0.0}}):
    student = network()
    _, kernel = step(alone(student), student, **more)
    assert not np.allclose(kernel, plain_kernel, atol=1e-2)
    student = network()
    loss, kernel = step(distiller(student, network(), 1.0), student, **more)
    assert np.isclose(loss, plain_loss) and np.allclose(kernel, plain_kernel)

# The teacher stays frozen.
teacher = network()
assert len(teacher.trainable_weights) == 2
distiller(network(), teacher, 0.5).fit(x, y, verbose=0)
assert teacher.trainable_weights == []
print("as described")
PY
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/distiller.py"
