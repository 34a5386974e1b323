"""Operators as text, surfaces, the table's file, calibration: latency without a search."""

import itertools
import json
import sqlite3

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers as kl
from made_up_device import CALL_MS, SLOWER, MadeUpDevice, network_ms

import amc_tf
import tflite_tools
from amc_tf.graph.costs import plan_counts
from amc_tf.graph.widths import random_plan
from amc_tf.latency import operators
from amc_tf.latency.blueprint import draw
from amc_tf.latency.calibration import calibrate
from amc_tf.latency.cost import describe, latency_cost, random_counts
from amc_tf.latency.settings import LatencySettings, open_table
from amc_tf.latency.surface import Tolerance, Unmeasured, fit
from amc_tf.latency.table import NOTHING, LatencyTable
from amc_tf.search.env.channels import allowed_counts


def _network(name="net", stem=32):
    """Padding before a convolution, depthwise, a concatenation, a residual, Flatten."""
    x = inputs = keras.Input((12, 12, 3))
    x = kl.Conv2D(stem, 3, padding="same", activation="relu", name="stem")(x)
    x = kl.Conv2D(48, 3, strides=2, name="down")(kl.ZeroPadding2D(1)(x))
    y = kl.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = kl.Add()([x, kl.Conv2D(48, 1, name="project")(y)])
    x = kl.Concatenate()([x, kl.Conv2D(24, 1, name="side")(x)])
    x = kl.Flatten()(kl.AveragePooling2D(3)(x))
    return keras.Model(inputs, kl.Dense(5, name="head")(x), name=name)


@pytest.fixture(scope="module")
def graph():
    keras.utils.set_random_seed(0)
    return amc_tf.analyze(_network())


@pytest.fixture(scope="module")
def blueprint(graph):
    return draw(graph)


@pytest.fixture(scope="module")
def choices(graph):
    return allowed_counts(graph, 4, 0.2)


def _run(file, seed=0):
    interpreter = Interpreter(model_content=file)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(
            detail["index"], rng.normal(size=detail["shape"]).astype(detail["dtype"])
        )
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def test_operators_are_found_for_plans_that_were_never_converted(graph, blueprint):
    for seed in (11, 12):
        plan = random_plan(graph, np.random.default_rng(seed))
        rebuilt = amc_tf.rebuild(graph.network.model, graph, plan)
        converted = operators.text_of(operators.read(tflite_tools.convert(rebuilt)))
        counts = plan_counts(graph, plan)
        assert blueprint.text(counts) == converted
        blocks = operators.blocks(json.loads(converted))
        assert [b.text(b.point(counts)) for b in blueprint.blocks] == [
            operators.text_of(block) for block in blocks
        ]


def test_files_made_of_text_run(graph, blueprint):
    counts = [group.channels // 2 for group in graph.groups.values()]
    for block in (*blueprint.blocks, blueprint.whole):
        text = block.text(block.point(counts))
        file = operators.build(text)
        assert operators.text_of(operators.read(file)) == text
        described = json.loads(text)
        shapes = [tuple(described["tensors"][n]["shape"]) for n in described["outputs"]]
        outputs = _run(file)
        assert [o.shape for o in outputs] == shapes
        assert all(np.isfinite(o).all() and o.any() for o in outputs)


def test_what_the_runtime_joins_is_timed_as_one(blueprint):
    joined = [block for block in blueprint.blocks if len(block.label.split("+")) > 1]
    assert [block.label for block in joined] == ["PAD+CONV_2D of 1x12x12x17"] or [
        block.label.split(" ")[0] for block in joined
    ] == ["PAD+CONV_2D"]
    kinds = [block.kind for block in blueprint.blocks]
    assert kinds.count("CONV_2D") == 4 and kinds.count("DEPTHWISE_CONV_2D") == 1
    # Flatten's width is the channels' times the positions: one width, not two.
    flat = next(block for block in blueprint.blocks if block.kind == "FULLY_CONNECTED")
    assert len(flat.fixed) == 1


def test_quantised_files_are_refused():
    x = inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, kl.Conv2D(4, 3)(x))
    samples = [np.random.default_rng(i).normal(size=(1, 4, 4, 3)).astype("f4") for i in range(4)]
    file = tflite_tools.convert(model, quantize="int8", representative=samples)
    with pytest.raises(amc_tf.AmcError, match="quantised"):
        operators.read(file)


# --- surfaces -----------------------------------------------------------------------------------


def _fitted(function, candidates, **tolerance):
    """Fits as the table does: measures what is asked for until nothing is."""
    known = {}
    while True:
        try:
            return fit(candidates, known.get, Tolerance(**tolerance)), known
        except Unmeasured as unmeasured:
            assert not known.keys() & set(unmeasured.points)
            known.update({point: function(point) for point in unmeasured.points})


