"""Running pruned networks as TFLite files, at the speed of their small size."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.input_shapes import is_open
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.widths import random_plan
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import Weights
from amc_tf.scoring.batch_norm_folding import NotCarriedError
from amc_tf.scoring.tflite_specimen import run
from amc_tf.scoring.tflite_template import learn
from tflite_tools.interpreter import allocated


class LiteEngine:
    """An engine that makes and runs the TFLite file of any plan.

    XNNPACK, which LiteRT's interpreter uses, runs a float32 network on a CPU in
    about half the time of a TensorFlow graph, but needs static shapes. A new
    file for every plan has both static shapes and small widths.

    Attributes:
        graph: the analysed network.
        specimens: the conversions from which its files are cut.
        batch_size: number of images in one invocation.
        num_threads: number of interpreters that run in parallel.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        *,
        batch_size: int = 4,
        num_threads: int | None = None,
        fixed: Collection[str] = (),
        inputs: Sequence[np.ndarray] | None = None,
        seed: int = 0,
    ):
        """Learns the template, with two or three conversions of some seconds each.

        Args:
            graph: `fold(analyze(model)).graph`. A batch norm that is not folded
                is computed from several weights, and is refused.
            batch_size: see above.
            num_threads: see above; default: the number of processors.
            fixed: weights that never change (`Folding.fixed`).
            inputs: one array (images, ...) for each model input, on which the
                engine is compared with Keras; default: noise.
            seed: seed of the random plans and of the noise.

        Raises:
            NotCarriedError: the network cannot be cut out of a converted file.
        """
        if is_open(graph.network.model):
            raise NotCarriedError("the model takes inputs of several sizes, and a file of one size")
        self.graph = graph
        self.batch_size = batch_size
        self.num_threads = num_threads or os.cpu_count() or 1
        rng = np.random.default_rng(seed)
        self.specimens = learn(graph, batch_size, fixed, rng)
        self._template = self.specimens.template()
        self._names = self._template.weights()
        self._verify(inputs, random_plan(graph, rng), rng)

    def carries(self, weights: Collection[str]) -> bool:
        """Returns whether all of these weights, by `layer/weight`, can be replaced in a file."""
        return all(name in self._names for name in weights)

    def file(self, plan: PruningPlan | None, weights: Weights | None = None) -> bytes:
        """Makes the TFLite file of the pruned network, at the engine's batch size.

        Its weights lie behind the flatbuffer (`Buffer.offset` in the schema),
        as in files too large for a flatbuffer; every current TFLite runtime
        reads them.

        Args:
            plan: the plan; None keeps every channel.
            weights: weights of `graph` that replace the dense ones, by
                `layer/weight`, in the dense shape.

        Raises:
            AmcError: the plan does not fit the graph, or `weights` names a
                weight that no plan changes.
        """
        weights = weights or {}
        unknown = [name for name in weights if name not in self._names]
        if unknown:
            raise AmcError(
                f"weight {unknown[0]!r} was not expected to change, so it cannot be replaced in "
                "a converted file; score with the masked model"
            )
        return self._template.file(self.graph.keep_mask(plan), weights)

    def network(self, plan: PruningPlan | None, weights: Weights | None = None) -> LiteNetwork:
        """Makes the pruned network, ready to run. Args, Raises: as `file`."""
        return LiteNetwork(self.file(plan, weights), self.num_threads)

    def _verify(self, inputs, plan: PruningPlan, rng: np.random.Generator) -> None:
        """Compares one plan's outputs with the rebuilt Keras model's."""
        model = self.graph.network.model
        inputs = (
            [_noise(t, self.batch_size, rng) for t in model.inputs] if inputs is None else inputs
        )
        inputs = [np.asarray(x)[: self.batch_size] for x in inputs]
        received = self.network(plan)(inputs)
        expected = run(rebuild(model, self.graph, plan), inputs)
        for number, (a, b) in enumerate(zip(received, expected, strict=True)):
            b = keras.ops.convert_to_numpy(b)
            scale = np.max(np.abs(b), initial=1e-6)
            # Negated, so that a NaN does not pass.
            if a.shape != b.shape or not np.max(np.abs(a - b), initial=0) <= 1e-3 * scale:
                raise NotCarriedError(
                    f"output {number} of the converted file differs from the rebuilt model's"
                )


class LiteNetwork:
    """A TFLite file with a static batch, run on any number of images.

    The images are distributed to interpreters of one thread each. Threads
    within an operation would wait for each other at the end of every operation,
    and small networks have many small ones (benchmarks/engines.py).
    """

    def __init__(self, file: bytes, num_threads: int, pool: Executor | None = None):
        """Makes the interpreters.

        Args:
            file: the file.
            num_threads: number of interpreters.
            pool: threads to run them in; default: its own.
        """
        self._pool = pool or ThreadPoolExecutor(num_threads)
        self._interpreters = list(self._pool.map(_interpreter, [file] * num_threads))
        self._inputs = self._interpreters[0].get_input_details()
        self._outputs = self._interpreters[0].get_output_details()
        self._batch_size = int(self._inputs[0]["shape"][0])

    def __call__(
        self, inputs: Sequence[np.ndarray], empty: Callable[..., np.ndarray] = np.empty
    ) -> list[np.ndarray]:
        """Runs the network.

        Args:
            inputs: one array (images, ...) for each model input.
            empty: function that makes the arrays of the outputs, as `np.empty`.

        Returns:
            One array (images, ...) for each model output.
        """
        count = len(inputs[0])
        results = [empty((count, *o["shape"][1:]), o["dtype"]) for o in self._outputs]
        # One iterator for all: an interpreter that is done takes the next batch.
        starts = iter(range(0, count, self._batch_size))

        def work(interpreter: Interpreter) -> None:
            for start in starts:
                self._run(interpreter, inputs, results, start)

        list(self._pool.map(work, self._interpreters))
        return results

    def _run(
        self,
        interpreter: Interpreter,
        inputs: Sequence[np.ndarray],
        results: Sequence[np.ndarray],
        start: int,
    ) -> None:
        """Runs one batch and puts its outputs into the results."""
        size = min(self._batch_size, len(inputs[0]) - start)
        for detail, array in zip(self._inputs, inputs, strict=True):
            batch = np.asarray(array[start : start + size], detail["dtype"])
            if size < self._batch_size:  # the shape is static
                batch = np.resize(batch, detail["shape"])
            interpreter.set_tensor(detail["index"], batch)
        interpreter.invoke()
        for detail, result in zip(self._outputs, results, strict=True):
            # A view: `get_tensor` would copy first.
            result[start : start + size] = interpreter.tensor(detail["index"])()[:size]


def _interpreter(file: bytes) -> Interpreter:
    return allocated(model_content=file, num_threads=1)


def _noise(tensor: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    shape = (count, *tensor.shape[1:])
    if "int" in tensor.dtype or tensor.dtype == "bool":
        return rng.integers(0, 2, shape).astype(tensor.dtype)
    return rng.normal(size=shape).astype(tensor.dtype)
