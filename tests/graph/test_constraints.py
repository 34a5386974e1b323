"""Wishes for single layers: checked against the graph, and kept by every plan."""

import dataclasses
import json

import blobs
import keras
import numpy as np
import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl
from ml_collections import config_flags

import amc_tf
from amc_tf.graph.constraints import Constraints
from amc_tf.pipeline import config as experiment
from amc_tf.search.problem import environment, problem_of


def _model():
    """stem (16) and the residual branch block1_b (16) are one group; block1_a, head are others."""
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(16, 3, padding="same", name="stem")(x)
    y = kl.Conv2D(24, 3, padding="same", name="block1_a")(x)
    y = kl.Conv2D(16, 3, padding="same", name="block1_b")(y)
    x = kl.Add(name="block1_add")([x, y])
    x = kl.Conv2D(40, 3, padding="same", name="head")(x)
    x = kl.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, kl.Dense(5, name="logits")(x), name="net")


@pytest.fixture(scope="module")
def model():
    return _model()


def _env(model, constraints, macs=0.5, **changes):
    values = {"rounding": 1, "min_preserve": 0.2, **changes}
    search = amc_tf.SearchSettings(constraints=constraints, **values)
    problem = problem_of(constraints.analyze(model), search)
    return environment(problem, amc_tf.Budget(macs=macs), search)


def test_without_constraints_nothing_changes(model):
    assert list(Constraints().analyze(model).groups) == list(amc_tf.analyze(model).groups)
    assert list(amc_tf.analyze(model).groups) == ["stem", "block1_a", "head"]


@pytest.mark.parametrize(
    "freeze, left",
    [
        (("block1_a",), ["stem", "head"]),
        (("block1_b",), ["block1_a", "head"]),  # it shares its channels with stem
        (("block1_add",), ["block1_a", "head"]),  # as does the sum
        (("block1_*",), ["head"]),
        (("stem", "hea[d]"), ["block1_a"]),
    ],
)
def test_frozen_layers_are_no_choice(model, freeze, left):
    constraints = Constraints(freeze=freeze)
    env, graph = _env(model, constraints, macs=0.9), constraints.analyze(model)
    assert list(graph.groups) == left
    env.reset()
    for _ in left:
        env.step(0.5)
    rebuilt = amc_tf.rebuild(model, graph, env.finish().plan)
    for name in ("stem", "block1_a", "block1_b", "head"):
        size = rebuilt.get_layer(name).filters
        frozen = not any(name in group.producers for group in graph.groups.values())
        assert (size == model.get_layer(name).filters) == frozen


def test_values_of_groups_by_hand(model):
    constraints = Constraints(
        min_preserve={"*": 0.5, "block1_b": 0.75, "head": 0.1}, rounding=(("h*", 5), ("head", 20))
    )
    graph = constraints.analyze(model)
    # The last that matches: block1_b is a producer of the group stem; * of them all.
    assert constraints.min_preserves(graph, 0.2) == [0.75, 0.5, 0.1]
    assert constraints.roundings(graph, 8) == [8, 8, 20]
    env = _env(model, constraints, rounding=8, macs=0.7)
    assert [c.tolist() for c in env.choices] == [[16], [16, 24], [20, 40]]
    turned = Constraints(min_preserve=(("head", 0.1), ("*", 0.5)))
    assert turned.min_preserves(graph, 0.2) == [0.5, 0.5, 0.5]
    assert Constraints(rounding={"head": 2}).min_preserves(graph, 0.2) == [0.2, 0.2, 0.2]


