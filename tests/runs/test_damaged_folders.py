"""Every kind of damage to every JSON file of a run ends in one sentence, whatever reads it."""

import contextlib
import copy
import json
import shutil

import blobs
import keras
import made_up_run
import marks
import pytest

import amc_tf
from amc_tf import files
from amc_tf.graph.plan import PruningPlan
from amc_tf.report import html
from amc_tf.runs import forms, layout
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.runs.result import ExportResult, RunResult, SparseResult
from amc_tf.runs.workdir import Workdir
from amc_tf.search import plan_search
from amc_tf.search.agents.random import RandomSearcher
from amc_tf.sparsity.plan import DensityPlan


def _text(content):
    return lambda path: path.write_text(content)


def _part(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def _folder(path):
    path.unlink()
    path.mkdir()


# Damage that leaves nothing of what any JSON file of a run holds.
_DAMAGES = {
    "empty": _part(0),
    "half": _part(0.5),
    "null": _text("null"),
    "list": _text("[]"),
    "number": _text("17"),
    "text": _text('"accuracy"'),
    "deep": _text('{"a":' * 50_000),
    "deep and whole": _text("[" * 50_000 + "]" * 50_000),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 10),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "digits": _text('{"seed": ' + "9" * 10_000 + "}"),
    "folder": _folder,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an invented run, with the files that only a search or a `fit` reads."""
    folder = made_up_run.write(tmp_path_factory.mktemp("whole") / "run", episodes=3)
    files.write_json(folder / layout.HISTORY, {"epoch": [0], "history": {"loss": [0.5]}})
    content = {"criterion": "l1", "scores": {"stem": [0.5, 0.25]}}
    files.write_json(folder / layout.IMPORTANCE, files.sealed(content))
    shutil.copy(folder / layout.EPISODES, folder / layout.finals_file())
    PruningPlan({"stem": [0, 2]}).save(folder / layout.PLAN)
    DensityPlan({"stem/kernel": 3}).save(folder / layout.round_plan(1))
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def _form(name):
    return lambda folder: Workdir(folder).read_json(name, {})


def _report(folder):
    return html.write_report([folder])


# All that reads a file of a run.
_DOORS = {
    layout.CONFIG: (
        _report,
        _form(layout.CONFIG),
    ),
    layout.RESULT: (_report, RunResult.read, SparseResult.read, ExportResult.read),
    layout.SEARCH: (_report,),
    layout.LATENCY: (_report, _form(layout.LATENCY)),
    layout.EPISODES: (_report, lambda folder: EpisodeLog(folder / layout.EPISODES)),
    layout.finals_file(): (lambda folder: EpisodeLog(folder / layout.finals_file()),),
    layout.HISTORY: (_form(layout.HISTORY),),
    layout.IMPORTANCE: (_form(layout.IMPORTANCE),),
    layout.PLAN: (lambda folder: PruningPlan.load(folder / layout.PLAN),),
    layout.round_plan(1): (lambda folder: DensityPlan.load(folder / layout.round_plan(1)),),
}


def _assert_told(call, folder, name):
    with pytest.raises(amc_tf.AmcError) as told:
        call(folder)
    sentence = str(told.value)
    assert str(folder / name) in sentence
    assert "\n" not in sentence and len(sentence) < 600
    assert ";" in sentence or ":" in sentence  # the remedy, or what was expected


@pytest.mark.parametrize("damage", _DAMAGES)
@pytest.mark.parametrize("name", _DOORS)
def test_a_damaged_file_is_one_sentence(run, name, damage):
    for door in _DOORS[name][:1]:
        if name not in (layout.HISTORY,):
            door(run)  # as it was, it can be read
    _DAMAGES[damage](run / name)
    logs = (layout.EPISODES, layout.finals_file())
    if name in logs and damage in ("empty", "null", "list", "number", "text", "deep", "digits"):
        # An episode that is cut off is run again: the last line is not there yet.
        damaged = run / name
        damaged.write_text(damaged.read_text() + "\n")
    for door in _DOORS[name]:
        if name in logs and damage in ("empty", "half", "deep and whole", "zeros"):
            continue
        _assert_told(door, run, name)


# --- single values of another type -----------------------------------------------------------

_VALUES = [None, [], {}, "text", -1, 10**30, float("nan"), float("inf"), True, [[[]]], {"a": {}}]


def _places(content, path=()):
    """Every place in a JSON value, but only the first of a list's entries, or of many objects."""
    yield path
    if isinstance(content, dict):
        alike = len(content) > 3 and all(isinstance(value, dict) for value in content.values())
        for key in [*content][: 1 if alike else None]:
            yield from _places(content[key], (*path, key))
    elif isinstance(content, list) and content:
        yield from _places(content[0], (*path, 0))


def _changed(content, path, value):
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


def _removed(content, path):
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return content


@pytest.mark.parametrize("name", [layout.CONFIG, layout.RESULT, layout.SEARCH, layout.LATENCY])
def test_any_value_of_another_type_is_one_sentence_or_harmless(run, name, monkeypatch):
    """The page is written, or a sentence names the file: for every value of every file."""
    from amc_tf.report import page

    # What the page looks like does not depend on these files, but takes most of the time.
    monkeypatch.setattr(page, "page", lambda title, parts, data: json.dumps(data) + str(parts))
    content = json.loads((run / name).read_text())
    told = 0
    for path in _places(content):
        versions = [_changed(content, path, value) for value in _VALUES]
        for version in [*versions, *([_removed(content, path)] if path else [])]:
            (run / name).write_text(json.dumps(version))
            try:
                html.write_report([run])
            except amc_tf.AmcError as error:
                told += 1
                assert str(run / name) in str(error), (path, version, str(error))
                assert "\n" not in str(error)
            except Exception as error:
                raise AssertionError(f"{name}: {path} raised {error!r} in {version}") from error
    assert told > len(_VALUES)


@pytest.mark.parametrize("value", _VALUES, ids=repr)
@pytest.mark.parametrize("key", ["policy", "episode", "counts", "score", "reward", "macs"])
def test_an_episode_with_a_value_of_another_type(run, key, value):
    path = run / layout.EPISODES
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps({**json.loads(first), key: value}) + "\n" + "".join(rest))
    try:
        html.write_report([run])
        EpisodeLog(path).best(3)
    except amc_tf.AmcError as error:
        assert f"line 1 of {path} is not an episode" in str(error)


