"""Conversion in a process of its own, as a converter that crashes takes its process along.

The child gets the model as a frozen graph, and so needs none of the user's classes.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_tools import isolation

_GRAPH, _REQUEST, _SAMPLES = "graph.pb", "request.json", "samples.npz"
_FILE, _ANSWER = "model.tflite", "answer.json"


@dataclass(frozen=True)
class Attempt:
    """What came of a conversion.

    Attributes:
        seconds: how long it took, the start of its process included.
        content: the file, which LiteRT has run once; None if there is none.
        error: what went wrong, in one sentence without the remedy; None if nothing did.
        layers: names of the layers at fault, as far as the error tells them.
    """

    seconds: float
    content: bytes | None = None
    error: str | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrozenModel:
    """A model whose conversion can be tried apart, whole or in part.

    Attributes:
        model: the Keras model.
        function: its frozen function.
    """

    model: Any
    function: Any

    @classmethod
    def of(cls, model: Any) -> FrozenModel:
        """Freezes a model as `convert` does.

        Raises:
            ValueError: the model cannot be traced, or a weight is not finite.
        """
        from tflite_tools import tracing
        from tflite_tools.quiet import quiet

        signature = tracing.signature_of(model)
        tracing.require_finite_weights(model)
        with quiet():
            return cls(model, tracing.freeze(tracing.in_float32(model), signature))

    def attempt(
        self,
        quantize: str | None,
        samples: Iterable[Sequence[np.ndarray]] = (),
        *,
        sparse: bool = False,
        outputs: Sequence[str] | None = None,
        timeout: float = 1800.0,
    ) -> Attempt:
        """Converts in a child process, and runs the file there.

        Args:
            quantize: as for `tflite_tools.convert`.
            samples: arrays of batch 1 in the order of the inputs: for calibration, and the first
                to run the file on.
            sparse: as for `tflite_tools.convert`.
            outputs: names of tensors of the graph; None for the model's outputs.
            timeout: seconds after which the conversion counts as hung.
        """
        start = time.monotonic()
        wanted = [tensor.name for tensor in self.function.outputs] if outputs is None else outputs
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            graph = self.function.graph.as_graph_def()
            (folder / _GRAPH).write_bytes(graph.SerializeToString())
            inputs = [tensor.name for tensor in self.function.inputs]
            request = {"quantize": quantize, "sparse": sparse, "inputs": inputs, "outputs": wanted}
            (folder / _REQUEST).write_text(json.dumps(request))
            arrays: dict[str, Any] = {
                f"{i}_{j}": a for i, s in enumerate(samples) for j, a in enumerate(s)
            }
            np.savez(folder / _SAMPLES, **arrays)
            found = _run(folder, timeout)
            path = folder / _FILE
            content = path.read_bytes() if path.is_file() and found is None else None
        layers = () if found is None else self._layers_in(found)
        return Attempt(time.monotonic() - start, content, found, layers)

    def scopes(self) -> Mapping[str, list[str]]:
        """Returns the tensors that each layer computes, in the order of the graph."""
        from tflite_tools.tracing import layer_scopes

        found: dict[str, list[str]] = {}
        for operation in self.function.graph.get_operations():
            scopes = list(layer_scopes(self.model, operation.name))
            if scopes and operation.outputs and operation.type not in ("Const", "Placeholder"):
                found.setdefault(scopes[-1], []).append(operation.outputs[0].name)
        return found

    def _layers_in(self, error: str) -> tuple[str, ...]:
        """Returns the layers of the operators that an error names, or of all loops."""
        from tflite_tools.tracing import layer_scopes

        named = re.search(r"TensorFlow operators ([\w, ;]+?); ", error)
        kinds = set(re.split(r"[,; ]+", named.group(1))) if named else set()
        if "loops" in error:
            kinds = {"While", "StatelessWhile"}
        layers: dict[str, None] = {}
        for operation in self.function.graph.get_operations():
            if operation.type in kinds:
                layers |= dict.fromkeys(list(layer_scopes(self.model, operation.name))[-1:])
        return tuple(layers)


def _run(folder: Path, timeout: float) -> str | None:
    """Returns what went wrong in the child; None if nothing did."""
    try:
        done = subprocess.run(
            isolation.command("tflite_tools.apart", [str(folder)]),
            env=isolation.environment(TF_CPP_MIN_LOG_LEVEL="3"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # the converter prints the whole graph
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the conversion did not end within {timeout:g} seconds"
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return f"the converter's process died of {name}"
    answer = folder / _ANSWER
    if done.returncode or not answer.is_file():
        return f"the converter's process ended with exit code {done.returncode}"
    return json.loads(answer.read_text())["error"]


def _serve(folder: Path) -> None:
    """Does the child's work: converts, runs the file and writes the answer."""
    from tflite_tools.conversion import convert_graph
    from tflite_tools.interpreter import LiteRtModel

    request = json.loads((folder / _REQUEST).read_text())
    arrays: dict[int, list[np.ndarray]] = {}
    with np.load(folder / _SAMPLES) as archive:
        for name in archive.files:
            arrays.setdefault(int(name.partition("_")[0]), []).append(archive[name])
    samples = list(arrays.values())
    error = None
    try:
        content = convert_graph(
            (folder / _GRAPH).read_bytes(),
            request["inputs"],
            request["outputs"],
            request["quantize"],
            samples,
            sparse=request["sparse"],
        )
        (folder / _FILE).write_bytes(content)
        if samples:
            LiteRtModel(content).predict(samples[0] if samples[0][1:] else samples[0][0])
    except ValueError as refused:
        error = str(refused).strip().splitlines()[0]
    except RuntimeError as failed:
        # LiteRT runs each operator with a kernel, which may lack a number format.
        error = f"LiteRT cannot run the file: {str(failed).strip().splitlines()[0]}"
    (folder / _ANSWER).write_text(json.dumps({"error": error}))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