@settings(max_examples=25, deadline=None)
@given(
    least=st.sampled_from([0.3, 0.6, 1.0]),
    multiple=st.sampled_from([3, 7]),
    share=st.floats(0.55, 1.0),
    actions=st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_every_plan_keeps_the_constraints(model, least, multiple, share, actions):
    constraints = Constraints(min_preserve={"block1_a": least}, rounding={"head": multiple})
    env = _env(model, constraints, share)
    env.reset()
    for action in actions:
        env.step(action)
    for counts in (env.finish().counts, np.rint(np.array(env.fitted([0.5] * 3)) * [16, 24, 40])):
        assert counts[1] >= least * 24
        assert counts[2] % multiple == 0 or counts[2] == 40
        assert env.meets(counts)


def test_a_budget_out_of_reach_names_the_least(model):
    constraints = Constraints(freeze=("stem",), min_preserve={"block1_a": 0.75})
    # 64 positions, 3 x 3 kernels: 16 channels stay, 18 of 24, 8 of 40.
    least = 64 * 9 * (3 * 16 + 16 * 18 + 18 * 16 + 16 * 8) + 8 * 5
    with pytest.raises(amc_tf.AmcError, match=f"smallest reachable is {least:,}"):
        _env(model, constraints, macs=0.3)
    assert _env(model, constraints, macs=float(least)).bounds["macs"] == least


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"freeze": ("sten",)}, "constraints.freeze: no layer's name matches 'sten'.*'stem'"),
        ({"freeze": ("blok1_*",)}, "did you mean 'block1_"),
        ({"freeze": ("decoder",)}, "amc-inspect lists them"),
        ({"freeze": ("logits",)}, "'logits' matches only logits, whose channels are not pruned"),
        ({"min_preserve": {"haed": 0.5}}, "min_preserve: no layer's name matches 'haed'.*'head'"),
        ({"rounding": {"pool": 4}}, "rounding: 'pool' matches only pool, which makes no channels"),
        ({"min_preserve": {"logits": 0.5}}, "which makes no channels that can be pruned"),
        (
            {"freeze": ("h*",), "rounding": {"head": 4}},
            "'head' matches only head, whose channels constraints.freeze keeps already",
        ),
    ],
)
def test_patterns_are_checked_against_the_graph(model, wishes, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        Constraints(**wishes).analyze(model)


def test_all_frozen_is_told(model):
    with pytest.raises(amc_tf.AmcError, match="no prunable group that is not frozen"):
        _env(model, Constraints(freeze=("*",)))


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"freeze": "stem"}, "freeze: expected a tuple of layer names"),
        ({"freeze": (3,)}, "freeze: expected a tuple of layer names"),
        ({"min_preserve": {"a": 0}}, r"min_preserve: expected a ratio in \(0, 1\], received 0"),
        ({"min_preserve": {"a": 1.01}}, "received 1.01 for 'a'"),
        ({"min_preserve": {"a": float("nan")}}, "received nan"),
        ({"min_preserve": {"a": "half"}}, "received 'half'"),
        ({"min_preserve": ("a", 0.5)}, r"pairs such as \(\('block_1\*', 0.5\),\)"),
        ({"min_preserve": 0.5}, "pairs such as"),
        ({"rounding": {"a": 0}}, "rounding: expected a whole number of at least 1"),
        ({"rounding": {"a": 2.5}}, "received 2.5"),
        ({"rounding": {"a": True}}, "received True"),
    ],
)
def test_wrong_values(wishes, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        Constraints(**wishes)


def test_both_forms_are_one_and_survive_json():
    by_name = Constraints(["a"], {"b": 0.5, "c": 1}, {"d": 4})
    pairs = Constraints(("a",), (("b", 0.5), ("c", 1)), [["d", 4]])
    assert by_name == pairs and hash(by_name) == hash(pairs)
    record = json.loads(json.dumps(dataclasses.asdict(by_name)))
    assert Constraints(**record) == by_name


def test_configuration_and_command_line():
    config = amc_tf.default_config()
    assert config.search.constraints.to_dict() == {"freeze": (), "min_preserve": (), "rounding": ()}
    config.search.constraints.freeze = ("stem",)
    values = flags.FlagValues()
    arguments = [
        "amc-search",
        "--config.search.importance=producer_l2",
        '--config.search.constraints.min_preserve=(("block1_a", 0.5), ("head", 0.75))',
        '--config.search.constraints.rounding=(("head", 4),)',
    ]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=arguments)
    values(arguments)
    parsed = values.config
    found = experiment.section(amc_tf.SearchSettings, parsed.search)
    assert found.importance == "producer_l2"
    assert found.constraints == Constraints(("stem",), {"block1_a": 0.5, "head": 0.75}, {"head": 4})
    with pytest.raises(AttributeError, match="freeze"):
        config.search.constraints.freze = ("stem",)


@pytest.mark.slow
def test_a_run_keeps_its_constraints(tmp_path):
    """Through the search to the rebuilt file; another wish is another run."""
    net = blobs.trained(1)

    def run(workdir, **wishes):
        search = blobs.search_settings(
            constraints=Constraints(**wishes), importance="geometric_median", episodes=2
        )
        budget = amc_tf.Budget(params=0.9)
        return amc_tf.Compression(
            net, blobs.task(), budget, workdir, amc_tf.Settings(rehearse=False, search=search)
        )

    compression = run(tmp_path, freeze=("stem",), min_preserve={"hidden": 0.75})
    assert set(compression.graph.groups) == {"hidden"}
    found = compression.search()
    for name, outcome in found.best.items():
        pruned = keras.models.load_model(tmp_path / f"plans/{name}.keras")
        assert pruned.get_layer("stem").filters == 8
        assert pruned.get_layer("hidden").units == len(outcome.plan.keep["hidden"])
        assert 9 <= pruned.get_layer("hidden").units <= 10  # 11 would be over the budget
    with pytest.raises(amc_tf.AmcError, match="search.constraints.min_preserve"):
        run(tmp_path, freeze=("stem",), min_preserve={"hidden": 0.5})
    with pytest.raises(amc_tf.AmcError, match="did you mean 'hidden'"):
        run(tmp_path / "other", freeze=("hiden",))
    assert not (tmp_path / "other").exists()
