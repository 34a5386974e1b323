#!/bin/bash
# Packages: ai-edge-litert 2.3.0, tensorflow 2.21.0
# Behaviour: tf.lite.experimental.QuantizationDebugger keeps operators float by denylisted_nodes. It
#   wants the whole name of the operator's output tensor, with the parts that the converter joins by
#   semicolons. Any other name, the layer's or the operation's own, is ignored without a word: the
#   file is the same as without it.
# Seen: 2026-11-30, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ai-edge-litert==2.3.0 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

keras = tf.keras
keras.utils.set_random_seed(0)
inputs = keras.Input((8, 8, 3))
first = keras.layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="second")(first))
samples = [np.random.rand(1, 8, 8, 3).astype("float32") for _ in range(8)]
call = tf.function(model, input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32, "x")])


def floats(names):
    """Names of the operators that run in float, when these names are denied."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[x] for x in samples]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=names)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=lambda: [[x] for x in samples], debug_options=options
    )
    content = debugger.get_nondebug_quantized_model()
    made = Interpreter(model_content=content)
    made.allocate_tensors()
    types = {d["index"]: d["dtype"] for d in made.get_tensor_details()}
    names = {d["index"]: d["name"] for d in made.get_tensor_details()}
    kernels = [o for o in made._get_ops_details() if o["op_name"] == "CONV_2D"]
    assert len(kernels) == 2
    return content, {
        names[o["outputs"][0]]: types[o["outputs"][0]] == np.float32 for o in kernels
    }


content, kinds = floats([])
assert not any(kinds.values()), kinds
whole = next(name for name in kinds if "first" in name)
assert ";" in whole, whole
assert floats([whole])[1][whole]
for part in ("first", *whole.split(";")):
    same, kinds = floats([part])
    assert not any(kinds.values()), (part, kinds)
print("as described")
PY
