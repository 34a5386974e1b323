#!/bin/bash
# Packages: ai-edge-litert 2.3.0, tensorflow 2.21.0
# Behaviour: The two interfaces of LiteRT disagree on a file that has no signatures, as converters from
#   concrete functions write them. CompiledModel lists a signature "<placeholder signature>" and runs
#   it; Interpreter lists none and refuses that very key. Of an int8 file CompiledModel's details give
#   name, type and shape of an input but no scale and zero point, without which its numbers mean
#   nothing; only Interpreter has them.
# Seen: 2026-11-28, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ai-edge-litert==2.3.0 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import numpy as np
import tensorflow as tf
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.interpreter import Interpreter

weights = tf.constant(np.eye(4, dtype="float32"))
call = tf.function(lambda x: x @ weights, input_signature=[tf.TensorSpec((1, 4), tf.float32, "x")])
converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
rng = np.random.default_rng(0)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: [[rng.random((1, 4), "float32")] for _ in range(8)]
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
content = converter.convert()
with open("model.tflite", "wb") as file:
    file.write(content)

key = "<placeholder signature>"
interpreter = Interpreter(model_content=content)
assert interpreter.get_signature_list() == {}
try:
    interpreter.get_signature_runner(key)
except ValueError as error:
    assert "signature_key" in str(error), error
else:
    raise AssertionError("Interpreter took the key")
compiled = CompiledModel.from_file("model.tflite")
assert list(compiled.get_signature_list()) == [key]
details = compiled.get_input_tensor_details(key)["x"]
assert details["dtype"] == "int8" and not any("quant" in name for name in details), details
scale, _ = interpreter.get_input_details()[0]["quantization"]
assert scale > 0
print("as described")
PY
