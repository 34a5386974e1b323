"""The first run of a file: what LiteRT refuses is found here, and not in an app."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import OpResolverType

from tflite_tools import flatbuffer
from tflite_tools.inspection import inspect_file
from tflite_tools.intermediate import operation_path
from tflite_tools.interpreter import allocated

# The kernels of an app that sets nothing, and those of one without XNNPACK (a microcontroller, an
# app with `setUseXNNPACK(false)`).
KERNELS: Mapping[str, OpResolverType] = {
    "default kernels (XNNPACK)": OpResolverType.BUILTIN,
    "built-in kernels": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


_BIASES = {
    schema.TensorType.INT32: np.iinfo(np.int32),
    schema.TensorType.INT64: np.iinfo(np.int64),
}


def require_runs(content: bytes) -> bytes:
    """Checks a file's biases, loads it and runs it once on zeros, by each kind of kernel.

    A file with operators of TensorFlow's own (Flex), which this package cannot run, is not tried.

    Returns:
        `content`.

    Raises:
        ValueError: LiteRT refuses the file; the message says which kernels, at which layer and why.
            Or a bias did not fit into 32 bits; the message names it.
    """
    _refuse_clipped_biases(content)
    if inspect_file(content).flex_operators:
        return content
    for name, kernels in KERNELS.items():
        refusal = _refusal(content, kernels)
        if refusal is not None:
            reason = str(refusal).strip().splitlines()[0]
            raise ValueError(
                f"the file was made, but LiteRT's {name} refuse it at "
                f"{_first_refused(content, kernels)!r}: {reason}. Choose another format, or keep "
                "the layer float (keep_float)."
            ) from refusal
    return content


def _refusal(content: bytes, kernels: OpResolverType) -> Exception | None:
    """Runs a file once on zeros and returns what LiteRT raises, if it does."""
    try:
        interpreter = allocated(model_content=content, experimental_op_resolver_type=kernels)
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    except (RuntimeError, ValueError) as error:
        return error
    return None


def _first_refused(content: bytes, kernels: OpResolverType) -> str:
    """Finds the first operator with which a refused file is refused, by its output's name.

    LiteRT names the operator only now and then. The file is cut behind one operator after another.
    """

    def refused(count: int) -> bool:
        return _refusal(_beginning(content, count), kernels) is not None

    graph = flatbuffer.read(content).subgraphs[0]
    # Whole, it is refused; so the last operator need not be tried.
    index = bisect.bisect_left(range(1, len(graph.operators)), True, key=refused)
    output = graph.tensors[int(graph.operators[index].outputs[0])]
    return operation_path(flatbuffer.text(output.name))


def _beginning(content: bytes, count: int) -> bytes:
    """Returns the file of the first operators of a file; what the last one makes is the output."""
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:count]
    graph.outputs = graph.operators[-1].outputs
    model.signatureDefs = None
    return flatbuffer.write(model)


def _refuse_clipped_biases(content: bytes) -> None:
    """Refuses a file whose quantiser clipped a bias, as that of a filter that is nearly zero."""
    model = flatbuffer.read(content)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            limits = _BIASES.get(tensor.type)
            data = model.buffers[tensor.buffer].data
            scaled = tensor.quantization is not None and tensor.quantization.scale is not None
            if limits is None or data is None or not scaled:
                continue
            values = np.frombuffer(bytes(data), limits.dtype)
            clipped = (values == limits.max) | (values == limits.min)
            if clipped.any():
                raise ValueError(
                    f"the file was made, but {int(clipped.sum())} of {values.size} biases of "
                    f"{flatbuffer.text(tensor.name).split(';')[0]!r} do not fit into "
                    f"{limits.bits} bits, as their filters are nearly zero; prune these, or "
                    "keep the layer float (keep_float)."
                )
