"""Latency of a plan as a function of channel counts, without building a model."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from amc_tf import story
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.latency.blueprint import Block, Blueprint, draw
from amc_tf.latency.calibration import Calibration, calibrate
from amc_tf.latency.surface import Point, Surface, Tolerance, Unmeasured, fit
from amc_tf.latency.table import LatencyTable

_CALIBRATION_SEED = 0
_LOWEST_MEAN_RATIO = 0.3  # lowest mean preserve ratio of a random plan


@dataclasses.dataclass(frozen=True, eq=False)
class LatencyCost:
    """Milliseconds of one inference, as a function of the groups' channel counts.

    Made by `latency_cost`. It is a sum over the operators, each from its
    surface, with the factors of a calibration.

    Attributes:
        name: `latency`.
        blueprint: the network's operators.
        surfaces: time of each block of the blueprint, as a function of its widths.
        calibration: factors of the sums.
        examples: channel counts, and the measured milliseconds of the whole network with them.
        call_ms: milliseconds of a call without its operators.
        corrections: the same as `examples`, for plans whose latency a search had to know.
    """

    blueprint: Blueprint
    surfaces: Sequence[Surface]
    calibration: Calibration
    examples: tuple[tuple[tuple[int, ...], float], ...]
    call_ms: float
    corrections: tuple[tuple[tuple[int, ...], float], ...] = ()
    name: str = "latency"
    _parts: list[dict[tuple[int, ...], tuple[float, float]]] = dataclasses.field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        if not self._parts:
            self._parts.extend({} for _ in self.surfaces)

    def __call__(self, counts: Sequence[int] | np.ndarray) -> float:
        """Returns the milliseconds if group i keeps `counts[i]` channels, i as in graph.groups."""
        return self.calibration(self.sums(counts))

    def sums(self, counts: Sequence[int] | np.ndarray) -> dict[str, float]:
        """Returns the milliseconds by kind of operator before calibration, and `weight_mb`."""
        counts = np.asarray(counts).tolist()
        totals = {"call": self.call_ms, "weight_mb": 0.0}
        for block, surface, known in zip(
            self.blueprint.blocks, self.surfaces, self._parts, strict=True
        ):
            key = tuple([counts[group] for group in block.shares])
            if key not in known:
                point = block.point(counts)
                known[key] = surface(point), block.weight_mb(point)
            ms, weight_mb = known[key]
            totals[block.kind] = totals.get(block.kind, 0.0) + ms
            totals["weight_mb"] += weight_mb
        return totals

    @property
    def network(self) -> str:
        """The text that identifies the network in a table."""
        return "".join(self.blueprint.whole.pieces)

    def corrected(self, measured: Mapping[tuple[int, ...], float]) -> LatencyCost:
        """Makes the same cost with more corrections.

        Args:
            measured: channel counts to milliseconds of the whole network.
        """
        return self.calibrated(self.examples, (*self.corrections, *measured.items()))

    def calibrated(
        self,
        examples: Sequence[tuple[tuple[int, ...], float]],
        corrections: Sequence[tuple[tuple[int, ...], float]],
    ) -> LatencyCost:
        """Makes the same cost, calibrated only on these measurements of whole networks."""
        calibration = calibrate(
            *([(self.sums(counts), ms) for counts, ms in part] for part in (examples, corrections))
        )
        return dataclasses.replace(
            self,
            calibration=calibration,
            examples=tuple(examples),
            corrections=tuple(corrections),
        )


def latency_cost(
    graph: ChannelGraph,
    table: LatencyTable,
    choices: Sequence[np.ndarray],
    *,
    blueprint: Blueprint | None = None,
    calibration_plans: int = 8,
    tolerance: Tolerance | None = None,
) -> LatencyCost:
    """Measures what is missing in a table, calibrates, and makes the cost.

    If it is interrupted at any moment, the same call goes on where it stopped.

    Args:
        graph: the analysed network.
        table: table of the device.
        choices: the channel counts that each group may keep, ascending (see
            `amc_tf.search.env.channels.allowed_counts`).
        blueprint: blueprint of the network, if it was drawn before.
        calibration_plans: number of random plans whose whole networks are measured,
            in addition to the dense one.
        tolerance: errors at which interpolation is accepted; default: half of a call's
            time, and the other defaults of `Tolerance`.

    Returns:
        The cost.

    Raises:
        AmcError: the network cannot be split into operators, or the device fails.
    """
    blueprint = draw(graph) if blueprint is None else blueprint
    if tolerance is None:
        # Two measurements of a call may differ by half of its time.
        tolerance = Tolerance(absolute_ms=table.call_ms / 2)
    surfaces = _surfaces(blueprint, table, choices, tolerance)
    cost = LatencyCost(blueprint, surfaces, Calibration(), (), table.call_ms)
    examples = _measured_plans(blueprint, table, choices, calibration_plans)
    corrections = table.corrections(cost.network)
    return cost.calibrated([*examples.items()], [*corrections.items()])


def _surfaces(
    blueprint: Blueprint,
    table: LatencyTable,
    choices: Sequence[np.ndarray],
    tolerance: Tolerance,
) -> list[Surface]:
    """Fits the surface of each block; equal blocks at equal widths share one."""
    wanted: dict[tuple, tuple[Block, list[np.ndarray]]] = {}
    keys = []
    for block in blueprint.blocks:
        candidates = block.candidates(choices)
        keys.append((block.shape, *(values.tobytes() for values in candidates)))
        wanted.setdefault(keys[-1], (block, candidates))
    done: dict[tuple, Surface] = {}
    with story.bar(0, "operators", "op") as bar:
        while len(done) < len(wanted):
            missing: list[str] = []
            for key, (block, candidates) in wanted.items():
                if key in done:
                    continue
                try:
                    seed = zlib.crc32("".join(block.pieces).encode())
                    done[key] = fit(candidates, _net(block, table), tolerance, seed)
                except Unmeasured as unmeasured:
                    missing += [block.text(point) for point in unmeasured.points]
            bar.total += sum(table.get(text) is None for text in set(missing))
            table.measure(missing, bar.update)
    return [done[key] for key in keys]


def _net(block: Block, table: LatencyTable) -> Callable[[Point], float | None]:
    """Makes a function that returns the time of a block without that of the call."""

    def time(point: Point) -> float | None:
        ms = table.get(block.text(point))
        return None if ms is None else max(0.0, ms - table.call_ms)

    return time


def _measured_plans(
    blueprint: Blueprint, table: LatencyTable, choices: Sequence[np.ndarray], plans: int
) -> dict[tuple[int, ...], float]:
    """Measures whole networks: the dense one and those of random plans of all sizes."""
    rng = np.random.default_rng(_CALIBRATION_SEED)
    dense = tuple(int(allowed[-1]) for allowed in choices)
    chosen = [dense, *(random_counts(choices, rng) for _ in range(plans))]
    texts = {counts: blueprint.text(counts) for counts in chosen}
    missing = sum(table.get(text) is None for text in texts.values())
    with story.bar(missing, "networks", "net") as bar:
        times = table.measure(texts.values(), bar.update, whole=True)
    return {counts: times[text] for counts, text in texts.items()}


def random_counts(choices: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[int, ...]:
    """Draws channel counts around a preserve ratio that is random too.

    If each count were drawn on its own, all networks would have about the same size.
    """
    ratio = rng.uniform(_LOWEST_MEAN_RATIO, 1.0)
    result = []
    for allowed in choices:
        wanted = np.clip(rng.normal(ratio, 0.2), 0, 1) * allowed[-1]
        result.append(int(allowed[np.argmin(np.abs(allowed - wanted))]))
    return tuple(result)


def describe(cost: LatencyCost, dense: Sequence[int]) -> str:
    """Describes in a few lines where the dense network spends its time, and the calibration."""
    sums = cost.sums(dense)
    kinds = sorted((k for k in sums if k != "weight_mb"), key=lambda k: -sums[k])
    lines = [f"dense: {cost(dense):.4g} ms"]
    for kind in kinds:
        factor = cost.calibration.factors.get(kind, 1.0)
        lines.append(f"  {kind:<20} {sums[kind]:9.4f} ms alone, factor {factor:.3f}")
    errors = [abs(cost(counts) / ms - 1) for counts, ms in cost.examples]
    lines.append(
        f"{len(errors)} whole networks predicted to within {np.median(errors):.1%} in the median, "
        f"{max(errors):.1%} at worst"
    )
    return "\n".join(lines)
