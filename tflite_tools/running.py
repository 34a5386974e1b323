"""The first run of a file: what LiteRT refuses is found here, and not in an app."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tflite_tools.inspection import inspect_file

# The kernels of an app that sets nothing, and those of one without XNNPACK (a microcontroller, an
# app with `setUseXNNPACK(false)`).
KERNELS: Mapping[str, OpResolverType] = {
    "default kernels (XNNPACK)": OpResolverType.BUILTIN,
    "built-in kernels": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


def require_runs(content: bytes) -> bytes:
    """Loads a file and runs it once on zeros, by each kind of kernel.

    A file with operators of TensorFlow's own (Flex), which this package cannot run, is not tried.

    Returns:
        `content`.

    Raises:
        ValueError: LiteRT refuses the file; the message says which kernels, and why.
    """
    if inspect_file(content).flex_operators:
        return content
    for name, kernels in KERNELS.items():
        try:
            interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
            interpreter.allocate_tensors()
            for detail in interpreter.get_input_details():
                interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"the file was made, but LiteRT's {name} refuse it: {reason}. Choose another "
                "format, or keep the layer float (keep_float)."
            ) from error
    return content
