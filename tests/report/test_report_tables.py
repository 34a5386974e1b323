"""What the report says: read from a run's files, put on a page, compared between runs."""

import html.parser
import json

import hypothesis
import keras
import made_up_run
import pytest
import zoo
from hypothesis import given
from hypothesis import strategies as st

import amc_tf
from amc_tf.report import charts, comparison
from amc_tf.report import html as report_html
from amc_tf.report import rows as report_rows
from amc_tf.report.run import front, read_run, read_runs, settings
from amc_tf.runs.progress import Progress
from amc_tf.search.breakdown import breakdown


@hypothesis.settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_nothing_beats(points):
    episodes = [{"macs_share": x / 6, "score": y / 6} for x, y in points]

    def beaten(a):
        return any(
            b["macs_share"] <= a["macs_share"]
            and b["score"] >= a["score"]
            and (b["macs_share"], b["score"]) != (a["macs_share"], a["score"])
            for b in episodes
        )

    expected = {(e["macs_share"], e["score"]) for e in episodes if not beaten(e)}
    found = [(e["macs_share"], e["score"]) for e in front(episodes, "macs")]
    assert found == sorted(expected)  # each once, the cheapest first
    assert front(episodes, "latency") == []


def test_scalars_of_an_episode():
    progress = Progress({"macs": 200, "params": 50, "latency": 4.0})
    first = {"policy": "amc", "episode": 0, "reward": -0.5, "score": 0.5, "macs": 100}
    assert progress({**first, "params": 10, "latency_ms": 3.0, "sigma": 0.5}) == {
        **{"reward": -0.5, "best_reward": -0.5, "score": 0.5, "noise": 0.5},
        **{"macs_share": 0.5, "params_share": 0.2, "latency_share": 0.75},
    }
    assert progress({**first, "reward": -0.7})["best_reward"] == -0.5
    assert progress({**first, "policy": "random", "reward": -0.6})["best_reward"] == -0.6
    assert "macs_share" not in Progress({})(first)


