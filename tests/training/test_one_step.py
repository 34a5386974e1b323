"""One step of training code, whatever form the code has."""

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf

from amc_tf.training.one_step import one_step, optimizers_as_before

X, Y = blobs.data(96, 0)


class _Counted(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1


def _by_fit(model, seen):
    model.fit(X, Y, batch_size=8, epochs=7, validation_split=0.5, callbacks=[seen], verbose=0)


def _by_dataset(model, seen):
    model.fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat(), steps_per_epoch=9)


def _by_batch(model, seen):
    while True:
        model.train_on_batch(X[:8], Y[:8])


def _by_larger_model(model, seen):
    class Distilled(keras.Model):
        def __init__(self):
            super().__init__()
            self.student = model

        def call(self, x, training=False):
            return self.student(x, training=training)

    larger = Distilled()
    blobs.compile_model(larger)
    larger.fit(X, Y, epochs=1000, verbose=0)


def _by_own_loop(model, seen):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1)
    while True:
        with tf.GradientTape() as tape:
            value = loss(Y[:8], model(X[:8], training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        try:
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        except Exception:  # such code may catch everything
            continue


@pytest.mark.parametrize(
    ("train", "changes"),
    [
        (_by_fit, True),
        (_by_dataset, True),
        (_by_batch, True),
        (_by_larger_model, True),
        (_by_own_loop, False),
    ],
)
def test_training_code_ends_after_its_first_step(train, changes):
    model = blobs.model()
    blobs.compile_model(model)
    before = [w.numpy() for w in model.trainable_weights]
    seen = _Counted()
    assert one_step(model, lambda m: train(m, seen))
    assert seen.batches == 0  # callbacks belong to the real training
    changed = any(
        not np.array_equal(a, w.numpy())
        for a, w in zip(before, model.trainable_weights, strict=True)
    )
    assert changed == changes
    if changes and train is not _by_larger_model:
        assert int(model.optimizer.iterations) == 1


def test_keras_is_as_before_afterwards():
    before = keras.Model.fit, keras.Model.train_on_batch, keras.optimizers.Optimizer.apply
    own = "fit" in vars(keras.Model)

    def fails(model):
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        one_step(blobs.model(), fails)
    assert not one_step(blobs.model(), lambda model: None)
    after = keras.Model.fit, keras.Model.train_on_batch, keras.optimizers.Optimizer.apply
    assert after == before and ("fit" in vars(keras.Model)) == own


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: keras.optimizers.Adam(1e-2, use_ema=True, gradient_accumulation_steps=2),
        lambda: keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2)),
    ],
)
def test_an_optimizer_made_once_can_serve_another_model_afterwards(make):
    def trained(optimizer):
        keras.utils.set_random_seed(3)
        model = blobs.model()
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(X, Y, epochs=2, verbose=0)
        return model.get_weights()

    used = make()
    with optimizers_as_before():
        one_step(blobs.model(), lambda _: trained(used))
    assert not used.built and int(used.iterations) == 0
    fresh = make()
    for a, b in zip(trained(used), trained(fresh), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [v.shape for v in used.variables] == [v.shape for v in fresh.variables]
