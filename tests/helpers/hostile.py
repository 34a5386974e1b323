"""Networks and calibration data from which a quantiser can make no good scale, or a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers as kl

from tflite_tools.interpreter import dequantise_tensor, quantise_tensor

SAMPLES = 24
_SIZE = 8
_DEAD = keras.initializers.Constant(-100.0)  # a ReLU behind it never opens


@dataclass(frozen=True, eq=False)
class Case:
    """A network with its calibration data.

    Attributes:
        model: a functional Keras model.
        inputs: an array of shape (N, ...) for each input, which calibrates and is measured.
    """

    model: keras.Model
    inputs: tuple[np.ndarray, ...]

    @property
    def samples(self) -> list[list[np.ndarray]]:
        """The inputs as `tflite_tools.convert` takes them."""
        return [[a[i : i + 1] for a in self.inputs] for i in range(len(self.inputs[0]))]

    @property
    def outputs(self) -> list[np.ndarray]:
        """What Keras gives for the inputs."""
        return keras.tree.flatten(self.model.predict(list(self.inputs), verbose=0))


def _images(rng: np.random.Generator, count: int = SAMPLES) -> np.ndarray:
    return rng.uniform(-1, 1, (count, _SIZE, _SIZE, 3)).astype(np.float32)


def _on_images(body: Callable, count: int = SAMPLES) -> Callable[[np.random.Generator], Case]:
    """Makes a case of a function from an image tensor to a feature map or vector."""

    def case(rng: np.random.Generator) -> Case:
        inputs = keras.Input((_SIZE, _SIZE, 3), name="image")
        first = kl.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
        features = [body(first), first]  # with a way past it, so that something is left
        vectors = [kl.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x for x in features]
        model = keras.Model(inputs, kl.Dense(4, name="scores")(kl.Concatenate()(vectors)))
        return Case(model, (_images(rng, count),))

    return case


def _dead_convolution(x):
    dead = kl.Conv2D(8, 3, activation="relu", bias_initializer=_DEAD, name="dead")(x)
    return kl.Conv2D(8, 3, name="after")(dead)


def _dead_depthwise(x):
    dead = kl.DepthwiseConv2D(3, activation="relu", bias_initializer=_DEAD, name="dead")(x)
    return kl.Concatenate()([kl.Conv2D(8, 1, name="after")(dead), kl.Conv2D(4, 3, name="live")(x)])


def _dead_dense(x):
    flat = kl.Flatten()(x)
    dead = kl.Dense(8, activation="relu", bias_initializer=_DEAD, name="dead")(flat)
    return kl.Concatenate()([kl.Dense(4, name="after")(dead), kl.Dense(4, name="live")(flat)])


def _dead_branch(x):
    dead = kl.Conv2D(8, 3, padding="same", activation="relu", bias_initializer=_DEAD, name="dead")(
        x
    )
    return kl.Add()([x, kl.Conv2D(8, 3, padding="same", use_bias=False, name="after")(dead)])


def _dead_gate(x):
    squeezed = kl.GlobalAveragePooling2D(keepdims=True)(x)
    gate = kl.Conv2D(8, 1, activation="relu", bias_initializer=_DEAD, name="gate")(squeezed)
    return kl.Conv2D(4, 1, name="after")(kl.Multiply()([x, gate]))


def _dead_pooled(x):
    dead = kl.Conv2D(8, 3, activation="relu", bias_initializer=_DEAD, name="dead")(x)
    pooled = kl.MaxPooling2D(2)(dead)
    return kl.Conv2D(8, 1, name="after")(kl.ZeroPadding2D(1)(pooled))


def _closed_product(x):
    """A product of which one factor is always 0 where the other is not."""
    opposite = kl.ReLU(name="opposite")(kl.Rescaling(-1.0)(kl.Conv2D(8, 1, name="signed")(x)))
    same = kl.ReLU(name="same")(kl.Conv2D(8, 1, name="signed_too")(x))
    product = kl.Multiply(name="product")([opposite, kl.Rescaling(1e-4)(same)])
    return kl.Conv2D(4, 3, name="after")(product)


class _Scaled(keras.initializers.Initializer):
    """Filters of wildly different size: the channels' factors, repeated."""

    def __init__(self, factors):
        self.factors = list(factors)

    def __call__(self, shape, dtype=None):
        made = keras.initializers.GlorotUniform(seed=3)(shape, dtype)
        factors = np.resize(np.asarray(self.factors, np.float32), shape[-1])
        return made * keras.ops.cast(factors, made.dtype)

    def get_config(self):
        return {"factors": self.factors}


def _zero_filters(x):
    bias = keras.initializers.Constant(2.0)
    filters = _Scaled((0.0, 1e-30, 1e-12, 1.0))
    thin = kl.Conv2D(8, 3, kernel_initializer=filters, bias_initializer=bias, name="thin")(x)
    return kl.Conv2D(4, 1, name="after")(thin)


def _huge_biases(x):
    bias = keras.initializers.RandomUniform(-3000.0, 3000.0, seed=5)
    return kl.Conv2D(8, 3, bias_initializer=bias, name="shifted")(x)


