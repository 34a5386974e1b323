"""README, CONTRIBUTING and docs/: every command and piece of code is run, every name is real."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import shlex
import shutil
import subprocess

import commands
import ml_collections
import pytest
from packaging.requirements import Requirement
from phone import Bench, adb_server
from places import HELPERS, ROOT

import amc_tf

__all__ = ["adb_server"]
TEST_COMMANDS = (ROOT / "tests/cli/test_commands.py").read_text()
# In the order in which README names them: later pages use what the commands of earlier ones made.
PAGES = re.findall(r"\]\((docs/[^)]+\.md)\)", (ROOT / "README.md").read_text())
DOCUMENTS = ("README.md", *PAGES, "CONTRIBUTING.md")

# Added to the commands, for results in seconds: what is shown is how they are called.
TINY_RUN = {
    "rehearse": "False",
    "search.episodes": "2",
    "search.ddpg.warmup_episodes": "1",
    "search.policies": '("uniform",)',
    "search.rerank": "1",
    "finetune.compare": "()",
    "export.latency_rounds": "1",
    "export.latency_min_secs": "0.01",
    "epochs": "1",
    "fine_tune_epochs": "1",
}
FEWER_DIGITS = ("x, y = mnist_data()", "x, y = (part[::10] for part in mnist_data())")
TINY_TIMING = ["--rounds=1", "--num_runs=1", "--min_secs=0", "--warmup_min_secs=0", "--noreference"]
TINY_TABLE = ["--rounds=1", "--calibration_plans=0", "--config.search.min_preserve=1.0"]
# They run until they are stopped.
SERVERS = ("tensorboard",)
# test_commands.py runs these in the same form, --config and --workdir, one after another.
STAGES = ("amc-search", "amc-finetune", "amc-export", "amc-sparsify")
# Replaced in the code, for the same reason.
TINY_CODE = {
    "epochs=30": "epochs=1",
    'workdir="runs/mine")': 'workdir="runs/mine", settings=tiny)',
}
# A stand-in for a model of amc-sparsify, from the run beside it.
SPARSE = """
import keras, numpy as np
model = keras.saving.load_model("runs/mnist/dense.keras", compile=False)
for weight in model.trainable_variables:
    values = weight.numpy()
    if values.ndim > 1:
        weight.assign(values * (np.abs(values) > np.quantile(np.abs(values), 0.8)))
model.save("{}")
"""
# Whole scripts, which test_recipes_page.py runs as they stand.
SCRIPTS = ("docs/recipes.md",)
# What a page takes from a run of the reader's.
MADE = {
    "docs/apps.md": """
import os, pathlib, tflite_tools
os.makedirs("runs/mine", exist_ok=True)
file = tflite_tools.convert(model, "int8", [x[None] for x in x_train])
pathlib.Path("runs/mine/model_int8.tflite").write_bytes(file)
""",
}
# What the code of the documents takes as the reader's own.
PRELUDE = f"""
import sys; sys.path.insert(0, {str(HELPERS)!r})
import amc_tf, blobs, dataclasses, keras
model = blobs.trained(epochs=1)
(x_train, y_train), (x_val, y_val), (x_test, y_test) = map(blobs.data, (200, 100, 100), (0, 1, 2))
pictures = x_train
tiny = amc_tf.Settings(
    rehearse=False,
    search=blobs.search_settings(episodes=2, policies=()),
    export=amc_tf.ExportSettings(latency_rounds=1, latency_min_secs=0.01),
)
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.document}:{self.line}"


def blocks(language, documents=DOCUMENTS):
    found = []
    for document in documents:
        text = (ROOT / document).read_text()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(document, line, *match.groups()))
    return [block for block in found if block.language == language]


def command_lines():
    commands = re.compile("amc-|make |pip |python |tensorboard ")
    untold = [str(block) for block in blocks("") if commands.match(block.text)]
    assert not untold, f"commands belong in a block that is fenced as ```sh: {untold}"
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield block, words