# --- runs that go on -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched") / "run"
    with pytest.MonkeyPatch.context() as patch:
        _search(folder, patch)
    return folder


def _search(folder, patch):
    """A search without its agent, which would take seconds to start."""
    patch.setattr(plan_search, "DdpgSearcher", lambda *_: contextlib.nullcontext(RandomSearcher(0)))
    settings = blobs.search_settings(policies=("uniform",), final_refit="in_order")
    keras.utils.set_random_seed(0)
    net = blobs.model()
    blobs.compile_model(net)
    return amc_tf.search_plan(net, blobs.task(), amc_tf.Budget(macs=0.5), folder, settings)


@pytest.mark.parametrize("name", [layout.IMPORTANCE, layout.EPISODES, layout.finals_file()])
@pytest.mark.parametrize("damage", marks.slow_but(["null", "binary", "folder"], ["null"]))
def test_a_search_in_a_damaged_folder(searched, tmp_path, monkeypatch, name, damage):
    folder = shutil.copytree(searched, tmp_path / "run")
    _DAMAGES[damage](folder / name)
    if damage == "null" and name != layout.IMPORTANCE:
        (folder / name).write_text("null\n")
    _assert_told(lambda folder: _search(folder, monkeypatch), folder, name)


@pytest.mark.parametrize("name", [layout.CONFIG, layout.RESULT])
@pytest.mark.parametrize(
    "damage", marks.slow_but(["null", "list", "deep", "binary", "folder"], ["null", "deep"])
)
def test_a_compression_in_a_damaged_folder(tmp_path, name, damage):
    net = blobs.model()
    blobs.compile_model(net)
    settings = amc_tf.Settings(rehearse=False, search=blobs.search_settings())
    given = (net, blobs.task(), amc_tf.Budget(macs=0.5), tmp_path, settings)
    amc_tf.Compression(*given)
    (tmp_path / layout.RESULT).write_text("{}")
    _DAMAGES[damage](tmp_path / name)
    _assert_told(lambda _: amc_tf.Compression(*given).run(), tmp_path, name)


def test_forms_name_every_json_file_but_results_and_plans():
    named = {value for value in vars(layout).values() if str(value).endswith(".json")}
    others = {layout.RESULT, layout.PLAN, layout.BEST_PLANS}  # nothing reads the last one
    assert set(forms._FORMS) == {n for n in named - others if not layout.is_importance(n)}


# --- links -----------------------------------------------------------------------------------


def test_a_link_in_the_place_of_a_file_leads_nowhere(run, tmp_path):
    """What a run writes stays in its folder, though the folder came from elsewhere."""
    kept = tmp_path / "kept"
    kept.write_text("kept")
    for name in (".report.partial.html", layout.REPORT, layout.PROBE, ".result.partial.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(kept)
    page = html.write_report([run])
    assert page.read_text().startswith("<!") and not page.is_symlink()
    folder = Workdir(run)
    folder.update_result(seed=3)
    assert folder.result.seed == 3
    for name in (layout.LOCK, layout.EPISODES):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(tmp_path / "absent")
    with pytest.raises(amc_tf.AmcError, match=r"\.lock cannot be written: .*links"):
        folder.locked().__enter__()
    log = EpisodeLog(run / layout.EPISODES)
    record = {"policy": "amc", "episode": 0, "counts": [1], "score": 0.5, "reward": -0.5}
    with pytest.raises(amc_tf.AmcError, match=r"episodes.jsonl cannot be written: .*links"):
        log.add(record)
    assert kept.read_text() == "kept"
    assert not (tmp_path / "absent").exists()


def test_a_partial_file_is_new_and_has_the_usual_permissions(tmp_path):
    with files.replacing(tmp_path / "a.json") as partial:
        assert partial.read_bytes() == b""
        partial.write_text("new")
    (tmp_path / "usual").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / ".a.partial.json").mkdir()
    with pytest.raises(amc_tf.AmcError, match=r"a.json cannot be written: Is a directory"):
        files.write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").read_text() == "new"
