"""What the benchmark scripts share: clocks, comparisons, settings, images, sections of results."""

from __future__ import annotations

import json
import time

import keras
import numpy as np
import pytest

import amc_tf
from amc_tf.pruning.refit.methods import REFITS
from benchmarks.common import record
from benchmarks.common.cases import Case
from benchmarks.common.clock import SearchClock
from benchmarks.common.comparison import (
    best_so_far,
    median,
    ratio,
    reached,
    scored_seconds,
    seconds_alone,
)
from benchmarks.common.image_folder import images_of
from benchmarks.common.overrides import overridden
from benchmarks.common.yardstick import REFIT, Yardstick
from benchmarks.report import __main__ as report
from benchmarks.report import searching


class Session:
    """A search that ends its episodes at given seconds, on a clock of its own."""

    def __init__(self, folder):
        self.log, self.seconds = folder / "episodes.jsonl", 100.0
        self.clock = SearchClock(self.log, folder / "clock.json", now=lambda: self.seconds)

    def episode(self, at: float, seconds: float) -> None:
        """Ends an episode `at` seconds after the session began."""
        self.seconds = 100.0 + at
        with open(self.log, "a") as file:
            file.write(json.dumps({"seconds": seconds}) + "\n")
        lines = self.log.read_text().count("\n")
        until = time.monotonic() + 10
        while len(self.clock.ends) < lines and time.monotonic() < until:
            time.sleep(0.01)


def test_clock_of_a_search(tmp_path):
    session = Session(tmp_path)
    with session.clock as clock:
        session.episode(at=10, seconds=4)
        session.episode(at=15, seconds=4.5)
        session.seconds = 120
    assert clock.set_up == 6
    assert clock.ends == [10, 15]
    assert clock.whole == 20


def test_clock_stands_still_while_a_resumed_search_repeats(tmp_path):
    first = Session(tmp_path)
    with first.clock:
        first.episode(at=10, seconds=4)
        first.episode(at=15, seconds=4.5)
    second = Session(tmp_path)
    with second.clock as clock:
        # 17 seconds of set-up and known episodes, then one of 3 seconds.
        second.episode(at=20, seconds=3)
        second.episode(at=26, seconds=5)
        second.seconds = 130
    assert clock.set_up == 6
    assert clock.ends == [10, 15, 18, 24]
    assert clock.whole == 28


def test_best_so_far_leaves_out_scores_that_were_cut():
    rewards = [0.3, 0.2, 0.9, 0.3, 0.5, 0.4]
    episodes = [{"reward": r, "number": n} for n, r in enumerate(rewards)]
    episodes[2]["cut"] = True
    found = best_so_far(episodes, [1, 2, 3, 4, 5, 6])
    assert [(seconds, e["number"]) for seconds, e in found] == [(1, 0), (5, 4)]


def test_episodes_with_a_known_plan_are_not_timed():
    rows = [("uniform", [4, 4], 3), ("amc", [4, 4], 0), ("amc", [2, 4], 5), ("amc", [2, 4], 0.1)]
    episodes = [{"policy": p, "counts": c, "seconds": s} for p, c, s in rows]
    assert scored_seconds(episodes, "amc") == [5]
    # Alone it would have scored the first plan, too, once.
    assert seconds_alone(episodes, "amc") == [3, 5, 0.1]
    assert seconds_alone([*episodes, episodes[1]], "amc") == [3, 5, 0.1, 0]


def test_reached_scores_no_plan_after_the_first_that_is_as_good():
    accuracies, asked = {"a": 0.5, "b": 0.7, "c": 0.9}, []

    def accuracy(plan):
        asked.append(plan)
        return accuracies[plan]

    assert reached([(1, "a"), (2, "b"), (3, "c")], accuracy, 0.7) == 2
    assert asked == ["a", "b"]
    assert reached([(1, "a"), (2, "b")], accuracy, 0.8) is None


def test_never_is_above_every_number():
    assert median([None, 0.25, 0.5]) == 0.5
    assert median([None, None, 0.5]) is None
    assert median([0.25, 0.5]) == 0.375
    assert ratio(1, 3) == 0.3333
    assert ratio(None, 3) is None


def test_settings_are_changed_by_texts():
    changes = ["response_share=0.5", "ddpg.sigma=0.25", "importance=elimination", "early_stop=None"]
    settings = overridden(amc_tf.SearchSettings(early_stop=2.0), changes)
    expected = amc_tf.SearchSettings(
        response_share=0.5,
        importance="elimination",
        early_stop=None,
        ddpg=amc_tf.DdpgSettings(sigma=0.25),
    )
    assert settings == expected