def tiny(words, phone):
    if words[0] == "amc-latency-table":
        return TINY_TABLE
    if words[0] == "amc-benchmark":
        folder = [f"--folder={phone.folder / 'remote'}"] * ("--device=android" in words)
        return [*TINY_TIMING, *folder]
    if words[0] == "amc-compress":
        return [f"--config.{key}={value}" for key, value in TINY_RUN.items()]
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reader's folder, with what the commands name."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").mkdir()
    config = (ROOT / "configs" / "mnist.py").read_text()
    assert FEWER_DIGITS[0] in config
    (folder / "configs" / "mnist.py").write_text(config.replace(*FEWER_DIGITS))
    return folder


@pytest.fixture(scope="module")
def phone(adb_server, tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("phone"))
    yield bench
    bench.phone.close()


def installs(words):
    """Whether pip would find what a line names; the wheel is installed by test_wheel.py."""
    extras = importlib.metadata.metadata("amc_tf").get_all("Provides-Extra")
    needed = {
        (r.name, r.specifier) for r in map(Requirement, importlib.metadata.requires("amc_tf"))
    }
    for word in words[2:]:
        if word == "constraints.txt":
            assert (ROOT / word).exists()
        elif word.startswith("."):
            assert set(re.findall(r"\w+", word)) <= set(extras)
        elif "--no-deps" in words and not word.startswith("-"):
            assert word in (ROOT / "constraints.txt").read_text().splitlines()
        elif not word.startswith("-"):
            asked = Requirement(word)
            assert (asked.name, asked.specifier) in needed
    return True


def makes(words):
    """Whether make would run it; it is a part of what runs these tests, or takes minutes."""
    done = subprocess.run(
        ["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command(folder, phone, adb_server):
    commands.run_code(
        f"{PRELUDE}\nmodel.save('mine.keras'); import numpy; numpy.savez('images.npz', x=x_train)",
        folder,
    )
    shutil.move(phone.binary(), folder / "android_arm64_benchmark_model")
    subprocess.run([adb_server, "connect", phone.phone.serial], check=True, capture_output=True)
    printed = {}
    for block, words in command_lines():
        if words[0] == "make":
            printed[words[1]] = makes(words)
        elif words[0] == "pip":
            assert installs(words)
        elif words[0] in SERVERS:
            assert importlib.metadata.entry_points(group="console_scripts", name=words[0])
        elif words[0] in STAGES and any(word.startswith("--workdir=") for word in words):
            assert f'"{words[0].removeprefix("amc-")}"' in TEST_COMMANDS
        else:
            assert words[0].startswith("amc-"), f"{block}: no test runs {words[0]}"
            # amc-sparsify was not run: the dense model, its small weights gone, stands in.
            for round_ in re.findall(r"[\w/]+/sparse/round\d\.keras", " ".join(words)):
                (folder / round_).parent.mkdir(exist_ok=True)
                commands.run_code(SPARSE.format(round_), folder)
            if words[-1].startswith("runs/") and not (folder / words[-1]).exists():
                shutil.copytree(folder / "runs/mnist", folder / words[-1])  # another run
            printed[" ".join(words)] = commands.run([*words, *tiny(words, phone)], folder)
    assert "amc_tf.cli.compress --config=configs/mnist.py" in printed["demo"]
    for command, text in shown().items():
        check_shown(command, text, printed[command])


def shown():
    """What the tutorial shows under a command, by the command."""
    tutorial = (ROOT / "docs/tutorial.md").read_text()
    pairs = re.findall(r"^```sh\n(amc-[^\n]*)\n```\n\n```\n(.*?)^```$", tutorial, re.M | re.S)
    return dict(pairs)


def check_shown(command, text, printed):
    """The listing of a network is the same to the letter; what is measured has the same rows."""
    if command.startswith("amc-inspect"):
        assert text == printed
        return
    rows = {line.split()[0] for line in text.splitlines() if line.strip()}
    # A tiny run is warned of what the demo is not: few images, few steps.
    lines = [line for line in printed.splitlines() if line.strip() and "warning: " not in line]
    missing = {line.split()[0] for line in lines} - rows
    assert not missing, f"{command} prints {missing}, which the tutorial does not show"


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name not in SCRIPTS])
def test_code(document, folder):
    code = "\n".join(block.text for block in blocks("python", [document]))
    if document != "CONTRIBUTING.md":
        for given, replaced in TINY_CODE.items():
            assert given in code or document != "README.md"
            code = code.replace(given, replaced)
        code = PRELUDE + MADE.get(document, "") + code
    commands.run_code(code, folder)


