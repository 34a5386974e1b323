"""Running a network as one TensorFlow function, which takes a third of the time of its calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from amc_tf import story
from amc_tf.graph.network import Network

_LOG = logging.getLogger(__name__)


def traced(network: Network, run: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a TensorFlow function of something that runs a network.

    Args:
        network: the flat list of calls.
        run: function of one tensor (images, ...) for each model input, which calls the network's
            operations. What is not TensorFlow's in it is for `watched`.

    Returns:
        A function that does the same; `run` itself if TensorFlow cannot trace it.
    """

    def scoped(*inputs: tf.Tensor) -> Any:
        # Below another scope, names may begin with any character. A name that TensorFlow refuses
        # fails here, not inside Keras, whose stack of scopes would keep it.
        with tf.name_scope("network"):
            for operation in network.operations():
                with tf.name_scope(operation.name):
                    pass
            return run(*inputs)

    specs = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in network.model.inputs]
    try:
        return tf.function(scoped, specs, autograph=False).get_concrete_function()
    except Exception as error:
        story.remark(_LOG, "the network is run call by call, as it cannot be traced: %s", error)
        return run


def watched(output: Any, function: Callable[..., None], *tensors: Any) -> Any:
    """Calls a function of numpy arrays whenever a network is run, as its calls are.

    Args:
        output: what a call of the network returned.
        function: the function; its calls are in the order of the network's.
        tensors: what is handed to it.

    Returns:
        `output`, which nothing reads before the function has returned: a network that ran ahead
        would keep all that is still to be handed over.
    """
    done = tf.numpy_function(function, tensors, [])
    with tf.control_dependencies([done]):
        return keras.tree.map_structure(tf.identity, output)