@pytest.mark.parametrize("name", ["residual", "shared_layers", "depthwise_multiplier"])
def test_costs_by_layer(name):
    """Against Keras' own count of parameters, and the costs of the network that was rebuilt."""
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    keep = {g.name: list(range(-(-g.channels // 2))) for g in graph.groups.values()}
    plan = amc_tf.PruningPlan(keep)
    pruned = amc_tf.rebuild(model, graph, plan)
    told = json.loads(json.dumps(breakdown(graph, {"amc": plan})))
    layers = {layer["name"]: layer for layer in told["layers"]}
    kept = dict(zip(layers, told["plans"]["amc"]["params"], strict=True))
    for net, params in ((model, {n: x["params"] for n, x in layers.items()}), (pruned, kept)):
        expected = {layer.name: layer.count_params() for layer in _leaves(net)}
        assert {n: c for n, c in expected.items() if c} == {n: c for n, c in params.items() if c}
    for counts, network in (
        ([layer["macs"] for layer in layers.values()], model),
        (told["plans"]["amc"]["macs"], pruned),
    ):
        assert sum(counts) == amc_tf.macs(amc_tf.analyze(network))
    assert told["plans"]["amc"]["kept"] == [len(k) for k in keep.values()]
    assert [g["channels"] for g in told["groups"]] == [g.channels for g in graph.groups.values()]


def _leaves(net):
    for layer in net.layers:
        yield from _leaves(layer) if isinstance(layer, keras.Model) else (layer,)


class Reader(html.parser.HTMLParser):
    """Collects the text of a page, and that of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.scripts, self.tags = [], [], []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in = tag
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        (self.scripts if self._in == "script" else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def content(self):
        return json.loads(self.scripts[0])


@pytest.fixture
def run(tmp_path):
    return made_up_run.write(tmp_path / "mine")


def test_the_page_tells_what_the_files_say(run):
    result = json.loads((run / "result.json").read_text())
    shown = Reader(report_html.write_report([run]).read_text())
    for value in (
        f"{result['finetuned']['score']:.2%}",
        f"{result['pruned']['macs'] / result['dense']['macs']:.1%}",
        "amc-search --config=made_up.py --workdir=run",
        "tensorflow 2.21.0",
        "model_int8.tflite: 36,672 of 96,896 bytes",
        "WORSE than the tolerance",
        '"note": "</script><b>&"',
    ):
        assert value in shown.text, value
    log = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    rows = shown.content["data"]["episodes"]
    assert [r["score"] for r in rows] == [r["score"] for r in log]
    (marked,) = [i for i, row in enumerate(rows) if row["shown"]]
    search = json.loads((run / "search.json").read_text())
    assert log[marked]["counts"] == search["plans"]["amc"]["kept"]
    # Marked as worse than the tolerance, it is not called the smallest.
    assert "model_float16.tflite: 31,000" not in shown.text


def test_nothing_is_fetched(run):
    shown = Reader(report_html.write_report([run]).read_text())
    for tag, attributes in shown.tags:
        assert not attributes.keys() & {"src", "srcset", "action"}
        assert tag != "link" or attributes["href"] == "data:,"
    assert len(shown.scripts) >= 3


def test_every_chart_draws_data_that_the_page_has(run):
    for path in (run, made_up_run.write(run / "cut", stage="episodes", latency=False)):
        found = read_run(path)
        data = report_rows.datasets(found)
        for chart in charts.charts(found, data):
            named = set(_names(chart.spec))
            assert named == set(chart.data) and all(data[name] for name in named), chart.name


def _names(spec):
    if isinstance(spec, dict):
        if "data" in spec and "name" in spec["data"]:
            yield spec["data"]["name"]
        for value in spec.values():
            yield from _names(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _names(value)


def test_a_running_search_is_read_and_left_alone(tmp_path):
    run = made_up_run.write(tmp_path / "run", stage="episodes", episodes=5)
    with open(run / "episodes.jsonl", "a") as log:
        log.write('{"policy": "amc", "epi')
    before = (run / "episodes.jsonl").read_bytes()
    found = read_run(run)
    assert len(found.episodes) == 13 and found.chosen is None
    text = Reader(report_html.write_report([run]).read_text()).text
    assert "13 episodes so far" in text
    assert (run / "episodes.jsonl").read_bytes() == before


def test_a_run_of_an_older_version_has_fewer_charts(run):
    (run / "search.json").unlink()
    found = read_run(run)
    names = [chart.name for chart in charts.charts(found, report_rows.datasets(found))]
    assert {"score", "reward"} <= set(names) and "layers" not in names
    assert (
        found.bounds["macs"]
        == json.loads((run / "result.json").read_text())["budget"]["macs"]["bound"]
    )
    report_html.write_report([run])


def test_a_run_of_fine_grained_pruning_alone(tmp_path):
    found = {"density": 0.5, "macs": 500, "params": 60, "before": 0.7, "score": 0.9}
    sparse = {"dense": {"score": 0.95}, "rounds": [{**found, "search_score": 0.8}]}
    result = {"seconds": {"sparsify": 4.0}, "sparse": sparse}
    (tmp_path / "result.json").write_text(json.dumps(result))
    shown = Reader(report_html.write_report([tmp_path]).read_text())
    assert "stages done: sparsify" in shown.text and "sparse/round1.keras" in shown.text
    assert shown.content["charts"] == []


def test_what_is_no_run_is_refused(tmp_path, run):
    (tmp_path / "empty").mkdir()
    for paths, message in (
        ([tmp_path / "absent"], "absent, which is not a folder"),
        ([tmp_path / "empty"], "neither episodes.jsonl nor result.json"),
        ([run, f"{run}/../mine"], "named twice"),
        ([run, tmp_path / "absent"], "not a folder"),
    ):
        with pytest.raises(amc_tf.AmcError, match=message):
            report_html.write_report(paths, tmp_path / "out.html")
    with pytest.raises(amc_tf.AmcError, match="there is no folder"):
        report_html.write_report([run], tmp_path / "new/out.html")
    assert not (tmp_path / "out.html").exists() and not (tmp_path / "absent").exists()
    (run / "result.json").write_text("{")
    with pytest.raises(amc_tf.AmcError, match="result.json is damaged"):
        report_html.write_report([run])


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    paths = [made_up_run.write(tmp_path / a / b, episodes=2) for a, b in ("ax", "bx", "cy")]
    assert [run.name for run in read_runs(paths)] == ["a/x", "b/x", "y"]


def test_a_comparison_names_what_differs(tmp_path):
    runs = read_runs(
        [
            made_up_run.write(tmp_path / "a"),
            made_up_run.write(tmp_path / "b", seed=3, latency=False, stage="search"),
        ]
    )
    reached, differing = comparison.tables(runs)
    assert reached.rows[0][:2] == ("a", "made_up_net") and reached.rows[0][-3] == "36,672 bytes"
    assert differing.rows == [("budget.latency", "0.5", ""), ("search.seed", "0", "3")]
    best = comparison.datasets(runs)["best"]
    for run in runs:
        rewards = [e["reward"] for e in run.episodes]
        mine = [row for row in best if row["run"] == run.name]
        for row in mine:
            assert row["best"] == max(rewards[: row["evaluations"]])
        assert mine[-1]["evaluations"] == len(rewards)


def test_settings_on_one_level():
    nested = {"budget": {"macs": 0.5}, "search": {"ddpg": {"gamma": 1.0}, "freeze": {}}, "x": None}
    assert settings(nested) == {
        **{"budget.macs": 0.5, "search.ddpg.gamma": 1.0, "search.freeze": {}, "x": None}
    }


def test_rewards_of_different_kinds_are_not_compared(tmp_path):
    folders = [made_up_run.write(tmp_path / name, seed=n) for n, name in enumerate("ab")]
    runs = read_runs(folders)
    assert [run.reward for run in runs] == ["err", "err"]  # of the settings
    names = [c.name for c in comparison.charts(runs, comparison.datasets(runs))]
    assert names == ["fronts", "progress"]
    path = folders[0] / "search.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reward": "divergence"}))
    runs = read_runs(folders)
    assert [run.reward for run in runs] == ["divergence", "err"]  # what was used, where it is known
    names = [c.name for c in comparison.charts(runs, comparison.datasets(runs))]
    assert names == ["fronts"]