@pytest.fixture(scope="module", params=DOCUMENTS)
def text(request):
    return (ROOT / request.param).read_text()


@pytest.mark.parametrize("document", ["README.md", "docs/tutorial.md"])
def test_sentences_are_short(document):
    """What a newcomer reads first has 18 words a sentence at most, in the mean."""
    text = re.sub(r"^```.*?^```$|^[|!<#].*?$", "", (ROOT / document).read_text(), flags=re.M | re.S)
    found = [s for s in re.split(r"[.:!?;](?:\s|$)|\n\n", text) if len(s.split()) > 1]
    assert sum(len(s.split()) for s in found) / len(found) <= 18


def test_readme_leads_to_every_page():
    assert sorted(PAGES) == sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))


def test_links():
    for document in DOCUMENTS:
        path = ROOT / document
        for link in re.findall(r"\]\((?!http|#)([^)#\s]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{document}: {link}"


def test_flags(text):
    places = ("amc_tf/cli/*.py", "tflite_tools/run_*.py", "benchmarks/*.py")
    sources = [source for place in places for source in ROOT.glob(place)]
    defined = "".join(source.read_text() for source in sources)
    flags = set(re.findall(r"--([a-z_]+)(?![a-z_.]*-)", text)) - {"config", "logdir"}
    assert not [flag for flag in flags if f'"{flag}"' not in defined]


def test_settings(text):
    config = amc_tf.default_config()
    config.update({"epochs": 1, "fine_tune_epochs": 1})
    for path in re.findall(r"\bconfig\.(?!json\b)((?:[a-z_0-9]+\.)*[a-z_0-9]+)", text):
        value = config
        for key in path.split("."):
            assert isinstance(value, ml_collections.ConfigDict) and key in value, path
            value = value[key]
    classes = "Budget Constraints ExportSettings LatencySettings SearchSettings Task"
    for name in classes.split():
        fields = {field.name for field in dataclasses.fields(getattr(amc_tf, name))}
        for call in re.findall(rf"\b{name}\(([^()]*)", text):
            assert set(re.findall(r"\b([a-z_]+)=", call)) <= fields, call


def test_names(text):
    for name in re.findall(r"\bamc_tf\.([A-Za-z_]\w*)", text):
        assert (
            hasattr(amc_tf, name)
            or (ROOT / "amc_tf" / name).is_dir()
            or (ROOT / "amc_tf" / f"{name}.py").exists()
        ), name
    places = (ROOT, *(init.parent for init in (ROOT / "amc_tf").rglob("__init__.py")))
    for name in re.findall(r"`([\w/*]+(?:\.py|/))`", text):
        made = name.startswith(("runs/", "build/", "files/"))
        assert made or any(list(place.glob(name)) for place in places), name


def test_every_package_is_in_the_table_of_packages():
    page = (ROOT / "docs/how_it_works.md").read_text()
    table = page.partition("# How it works")[2].partition("\n\n")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w/]+)/`", table)) - {"tflite_tools"}
    package = ROOT / "amc_tf"
    inits = package.glob("*/**/__init__.py")
    assert named == {init.parent.relative_to(package).as_posix() for init in inits}


def test_every_group_of_the_picture_is_the_demos():
    """The bars of overview.svg: dense widths as drawn, kept ones within them."""
    picture = (ROOT / "docs" / "overview.svg").read_text()
    bars = re.findall(r'data-group="(\w+)" data-channels="(\d+)" data-kept="(\d+)"', picture)
    drawn = {name: int(channels) for name, channels, _ in bars}
    listing = blocks("", ["docs/tutorial.md"])
    (inspected,) = [b.text for b in listing if b.text.startswith("mnist_net:")]
    widths = re.findall(r"^  (\w+) +(\d+) +\d", inspected, re.M)
    assert drawn == {name: int(channels) for name, channels in widths}
    assert all(0 < int(kept) <= int(channels) for _, channels, kept in bars)
    assert any(kept != channels for _, channels, kept in bars)
