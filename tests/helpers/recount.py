"""Costs counted a second way: from the layers' own shapes, without the graph analysis."""

import keras
import numpy as np


def recount(model) -> tuple[int, int]:
    """Counts MACs and parameters of a model whose nested models are inlined or called once."""
    macs = 0
    seen = set()
    stack = [model]
    while stack:
        current = stack.pop()
        for layer in current.operations:
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, keras.Model):
                stack.append(layer)
                continue
            for node in layer._inbound_nodes:
                if not node.input_tensors:
                    continue
                into, out = node.input_tensors[0].shape, node.outputs[0].shape
                area = int(np.prod(out[1:-1]))
                kind = type(layer).__name__
                if kind.startswith("Separable"):
                    taps = int(np.prod(layer.kernel_size))
                    mid = into[-1] * layer.depth_multiplier
                    macs += area * (taps * mid + mid * out[-1])
                elif kind.startswith("Depthwise"):
                    macs += area * int(np.prod(layer.kernel_size)) * out[-1]
                elif kind.startswith("Conv") and kind.endswith("Transpose"):
                    positions = int(np.prod(into[1:-1]))
                    macs += positions * int(np.prod(layer.kernel_size)) * into[-1] * out[-1]
                elif kind.startswith("Conv") and hasattr(layer, "kernel_size"):
                    taps = int(np.prod(layer.kernel_size))
                    macs += area * taps * (into[-1] // layer.groups) * out[-1]
                elif kind == "Dense":
                    macs += area * into[-1] * out[-1]
                elif kind == "EinsumDense":
                    read = layer.equation.replace("...", "").split(",")[0]
                    letters = layer.equation.split(",")[1].split("->")[0]
                    more = len(into) - len(read)  # axes of an ellipsis, the batch among them
                    sizes = {letter: into[more + i] for i, letter in enumerate(read)}
                    alone = [size for letter, size in sizes.items() if letter not in letters]
                    positions = [*into[:more], *alone][1:]
                    macs += int(np.prod(positions)) * int(np.prod(layer.kernel.shape))
                elif kind == "MultiHeadAttention":  # self-attention
                    projections = [w.shape for w in layer.weights if w.name == "kernel"]
                    macs += into[1] * sum(int(np.prod(shape)) for shape in projections)
                    macs += 2 * into[1] ** 2 * int(np.prod(projections[0][1:]))
                elif kind == "DotProductAttention":
                    query, key, value = (x.shape for x in node.input_tensors[:3])
                    macs += query[1] * key[1] * query[2] * (query[3] + value[3])
                elif kind == "Matmul" and len(node.input_tensors) == 2:
                    macs += int(np.prod(out[1:])) * into[-1]
                elif kind == "Einsum":
                    terms = layer.subscripts.split("->")[0].split(",")
                    sizes = {}
                    for term, tensor in zip(terms, node.input_tensors, strict=True):
                        sizes.update(zip(term, tensor.shape, strict=True))
                    macs += int(np.prod([n for n in sizes.values() if n is not None]))
                elif kind == "Unlisted":  # a Dense
                    macs += area * int(np.prod(layer.kernel.shape))
                elif kind in ("LSTM", "GRU", "SimpleRNN", "Bidirectional"):
                    matrices = [w.shape for w in layer.weights if len(w.shape) == 2]
                    macs += into[1] * sum(int(np.prod(shape)) for shape in matrices)
    return macs, model.count_params()
