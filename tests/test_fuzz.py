"""Whatever stands in a config, a task, an option or an MJCF file: success, or one line and exit code 1 or 2."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w
from fuzzing import EXTREMES, NAMES, PRESETS, cases, damaged, ends_well, junk, put, scalar, text
from hypothesis import example, given
from hypothesis import strategies as st

import metacpo
from metacpo.adaptation import evaluate as evaluation
from metacpo.adaptation import tables
from metacpo.cli import main as cli
from metacpo.cli import verbs
from metacpo.config.schema import Config, ConfigError
from metacpo.envs.physics import MujocoC, PhysicsError
from metacpo.study.plan import read_study
from metacpo.training import loop, runs
from metacpo.training.setup import build

STUDIES = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "benchmarks").glob("*.toml"))]
SMOKE = "point-circle-smoke"
ASSETS = Path(metacpo.__file__).parent / "envs" / "assets"
# Text that is small and takes a reader long, deep or wide.
BOMBS = ["a=" + "[" * 50_000, "a = " + "9" * 5000, "seed = 0x" + "F" * 9000, "a." * 3000 + "b = 1", "[a]\n" * 5000]
BOMBS += ["env = '" + "x" * 200_000 + "'", "[" + "a." * 3000 + "b]", "hidden = [" + "1," * 90_000 + "]", "#" * 300_000]
TREES = [tomllib.loads(data.decode()) for data in PRESETS]


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch, tmp_path):
    """`train` ends when the setup is built; whatever a command leaves behind would lie in tmp_path."""

    def train(config, folder, debug_nans=False, devices=1):
        build(config)
        return SimpleNamespace(finished=False)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.chdir(tmp_path)


@st.composite
def trees(draw) -> dict:
    """A preset with some settings replaced by anything, or nothing but anything."""
    tree = draw(st.sampled_from(TREES) | st.just({}))
    tree = json.loads(json.dumps(tree))
    for place in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
        put(tree, place, draw(junk))
    if draw(st.integers(0, 4)) == 0:
        put(tree, draw(st.tuples(text, text) | st.tuples(text)), draw(junk))
    return tree


def loads(path: Path) -> None:
    """A config that is read is one that can be written and read again; everything else is one line."""
    try:
        config = Config.load(path)
    except ConfigError as error:
        assert str(error)
        return
    config.save(path)
    assert Config.saved(path) == config


@cases(1000)
@given(trees())
def test_any_tree_of_settings(tmp_path, tree):
    (tmp_path / "any.toml").write_text(tomli_w.dumps(tree), encoding="utf-8")
    loads(tmp_path / "any.toml")


@pytest.mark.slow
@cases(1000)
@given(st.binary(max_size=200) | st.sampled_from(PRESETS).flatmap(damaged))
def test_any_bytes_as_settings(tmp_path, data):
    (tmp_path / "any.toml").write_bytes(data)
    loads(tmp_path / "any.toml")


@cases(40)
@given(trees())
def test_train_with_any_settings(tmp_path, tree):
    path = tmp_path / "any.toml"
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    ends_well(["train", str(path), "--run-dir", str(tmp_path / "run")], tmp_path)


@st.composite
def studies(draw) -> dict:
    """A study as ours are, with anything in places."""
    tree = {"seeds": [0, 1], "variants": [{"name": "a", "preset": "bandit"}, {"name": "b", "preset": "navigation"}]}
    for variant in tree["variants"]:
        for place in draw(st.lists(st.sampled_from([*NAMES, ("name",), ("preset",), ("seeds",)]), max_size=2)):
            put(variant, place, draw(junk | st.lists(scalar, max_size=2) | st.just("bandit")))
    for place in draw(st.lists(st.sampled_from([("seeds",), ("variants",)]) | st.tuples(text), max_size=1)):
        put(tree, place, draw(junk | st.lists(st.integers(), max_size=3)))
    return tree


def reads(path: Path) -> None:
    """Runs with names and seeds of their own, or one line that names the file."""
    try:
        runs = read_study(path)
    except ConfigError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert 0 < len(runs) == len({(run.variant, run.config.seed) for run in runs})


@cases(1000)
@given(studies())
def test_any_study(tmp_path, tree):
    (tmp_path / "study.toml").write_text(tomli_w.dumps(tree), encoding="utf-8")
    reads(tmp_path / "study.toml")


@cases(300)
@given(st.sampled_from(STUDIES).flatmap(damaged) | st.sampled_from(BOMBS).map(str.encode))
def test_any_bytes_as_a_study(tmp_path, data):
    (tmp_path / "study.toml").write_bytes(data)
    reads(tmp_path / "study.toml")


@pytest.mark.parametrize(
    "bomb",
    [pytest.param(bomb, id=str(i), marks=pytest.mark.slow if i == 7 else ()) for i, bomb in enumerate(BOMBS)],
)
def test_small_files_that_would_keep_a_reader_busy(tmp_path, bomb):
    (tmp_path / "any.toml").write_text(bomb)
    assert ends_well(["train", str(tmp_path / "any.toml")], tmp_path) == 2


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_settings_that_are_no_file(tmp_path, make):
    make(tmp_path / "any.toml")
    assert ends_well(["train", str(tmp_path / "any.toml")], tmp_path) == 2


@pytest.mark.slow
@cases(40)
@given(st.lists(text | scalar.map(str) | st.sampled_from(["--" + ".".join(place) for place in NAMES]), max_size=4))
def test_any_command_line(tmp_path, words):
    ends_well(["train", SMOKE, *(word for word in words if word not in ("-h", "--help"))], tmp_path)


@pytest.fixture(scope="module")
def run():
    """A run of which nothing but its setup, its config and its steps are asked."""
    config = Config.preset(SMOKE)
    return SimpleNamespace(config=config, setup=build(config), state=None, env_steps=None)


@pytest.fixture
def adapting(run, monkeypatch):
    """`adapt` ends when it knows what to adapt to."""
    monkeypatch.setattr(runs, "open_run", lambda folder: run)
    monkeypatch.setattr(evaluation, "evaluate", lambda *args, **options: "the result")
    monkeypatch.setattr(tables, "table", lambda result, trained: result)
    monkeypatch.setattr(tables, "while_adapting", lambda result: [])


NUMBER = st.sampled_from(EXTREMES) | st.floats(0.1, 5.0) | junk
TASKS = st.dictionaries(st.sampled_from(["radius", "wall", "colour", "\x1b[2J"]), NUMBER, max_size=3)
NESTED = ["[" * 9000, '{"a":' * 9000, '{"radius":' + "[" * 900 + "]" * 900 + "}", '{"radius":' + "9" * 5000 + "}"]


@pytest.fixture
def parsed(monkeypatch):
    """The command line without its parser, which is most of its time: the last word is the task."""
    monkeypatch.setattr(cli, "parse", lambda verb, name, words: verb(Path(words[0]), verbs.AdaptOptions(task=words[1])))


@cases(1200)
@given(st.text(max_size=20) | (junk | TASKS).map(lambda x: json.dumps(x, default=str)))
@example(NESTED[0])
@example(NESTED[1])
@example(NESTED[2])
@example(NESTED[3])
@example('{"radius": -9' + "9" * 4200 + "}")
def test_any_task(tmp_path, adapting, parsed, task):
    ends_well(["adapt", str(tmp_path), task], tmp_path)


@cases(100)
@given(st.sampled_from(["steps", "tasks", "cost-limit", "seed", "split"]), scalar.map(str))
def test_any_option_of_a_trial(tmp_path, adapting, option, value):
    ends_well(["adapt", str(tmp_path), f"--{option}={value}"], tmp_path)


def compiles(path: Path) -> bool:
    try:
        MujocoC(path, 1, threads=1)
    except PhysicsError as error:
        assert str(error).startswith("mjcf: ") and len(str(error).splitlines()) == 1
        return False
    return True


@st.composite
def models(draw) -> bytes:
    """A model of ours with a word replaced by another one, or with damaged bytes."""
    original = draw(st.sampled_from([path.read_bytes() for path in sorted(ASSETS.iterdir())]))
    if draw(st.booleans()):
        return draw(damaged(original))
    words = original.split(b'"')
    at = draw(st.integers(0, len(words) - 1))
    words[at] = draw(st.sampled_from([b"", b"nan", b"-1", b"1e308", b"1 2 3", b"hinge", b"..", b"<", b"\0", b"9" * 40]))
    return b'"'.join(words)


@cases(1500)
@given(st.binary(max_size=100) | models())
def test_any_mjcf(tmp_path, data):
    (tmp_path / "any.xml").write_bytes(data)
    compiles(tmp_path / "any.xml")


@pytest.mark.parametrize("name", ["none.xml", "", ".", "\0", "x" * 5000, "pipe.xml", "zero.xml", "/dev/null"])
def test_mjcf_paths(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.xml")
    (tmp_path / "zero.xml").symlink_to("/dev/zero")
    assert not compiles(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_fuzz.py", "test_fuzz_runs.py"])
def test_ten_times_as_many(file):
    command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).with_name(file))]
    done = subprocess.run(command, env=os.environ | {"METACPO_FUZZ": "10"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
