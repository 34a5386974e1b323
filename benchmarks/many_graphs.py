"""The properties of tests/helpers/random_graphs.py over many random graphs.

    python benchmarks/many_graphs.py --graphs=500 --seed=0

For each graph: keeping everything is the identity, a random plan rebuilt equals it
masked, costs equal a recount, and pruning twice equals pruning once by the composed
plan; the saved and the TFLite-converted model agree too.
"""

from __future__ import annotations

import collections
import pathlib
import sys
import tempfile
import time

import keras
from absl import app, flags
from common import record
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import amc_tf

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tests/helpers"))
import random_graphs  # noqa: E402 - from tests/helpers

GRAPHS = flags.DEFINE_integer("graphs", 500, "Number of graphs.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the graphs and plans.")


def study(graphs: int, number: int) -> dict:
    tally: collections.Counter = collections.Counter()
    classes: collections.Counter = collections.Counter()

    @seed(number)
    @settings(
        max_examples=graphs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(data=st.data())
    def check(data):
        keras.utils.clear_session()
        model = data.draw(random_graphs.models())
        graph = amc_tf.analyze(model)
        random_graphs.check_identity(model, graph)
        plan = data.draw(random_graphs.plans(graph))
        rebuilt = random_graphs.check_plan(model, graph, plan)
        tally["composed"] += random_graphs.check_twice(
            model, graph, plan, rebuilt, lambda graph: data.draw(random_graphs.plans(graph))
        )
        with tempfile.TemporaryDirectory() as folder:
            converted = random_graphs.check_files(model, rebuilt, pathlib.Path(folder))
        tally["converted"] += converted
        tally["graphs"] += 1
        tally["groups"] += len(graph.groups)
        classes.update({type(call.operation).__name__ for call in graph.network.calls})

    start = time.monotonic()
    check()
    return {
        "seed": number,
        **tally,
        "operation_classes": len(classes),
        "seconds": round(time.monotonic() - start),
    }


def main(argv):
    del argv
    record.append("random_graphs", study(GRAPHS.value, SEED.value))


if __name__ == "__main__":
    app.run(main)
