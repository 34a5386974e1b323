"""How a refit runs the pruned network: a part at a time, over the calibration images.

Keras can run every network (`amc_tf.pruning.refit.keras_runner`). Whoever knows a faster way hands
it to the refit as a `Runner`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol, runtime_checkable

import numpy as np

from amc_tf.graph.network import Call
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.weights import Weights

# Maps a value of some images, and the slice of these images, to rows (images * n, columns).
Read = Callable[[Any, slice], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Calibration images, converted to the types of a model's inputs a few at a time.

    Attributes:
        arrays: one array (images, ...) for each input.
        dtypes: type of each input.
    """

    arrays: Sequence[np.ndarray]
    dtypes: Sequence[str]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.arrays[0])

    def at(self, numbers: np.ndarray) -> Images:
        """Returns the images with these numbers, in this order."""
        return Images([np.asarray(array)[numbers] for array in self.arrays], self.dtypes)

    def part(self, images: slice) -> list[np.ndarray]:
        """Returns some of the images, one array for each input."""
        pairs = zip(self.arrays, self.dtypes, strict=True)
        return [np.asarray(array[images], dtype) for array, dtype in pairs]


@dataclasses.dataclass(frozen=True, eq=False)
class Stop:
    """A place at which a refit may read the pruned network.

    Attributes:
        call: the call before which the run stops.
        values: numbers of the values that may be read there.
        weights: weights that may be changed there, by `layer/weight`.
    """

    call: Call
    values: tuple[int, ...]
    weights: tuple[str, ...]


class Run(Protocol):
    """A pruned network on its way through the calibration images."""

    def advance(self, stop: Stop, changed: Weights) -> None:
        """Runs all calls before a stop that have not run yet.

        Args:
            stop: one of the stops, each behind the one before; some may be left out.
            changed: weights that changed since the last stop, by `layer/weight`, in the dense
                shape. Calls that have run are not run again.
        """
        ...

    def rows(self, number: int, read: Read) -> np.ndarray:
        """Reads a value of the last stop.

        Args:
            number: number of the value.
            read: function that is applied to the value of some images at a time.

        Returns:
            The rows of all images, in the order of the images.
        """
        ...


class Runner(Protocol):
    """A way to run any plan's network."""

    def start(self, plan: PruningPlan, images: Images, pool: Executor) -> Run:
        """Begins a run; nothing is computed yet.

        Args:
            plan: the plan.
            images: the calibration images.
            pool: threads for work that can be done in parallel.
        """
        ...


@runtime_checkable
class RunByOthers(Protocol):
    """A refit whose runs can be done in another way."""

    def run_by(self, make: Callable[[Sequence[Stop], Images], Runner]) -> Any:
        """Returns the same refit with the runner that `make` gives for its stops and images."""
        ...


def in_parts(total: int, most: int, pool: Executor, fill: Callable[[slice], np.ndarray]):
    """Computes rows for a few images at a time, in parallel.

    Args:
        total: number of images.
        most: largest number of images at a time.
        pool: threads to work in.
        fill: function from a slice of the images to their rows (images * n, columns).

    Returns:
        The rows of all images.
    """
    parts = [slice(i, min(i + most, total)) for i in range(0, total, most)]
    first = fill(parts[0])
    each = len(first) // (parts[0].stop - parts[0].start)
    result = np.empty((total * each, *first.shape[1:]), first.dtype)

    def put(part: slice, rows: np.ndarray) -> None:
        result[part.start * each : part.stop * each] = rows

    put(parts[0], first)
    list(pool.map(lambda part: put(part, fill(part)), parts[1:]))
    return result
