"""Which tensor of a converted file holds which value of the Keras network: found by content.

Names say nothing, as a converter fuses, folds and moves operations. So both networks are run on
the same images, dense and pruned. A tensor that agrees with a value each time is taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ai_edge_litert.interpreter import OpResolverType

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.refit.keras_runner import KerasRunner
from amc_tf.pruning.refit.runner import Images, Stop
from amc_tf.scoring.batch_norm_folding import NotCarriedError
from tflite_tools.interpreter import allocated

TOLERANCE = 1e-3  # relative to the largest number of the value


def recorded(
    graph: ChannelGraph, plan: PruningPlan, stops: Sequence[Stop], images: Images
) -> dict[int, np.ndarray]:
    """Returns the values that can be read at stops, by number, as Keras computes them."""
    found: dict[int, np.ndarray] = {}
    with ThreadPoolExecutor(1) as pool:
        run = KerasRunner(graph, [slice(0, len(images))]).start(plan, images, pool)
        for stop in stops:
            run.advance(stop, {})
            for number in stop.values:
                if number not in found:
                    found[number] = run.rows(number, lambda x, _: np.array(x))
    return found


def tensors(file: bytes, numbers: Sequence[int], images: Images) -> dict[int, np.ndarray]:
    """Returns tensors of a file by number, as plain LiteRT computes them for one batch."""
    interpreter = allocated(
        model_content=file,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    batch = images.part(slice(len(images)))
    for detail, array in zip(interpreter.get_input_details(), batch, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return {number: interpreter.get_tensor(number) for number in numbers}


def matched(
    values: Sequence[Mapping[int, np.ndarray]], held: Sequence[Mapping[int, np.ndarray]]
) -> dict[int, int]:
    """Finds the tensor of each value.

    Args:
        values: the values of several runs, by number.
        held: the tensors of the same runs, by number.

    Raises:
        NotCarriedError: no tensor agrees with one of the values in all runs.
    """
    found = {}
    for number in values[0]:
        errors = {
            tensor: max(difference(h[tensor], v[number]) for v, h in zip(values, held, strict=True))
            for tensor, first in held[0].items()
            if difference(first, values[0][number]) <= TOLERANCE
        }
        if not errors or min(errors.values()) > TOLERANCE:
            raise NotCarriedError(
                f"value {number} of the network, of shape {values[0][number].shape[1:]}, which the "
                "refit reads, is no tensor of the converted file"
            )
        found[number] = min(errors, key=lambda tensor: errors[tensor])
    return found


def difference(tensor: np.ndarray, value: np.ndarray) -> float:
    """Returns how far a tensor is from a value, relative to it; infinity if it is another."""
    if tensor.size != value.size or tensor.shape[:1] != value.shape[:1]:
        return np.inf
    # Sample by sample, as some are far larger than others.
    value = np.asarray(value, np.float32).reshape(len(value), -1)
    apart = np.abs(tensor.reshape(value.shape) - value).max(axis=1, initial=0)
    relative = (apart / np.maximum(np.abs(value).max(axis=1, initial=0), 1e-6)).max(initial=0)
    return float(relative) if np.isfinite(relative) else np.inf