def _outlier_channels(x):
    wide = kl.Conv2D(8, 3, kernel_initializer=_Scaled((1.0, 1e-3, 100.0, 1.0)), name="wide")(x)
    return kl.Conv2D(4, 1, name="after")(kl.ReLU()(wide))


def _saturated_sigmoids(x):
    steep = kl.Conv2D(8, 3, kernel_initializer=_Scaled((50.0,)), name="steep")(x)
    gate = kl.Activation("sigmoid")(steep)
    return kl.Multiply()([gate, kl.Conv2D(8, 3, activation="tanh", name="bent")(x)])


def _mixed_signs(x):
    low = kl.ReLU(negative_slope=0.2)(kl.Rescaling(-1.0, -0.5)(x))  # nothing above 0
    return kl.Subtract()([kl.Conv2D(8, 1, name="low")(low), kl.LeakyReLU(0.01)(x)])


def _constant_input(rng: np.random.Generator) -> Case:
    image = keras.Input((_SIZE, _SIZE, 3), name="image")
    setting = keras.Input((4,), name="setting")
    features = kl.GlobalAveragePooling2D()(kl.Conv2D(8, 3, activation="relu")(image))
    model = keras.Model([image, setting], kl.Dense(4)(kl.Concatenate()([features, setting])))
    return Case(model, (_images(rng), np.full((SAMPLES, 4), 0.5, np.float32)))


def _quiet_rows(rng: np.random.Generator) -> Case:
    """Rows of very different size, whose directions are all that the scores depend on."""
    inputs = keras.Input((16, 12), name="tokens")
    mixed = kl.Dense(24, name="mixed")(inputs)
    rows = kl.LayerNormalization(name="norm")(mixed)
    model = keras.Model(inputs, kl.Dense(4, name="scores")(rows))
    sizes = np.geomspace(0.03, 3.0, 16).reshape(1, 16, 1)
    return Case(model, ((rng.normal(size=(SAMPLES, 16, 12)) * sizes).astype(np.float32),))


def _transformer(rng: np.random.Generator) -> Case:
    """Two blocks of attention, whose stream holds tokens of very different size."""
    inputs = keras.Input((16, 12), name="tokens")
    stream = kl.Dense(24, use_bias=False, name="embedded")(inputs)
    for number in range(2):
        rows = kl.LayerNormalization(name=f"norm_{number}")(stream)
        attended = kl.MultiHeadAttention(2, 12, name=f"attention_{number}")(rows, rows)
        stream = kl.Add(name=f"attended_{number}")([stream, kl.Rescaling(0.05)(attended)])
        rows = kl.LayerNormalization(name=f"norm_{number}_again")(stream)
        wide = kl.Dense(48, activation="gelu", name=f"wide_{number}")(rows)
        stream = kl.Add(name=f"fed_{number}")([stream, kl.Dense(24, name=f"back_{number}")(wide)])
    pooled = kl.GlobalAveragePooling1D()(kl.LayerNormalization(name="last")(stream))
    model = keras.Model(inputs, kl.Dense(4, name="scores")(pooled))
    sizes = np.geomspace(0.03, 3.0, 16).reshape(1, 16, 1)
    return Case(model, ((rng.normal(size=(SAMPLES, 16, 12)) * sizes).astype(np.float32),))


CASES: Mapping[str, Callable[[np.random.Generator], Case]] = {
    "dead convolution": _on_images(_dead_convolution),
    "dead depthwise": _on_images(_dead_depthwise),
    "dead dense": _on_images(_dead_dense),
    "dead branch": _on_images(_dead_branch),
    "dead gate": _on_images(_dead_gate),
    "dead, pooled and padded": _on_images(_dead_pooled),
    "closed product": _on_images(_closed_product),
    "zero filters": _on_images(_zero_filters),
    "huge biases": _on_images(_huge_biases),
    "outlier channels": _on_images(_outlier_channels),
    "saturated sigmoids": _on_images(_saturated_sigmoids),
    "mixed signs": _on_images(_mixed_signs),
    "one sample": _on_images(lambda x: kl.Conv2D(8, 3, activation="relu")(x), count=1),
    "constant input": _constant_input,
    "quiet rows": _quiet_rows,
    "transformer": _transformer,
}


def run(
    content: bytes, samples: Sequence[Sequence[np.ndarray]], kernels: OpResolverType
) -> tuple[np.ndarray, float]:
    """Returns a file's first output for all samples, as floats, and its scale (0.0 for a float)."""
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    output = interpreter.get_output_details()[0]
    found = []
    for sample in samples:
        for detail, array in zip(interpreter.get_input_details(), sample, strict=True):
            interpreter.set_tensor(detail["index"], quantise_tensor(array, detail))
        interpreter.invoke()
        found.append(dequantise_tensor(interpreter.get_tensor(output["index"]), output))
    return np.concatenate(found), float(output["quantization"][0])


def build(name: str) -> Case:
    """Makes a case, always the same."""
    keras.utils.set_random_seed(11)
    return CASES[name](np.random.default_rng(11))