@pytest.mark.parametrize("tile", [8, 16, 32])
def test_a_staircase_is_kept(tile):
    values = np.arange(16, 257, 8)

    def time(point):
        return 0.1 + 0.02 * -(-point[0] // tile)

    surface, known = _fitted(time, [values])
    assert [surface((v,)) for v in values] == pytest.approx([time((v,)) for v in values], rel=0.05)
    if tile == 8:  # multiples of the tile: a straight line, of which few points tell
        assert len(known) <= 9


def test_of_two_widths_few_pairs_are_measured():
    values = [np.arange(8, 193, 8), np.arange(8, 257, 8)]

    def time(point):  # a matrix product in tiles, and what it takes to write the result
        tiles = -(-point[1] // 16)
        return 1e-4 * tiles * point[0] + 2e-3 * tiles + 1e-3

    surface, known = _fitted(time, values)
    pairs = [*itertools.product(*values)]
    errors = [abs(surface(p) / time(p) - 1) for p in pairs]
    assert np.median(errors) < 0.03 and max(errors) < 0.15
    assert len(known) < len(pairs) / 8


def test_a_lattice_gets_finer_where_it_is_off():
    values = [np.arange(8, 257, 8)] * 2

    def time(point):  # another kernel below 100 by 100
        return 1e-4 * point[0] * point[1] * (2 if max(point) < 100 else 1)

    coarse, few = _fitted(time, values, refinements=0)
    fine, more = _fitted(time, values, refinements=6, checks=12)
    pairs = [*itertools.product(*values)]

    def wrong(surface):
        return np.mean([abs(surface(p) / time(p) - 1) > 0.1 for p in pairs])

    assert len(few) < len(more) and wrong(fine) < wrong(coarse)


def test_three_widths_are_a_sum():
    values = [np.arange(8, 65, 8), np.arange(16, 129, 8), np.arange(8, 33, 8)]
    surface, _ = _fitted(lambda p: 1e-3 * sum(p) + 0.01, values)
    for point in [(8, 16, 8), (40, 72, 16), (64, 128, 32)]:
        assert surface(point) == pytest.approx(1e-3 * sum(point) + 0.01)


def test_what_else_is_known_changes_nothing():
    values = [np.arange(8, 129, 8)]
    _, asked = _fitted(lambda p: p[0] / 100, values)
    everything = {(int(v),): v / 100 if (int(v),) in asked else 77.0 for v in values[0]}
    surface = fit(values, everything.get, Tolerance())
    assert surface((104,)) == pytest.approx(1.04)


# --- table --------------------------------------------------------------------------------------


def test_an_interrupted_table_goes_on_where_it_stopped(blueprint, choices, tmp_path):
    rng = np.random.default_rng(0)
    points = [random_counts(choices, rng) for _ in range(60)]
    texts = list({b.text(b.point(c)) for c in points for b in blueprint.blocks})
    assert len(texts) > 128
    device = MadeUpDevice(fail_after=100)
    with pytest.raises(amc_tf.AmcError, match="unplugged"):
        LatencyTable(tmp_path / "t.sqlite", device).measure(texts)
    again = MadeUpDevice()
    table = LatencyTable(tmp_path / "t.sqlite", again)
    times = table.measure(texts)
    # The first batch of 64 had been kept.
    assert table.measured == len(texts) - 64 and table.found == 64
    assert sorted(again.timed) == sorted([NOTHING, *set(texts) - set(device.timed[1:65])])
    assert all(ms == pytest.approx(network_ms(json.loads(t))) for t, ms in times.items())
    third = MadeUpDevice()
    assert LatencyTable(tmp_path / "t.sqlite", third).measure(texts) == times
    assert third.timed == [NOTHING]


def test_other_conditions_are_other_numbers(blueprint, choices, tmp_path):
    text = blueprint.text([c[-1] for c in choices])
    LatencyTable(tmp_path / "t.sqlite", MadeUpDevice()).measure([text])
    other = LatencyTable(tmp_path / "t.sqlite", MadeUpDevice(name="another phone", whole=3.0))
    assert other.get(text) is None
    assert other.conditions == {"phone": "another phone"}
    assert other.measure([text])[text] == pytest.approx(3 * network_ms(json.loads(text)))


def test_a_slow_hour_is_scaled_by_the_reference(blueprint, choices, tmp_path):
    dense, small = (blueprint.text([c[i] for c in choices]) for i in (-1, 0))
    LatencyTable(tmp_path / "t.sqlite", MadeUpDevice()).measure([dense])
    slow = LatencyTable(tmp_path / "t.sqlite", MadeUpDevice(drift=1.5))
    times = slow.measure([dense, small])
    assert times[small] == pytest.approx(network_ms(json.loads(small)))
    assert slow.files({"dense": operators.build(dense)})["dense"] == pytest.approx(
        1.5 * times[dense]
    )


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "t.sqlite").write_text("something else, and long enough to be looked at" * 50)
    with pytest.raises(amc_tf.AmcError, match="cannot be used .* name another file"):
        LatencyTable(tmp_path / "t.sqlite", MadeUpDevice())


def test_keys_name_no_network(blueprint, choices, tmp_path):
    """A wider stem changes what reads and makes it; everything behind is found again."""
    file = tmp_path / "t.sqlite"
    first = latency_cost(
        None, LatencyTable(file, MadeUpDevice()), choices, blueprint=blueprint, calibration_plans=0
    )
    assert first.blueprint is blueprint
    graph = amc_tf.analyze(_network("another", stem=40))
    wider = draw(graph)
    table = LatencyTable(file, MadeUpDevice())
    latency_cost(graph, table, allowed_counts(graph, 4, 0.2), blueprint=wider, calibration_plans=0)
    assert 0 < table.measured < table.found
    with sqlite3.connect(file) as database:
        texts = [text for (text,) in database.execute("SELECT operators FROM times")]
    assert not any("another" in text or "stem" in text for text in texts)


# --- calibration and cost -----------------------------------------------------------------------


def test_calibration_finds_the_factors():
    rng = np.random.default_rng(0)
    examples = []
    for _ in range(12):
        sums = {
            "CONV_2D": rng.uniform(2, 10),
            "ADD": rng.uniform(0.1, 1),
            "weight_mb": rng.uniform(1, 9),
        }
        examples.append((sums, 1.4 * sums["CONV_2D"] + sums["ADD"] + 0.2 * sums["weight_mb"]))
    calibration = calibrate(examples)
    assert calibration.factors["CONV_2D"] == pytest.approx(1.4, rel=0.05)
    assert calibration.factors["weight_mb"] == pytest.approx(0.2, rel=0.25)
    for sums, ms in examples:
        assert calibration(sums) == pytest.approx(ms, rel=0.02)
    assert min(calibration.factors.values()) >= 0


def test_networks_timed_while_the_device_was_busy_do_not_bend_the_calibration():
    rng = np.random.default_rng(1)
    truth = {"CONV_2D": 1.2, "DEPTHWISE_CONV_2D": 0.8, "ADD": 1.0}
    examples = []
    for size in rng.uniform(0.2, 1, 40):
        sums = {kind: size * rng.uniform(1, 3) for kind in truth}
        examples.append((sums, sum(truth[kind] * ms for kind, ms in sums.items())))
    quiet, others = examples[:9], examples[9:]
    busy = [(sums, ms * (2 if i in (3, 6) else 1)) for i, (sums, ms) in enumerate(quiet)]

    def worst(calibration):
        return max(abs(calibration(sums) / ms - 1) for sums, ms in others)

    assert worst(calibrate(quiet)) < 0.04
    assert worst(calibrate(busy)) < 0.08


def test_without_examples_latency_is_the_sum():
    assert calibrate([])({"CONV_2D": 2.0, "ADD": 0.5, "weight_mb": 100.0}) == 2.5
    one = calibrate([({"CONV_2D": 2.0, "ADD": 0.5, "weight_mb": 0.0}, 2.5)])
    assert one({"CONV_2D": 4.0, "ADD": 0.5, "weight_mb": 0.0}) == pytest.approx(4.5, rel=1e-3)


def test_foreseen_latency_of_any_plan(blueprint, choices, tmp_path):
    device = MadeUpDevice()
    cost = latency_cost(
        None, LatencyTable(tmp_path / "t.sqlite", device), choices, blueprint=blueprint
    )
    rng = np.random.default_rng(5)
    plans = [random_counts(choices, rng) for _ in range(100)]
    measured = [network_ms(json.loads(blueprint.text(counts))) for counts in plans]
    errors = np.abs(np.array([cost(counts) for counts in plans]) / measured - 1)
    assert np.median(errors) < 0.01 and max(errors) < 0.05
    assert cost.calibration.factors["CONV_2D"] == pytest.approx(SLOWER, rel=0.05)
    assert cost.call_ms == pytest.approx(CALL_MS)
    dense = [int(c[-1]) for c in choices]
    text = describe(cost, dense)
    assert "CONV_2D" in text and "whole networks predicted" in text
    # A correction draws it towards what was measured, and leaves the original alone.
    before = cost(dense)
    corrected = cost.corrected({tuple(c): 2 * ms for c, ms in zip(plans, measured, strict=True)})
    assert 1.5 * before < corrected(dense) < 2 * before
    assert cost(dense) == before


def test_settings_are_checked(tmp_path):
    with pytest.raises(amc_tf.AmcError, match="calibration_plans of at least 0"):
        LatencySettings(calibration_plans=-1)
    with pytest.raises(amc_tf.AmcError, match="made on host and android, received 'gpu'"):
        open_table(LatencySettings(device="gpu"))
    with pytest.raises(amc_tf.AmcError, match="needs the benchmark_model binary"):
        open_table(LatencySettings(device="android:1", table=str(tmp_path / "t.sqlite")))


def test_on_this_host(blueprint, choices, tmp_path):
    """The real thing, small: operators and networks are timed by LiteRT."""
    table = open_table(LatencySettings(table=str(tmp_path / "t.sqlite"), rounds=1))
    dense, small = (blueprint.text([c[i] for c in choices]) for i in (-1, 0))
    times = table.measure(
        [
            dense,
            small,
            blueprint.blocks[0].text(blueprint.blocks[0].point([c[-1] for c in choices])),
        ]
    )
    assert table.call_ms > 0 and times[small] < times[dense]
    assert "ai-edge-litert" in str(table.conditions["runtime"])
    assert "load_average" not in table.conditions
