#!/bin/bash
# Packages: ai-edge-litert 2.3.0, tensorflow 2.21.0
# Behaviour: LiteRT's CompiledModel and Interpreter list the inputs of the same signature in different
#   orders: CompiledModel as the file's signature lists them, Interpreter's signature runner by the
#   alphabet. Whoever fills the list of create_input_buffers in the order of the other feeds each input
#   with another's values, and TensorBuffer.write does not mind: it takes fewer values than the input
#   has, and leaves the rest as it was, and it takes numbers of another type.
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
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.interpreter import Interpreter


class Network(tf.Module):
    @tf.function(
        input_signature=[
            tf.TensorSpec((1, 6), tf.float32, "zoom"),
            tf.TensorSpec((1, 2), tf.float32, "angle"),
        ]
    )
    def __call__(self, zoom, angle):
        return {"made": tf.concat([zoom, 10.0 * angle], -1)}


network = Network()
tf.saved_model.save(network, "saved", {"serving_default": network.__call__})
content = tf.lite.TFLiteConverter.from_saved_model("saved").convert()
with open("model.tflite", "wb") as file:
    file.write(content)

key = "serving_default"
runner = Interpreter(model_content=content).get_signature_runner(key)
of_interpreter = list(runner.get_input_details())
compiled = CompiledModel.from_file("model.tflite")
of_compiled = list(compiled.get_signature_list()[key]["inputs"])
print(of_interpreter, of_compiled)
assert sorted(of_interpreter) == sorted(of_compiled) == ["angle", "zoom"]
sizes = [tuple(b.get_tensor_details()["shape"]) for b in compiled.create_input_buffers(0)]
print(sizes)

buffer = compiled.create_input_buffer_by_name(key, "zoom")
buffer.write(np.full((1, 6), 5.0, np.float32))
buffer.write(np.ones((1, 2), np.float32))  # fewer values than the input has
assert list(buffer.read(6, np.float32)) == [1, 1, 5, 5, 5, 5]
buffer.write(np.arange(6, dtype=np.int32))  # another type
print(buffer.read(6, np.float32))
assert not np.array_equal(buffer.read(6, np.float32), np.arange(6, dtype=np.float32))
print("as described")
PY