def test_changes_are_checked_together():
    # Without sensitivity the policy knapsack, one of the default ones, is refused.
    changes = ["sensitivity=False", "ddpg.sigma=0.25", "policies=('amc',)", "ddpg.gamma=0.5"]
    expected = amc_tf.SearchSettings(
        sensitivity=False, policies=("amc",), ddpg=amc_tf.DdpgSettings(sigma=0.25, gamma=0.5)
    )
    assert overridden(amc_tf.SearchSettings(), changes) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("episodes", "FIELD=VALUE, received 'episodes'"),
        ("episode=3", "unknown field of SearchSettings 'episode'; choose one of 'episodes'"),
        ("ddpg.sigmas=1", "unknown field of DdpgSettings 'sigmas'"),
    ],
)
def test_a_wrong_change_is_told(change, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        overridden(amc_tf.SearchSettings(), [change])


def small_case(classes: int = 4, first_label: int = 0) -> Case:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes),
        ]
    )
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (96, 8, 8, 3)).astype("float32")
    labels = model.predict(images[:32], verbose=0).argmax(1)
    labels[::4] = (labels[::4] + 1) % classes  # a quarter is wrong by the dense network
    data = images[:32], labels
    return Case(model, data, images[32:], data, 1, 16, first_label)


def test_yardstick_is_the_accuracy_of_the_rebuilt_network(tmp_path):
    case = small_case()
    graph = amc_tf.analyze(case.model)
    plan = amc_tf.PruningPlan({name: range(4) for name in graph.groups})
    weights = REFITS[REFIT](graph, [case.calibration], 1).refit(plan)
    rebuilt = amc_tf.rebuild(case.model, graph, plan, weights)
    expected = rebuilt.predict(case.test[0], verbose=0).argmax(1) == case.test[1]

    judge = Yardstick(graph, case, seed=1, kept=tmp_path / "kept.json")
    assert judge.accuracy(None) == 0.75
    assert judge.right(plan).tolist() == expected.tolist()
    again = Yardstick(graph, case, seed=1, kept=tmp_path / "kept.json")
    again._score = None  # whatever is known is not scored again
    assert again.right(plan).tolist() == expected.tolist()


