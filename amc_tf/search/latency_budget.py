"""The latency of a search: predicted in every episode, measured before a plan is chosen."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.latency.cost import LatencyCost, latency_cost
from amc_tf.latency.settings import LatencySettings, open_table
from amc_tf.latency.table import LatencyTable
from amc_tf.pruning.surgery import rebuild
from amc_tf.runs import layout
from amc_tf.runs.workdir import Workdir
from amc_tf.search.env.base import Outcome
from amc_tf.search.env.budget import Budget
from amc_tf.search.latency_choice import Chooser, Counts, Measured
from tflite_tools import convert

_MOST_TIGHTENED = 3  # times that the budget is tightened
_MOST_OVER = 1.25  # above this share of the budget, the table is wrong rather than the plan

Replay = Callable[[int, Budget, Sequence[str]], Mapping[str, Sequence[Outcome]]]


class SearchLatency:
    """The latency of a search's plans.

    Attributes:
        cost: predicted latency; it does not change when the search is resumed.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        budget: Budget | None,
        choices: Sequence[np.ndarray],
        workdir: pathlib.Path,
        settings: LatencySettings,
        *,
        table: LatencyTable | None = None,
        converted: Callable[[keras.Model], bytes] = convert,
    ):
        """Opens the table and measures what is missing from it.

        Args:
            graph: the analysed network.
            budget: the search's budget.
            choices: channel counts that each group may keep.
            workdir: the search's work directory; `latency.json` there keeps the search's
                measurements.
            settings: see `LatencySettings`.
            table: table to use instead of the one that the settings name.
            converted: function that converts a Keras model to a .tflite file.

        Raises:
            AmcError: see `open_table` and `latency_cost`.
        """
        self._graph = graph
        self._budget = budget
        self._workdir = workdir
        self._finalists = settings.finalists
        self._converted = converted
        self._least, self._dense = (
            tuple(int(allowed[end]) for allowed in choices) for end in (0, -1)
        )
        self._table = open_table(settings) if table is None else table
        cost = latency_cost(
            graph, self._table, choices, calibration_plans=settings.calibration_plans
        )
        kept = Workdir(workdir).read_json(layout.LATENCY, {})
        if kept.get("conditions") == self._table.conditions:
            # Other searches may have corrected the table since this one began.
            cost = cost.calibrated(
                *([(tuple(c), ms) for c, ms in kept[part]] for part in ("examples", "corrections"))
            )
        else:
            kept = {}
        self.cost: LatencyCost = cost
        self._known = {
            tuple(m["counts"]): Measured(m["ms"], m["dense_ms"]) for m in kept.get("measured", [])
        }
        self._keep()

    def choose(
        self, ranked: Mapping[str, Sequence[Outcome]], within: Replay | None = None
    ) -> dict[str, Outcome]:
        """Chooses each policy's best plan that is within the budget when measured whole.

        Args:
            ranked: outcomes of each policy, the best first.
            within: function that fits the plans of policies without such a plan into a tighter
                budget. It is needed because plans that just fill the budget as predicted all
                exceed it when the prediction is wrong by 1 %.

        Returns:
            Outcome of each policy with its measured latency; without a bound on
            latency, each policy's first outcome with its predicted latency.

        Raises:
            AmcError: the device fails, or no plan is within the budget.
        """
        asked = self._budget
        if asked is None or not asked.bounds_latency:
            return {name: outcomes[0] for name, outcomes in ranked.items()}
        chooser = Chooser(asked, self._dense, self._measure, self._finalists)
        best, budget = chooser(ranked, self.cost, self._known), asked
        for number in range(1, _MOST_TIGHTENED + 1):
            missing = [name for name in ranked if name not in best]
            over = [
                self._known[outcome.counts].over(asked)
                for name in missing
                for outcome in ranked[name]
                if outcome.counts in self._known
            ]
            if within is None or not over or max(over) > _MOST_OVER:
                break
            budget = budget.tightened(max(over))
            if self.cost(self._least) > budget.latency_bound(self.cost(self._dense)):
                break
            ranked = within(number, budget, missing)
            best |= chooser(ranked, self.cost, self._known)
        self._table.correct(self.cost.network, {c: m.ms for c, m in self._known.items()})
        if not best:
            fastest = min(self._known.values(), key=lambda m: m.ms / m.dense_ms)
            raise AmcError(
                f"none of {len(self._known)} plans measured is within the budget of latency: the "
                f"fastest took {fastest.ms:.4g} ms, and the dense model {fastest.dense_ms:.4g} ms; "
                "the table has been corrected: search again in another workdir, or raise the "
                "budget"
            )
        return best

    def _measure(self, outcomes: Sequence[Outcome]) -> list[Measured]:
        model = self._graph.network.model
        models = {"dense": self._converted(model)}
        with story.bar(len(outcomes), "finalists", "plan") as bar:
            for outcome in outcomes:
                name = " ".join(map(str, outcome.counts))
                models[name] = self._converted(rebuild(model, self._graph, outcome.plan))
                bar.update()
        times = self._table.files(models)
        results = [Measured(ms, times["dense"]) for name, ms in times.items() if name != "dense"]
        self._known.update(zip((o.counts for o in outcomes), results, strict=True))
        self._keep()
        return results

    def _keep(self) -> None:
        content = {
            "conditions": self._table.conditions,
            "examples": self.cost.examples,
            "corrections": self.cost.corrections,
            "foreseen": [self.cost(counts) for counts, _ in self.cost.examples],
            "measured": [
                {
                    "counts": counts,
                    "ms": m.ms,
                    "dense_ms": m.dense_ms,
                    "foreseen_ms": self.cost(counts),
                }
                for counts, m in self._known.items()
            ],
        }
        Workdir(self._workdir).write_json(layout.LATENCY, content)

    def measured(self, counts: Sequence[int]) -> Measured | None:
        """Returns the measured latency of a plan; None if it was not measured whole."""
        key: Counts = tuple(counts)
        return self._known.get(key)