def write_images(root, names):
    """Writes an image of one brightness a class, the number of the class times ten."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        keras.utils.save_img(
            root / name / "0.png", np.full((8, 8, 3), 10 * number), data_format=None, scale=False
        )


def read(data) -> dict[int, int]:
    """Brightness to label."""
    batches = [(x.numpy(), y.numpy()) for x, y in data]
    return {int(x[0, 0, 0]): int(y) for xs, ys in batches for x, y in zip(xs, ys, strict=True)}


def test_folders_in_order_are_the_classes(tmp_path):
    write_images(tmp_path / "images", ["n01", "n02", "n03"])
    data, count = images_of(tmp_path / "images", None, small_case(first_label=1))
    assert count == 3
    assert read(data) == {0: 1, 10: 2, 20: 3}


def test_labels_of_folders_are_read_from_a_file(tmp_path):
    write_images(tmp_path / "images", ["cat", "wild dog"])
    labels = tmp_path / "labels.txt"
    labels.write_text("wild dog 0\ncat 3\nno folder 1\n")
    data, count = images_of(tmp_path / "images", labels, small_case())
    assert count == 2
    assert read(data) == {0: 3, 10: 0}


def test_folders_that_do_not_fit_the_classes_are_told(tmp_path):
    write_images(tmp_path / "images", ["cat", "dog"])
    with pytest.raises(amc_tf.AmcError, match=r"expected 4 folders.* received 2; .*--labels"):
        images_of(tmp_path / "images", None, small_case())
    labels = tmp_path / "labels.txt"
    labels.write_text("cat 1\n")
    with pytest.raises(amc_tf.AmcError, match="no label of 'dog'"):
        images_of(tmp_path / "images", labels, small_case())
    labels.write_text("cat 1\ndog 4\n")
    with pytest.raises(amc_tf.AmcError, match="line 2 .* label below 4, received 'dog 4'"):
        images_of(tmp_path / "images", labels, small_case())


ABOUT = {"command": "python benchmarks/x.py", "machine": "a", "versions": {"python": "3"}}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder of results; a call adds an entry."""
    here = tmp_path / "benchmarks"
    (here / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text("nothing to fill\n")
    monkeypatch.setattr(record, "HERE", here)

    def add(name, **entry):
        with open(here / "results" / f"{name}.jsonl", "a") as file:
            file.write(json.dumps({**ABOUT, **entry}) + "\n")

    return add


def facts(seconds: float, episode: float) -> dict:
    return {"seconds": seconds, "episode_seconds": episode}


def test_sections_are_written_of_what_has_results(results, tmp_path):
    seed = {
        "seed": 0,
        "episode_ratio": 0.25,
        "time_to_equal_ratio": None,
        "peak_memory_ratio": 1.125,
        "accuracy": 0.91,
        "base_accuracy": 0.9,
        "better_by": [0.01, -0.002, 0.022],
        "one_shot": {"uniform": 0.85, "knapsack": 0.88},
        "ours": facts(1000, 1.5),
        "base": facts(2000, 6),
    }
    medians = {key: seed[key] for key in list(seed)[1:6]}
    results(
        "versus",
        **{"commit": "1234567890", "base_commit": "abcdefabcd", "uncommitted_changes": False},
        **{"network": "resnet56", "macs": 0.5, "episodes": None, "dense_accuracy": 0.93},
        **{"seeds": [seed], **medians, "floor_ratio": 1.5},
    )
    report.main()
    page = (record.HERE / "RESULTS.md").read_text()
    assert "1234567 (ours) beside abcdefa (base)" in page
    assert (
        "| resnet56, 50% MACs | 0 | 1.50 / 6.00 | 0.25 | never | 1,000 / 2,000 | 1.12 |  | "
        "91.00% / 90.00% | +1.00% (-0.20% to +2.20%) | uniform 85.00%, knapsack 88.00% |" in page
    )
    assert (
        "| resnet56, 50% MACs | median |  | 0.25 | never |  | 1.12 | 1.50 | 91.00% / 90.00% |  | "
        "dense 93.00% |" in page
    )
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles == ["## The search beside an older one"]


def test_rules_are_listed_the_best_first(results):
    row = {"importance": "elimination", "macs_ratio": 0.4998, "importance_cpu_seconds": 3.0}
    worse = {"rule": "uniform", "accuracy": 0.6, "accuracies": [0.59, 0.61], "interval": [0.5, 0.7]}
    better = {"rule": "knapsack", "accuracy": 0.7, "accuracies": [0.7], "interval": [0.6, 0.8]}
    results(
        "allocations",
        **{"network": "mobilenet_v1", "macs": 0.5, "set": ["min_preserve=0.1"]},
        dense_accuracy=0.78,
        rows=[{**row, **worse, "rule_cpu_seconds": 0}, {**row, **better, "rule_cpu_seconds": 9.5}],
    )
    lines = searching.allocations({}).splitlines()
    first = next(number for number, line in enumerate(lines) if "knapsack" in line)
    assert lines[first] == (
        "| mobilenet_v1, 50% MACs, min_preserve=0.1 | elimination | knapsack | 70.00% | 70.00% to "
        "70.00% | 60.0% to 80.0% | 50.0% | 9.5 + 3.0 |"
    )
    assert "| uniform | 60.00% | 59.00% to 61.00% |" in lines[first + 1]


def test_searchers_of_different_commands_and_seeds_are_joined(results):
    def entry(policy, seeds, scores):
        seconds = [1234] * len(seeds)
        listed = {"score": scores, "reward": [s - 1 for s in scores], "seconds": seconds}
        found = {
            "set_up_seconds": 20,
            "validation_images": 5000,
            "best_after": {policy: {"40": listed}},
            "last": {policy: [-0.5] * len(seeds)},
        }
        about = {"macs": 0.5, "episodes": 40, "seeds": seeds, "set": []}
        names = {"names": ["resnet56"], "policies": [policy]}
        results("searchers", **about, **names, networks={"resnet56": found})

    entry("ddpg", [0, 1], [0.5, 0.5])
    entry("cmaes", [0, 1], [0.79, 0.81])
    entry("ddpg", [0, 1], [0.6, 0.8])  # again: it takes the first one's place
    entry("ddpg", [2], [0.625])
    page = searching.searchers({})
    row = "| resnet56, 50% MACs | {} | 40 | {} | {} | {} | -0.500 | 1,234 |"
    three = row.format("ddpg", 3, "62.50% (60.00% to 80.00%)", "-0.375 (-0.400 to -0.200)")
    two = row.format("cmaes", 2, "80.00% (79.00% to 81.00%)", "-0.200 (-0.210 to -0.190)")
    assert three in page
    assert two in page
    assert "50.00%" not in page
    assert page.count("| ddpg |") == 1
