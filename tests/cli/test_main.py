"""The command line: what reaches the library, and that every mistake is one line and the right exit code."""

import dataclasses
import errno
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fuzzing import BOX, is_box

from metacpo import run_folder
from metacpo.adaptation import evaluate as evaluation
from metacpo.adaptation import files, tables
from metacpo.cli import main as cli
from metacpo.config.schema import Config
from metacpo.runtime import references
from metacpo.training import checkpoint, loop, runs
from metacpo.training.setup import build
from metacpo.training.state import init_state

SMOKE = "point-circle-smoke"
# The list of docs/conventions.md: what the command line promises, not what it happens to have.
VERBS = ("train", "resume", "adapt", "evaluate", "render", "report", "check-env", "doctor")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A run folder whose policy has not learned anything: enough to be opened."""
    folder = tmp_path_factory.mktemp("run")
    config = Config.preset(SMOKE)
    config.save(folder / "config.toml")
    checkpoint.save(folder, init_state(build(config), config.seed))
    return folder


def fails(capsys, args, code, *parts):
    """Whether a command ends with this exit code, and with exactly one line on stderr, or tyro's box, that holds all
    parts."""
    assert cli.main(args) == code
    said = capsys.readouterr().err
    if not is_box(said):
        assert said.startswith("metacpo: ")
        assert said.count("\n") == 1, said
    words = " ".join(said.translate(dict.fromkeys(map(ord, BOX), " ")).split())
    for part in parts:
        assert part in words
    return True


# The command line, and what the message must name: the field, the value, what is allowed.
USAGE = [
    ("", "verb", "missing", "train, resume, adapt"),
    ("fly", "verb", "'fly'", "train, resume, adapt"),
    ("--fly", "verb", "'--fly'", "train, resume, adapt"),
    ("train", "PRESET", "missing", SMOKE),
    ("train --seed 3", "PRESET", "missing", SMOKE),
    ("train point-sphere", "preset", "'point-sphere'", SMOKE),
    (f"train {SMOKE} --sead 3", "--sead, 3", "Perhaps you meant: --seed INT"),
    (f"train {SMOKE} extra", "extra", "--help"),
    (f"train {SMOKE} --seed", "--seed", "Missing value"),
    (f"train {SMOKE} --seed x", "--seed", "'x'", "a whole number"),
    (f"train {SMOKE} --seed -1", "seed", "-1", "[0, 4294967295]"),
    (f"train {SMOKE} --cost-limit -3", "cost_limit", "-3.0", "[0, inf)"),
    (f"train {SMOKE} --cost-limit nan", "cost_limit", "nan", "[0, inf)"),
    (f"train {SMOKE} --iterations -1", "iterations", "-1", "[0, inf)"),
    (f"train {SMOKE} --hidden 8 x", "--hidden", "'x'", "INT"),
    (f"train {SMOKE} --algorithm ppo", "algorithm", "'ppo'", "meta-cpo, meta-trpo", "MODULE:ATTRIBUTE"),
    (f"train {SMOKE} --env moon", "env", "'moon'", "point-circle"),
    (f"train {SMOKE} --meta.steps -1", "meta.steps", "-1", "[0, inf)"),
    (f"train {SMOKE} --meta.steps 1.5", "--meta.steps", "'1.5'", "a whole number"),
    (f"train {SMOKE} --estimation.gamma 1.5", "estimation.gamma", "1.5", "(0, 1]"),
    (f"train {SMOKE} --inner.metric l1", "--inner.metric", "'l1'", "'kl', 'euclidean'"),
    ("resume", "RUN-DIR", "required"),
    ("adapt RUN --split train", "--split", "'train'", "'held-out'", "'shifted'"),
    ("adapt RUN --steps -1", "adaptation.steps", "-1", "[0, inf)"),
    ("adapt RUN --steps two", "--steps", "'two'", "a whole number"),
    ("adapt RUN --tasks 0", "adaptation.tasks", "0", "[1, inf)"),
    ("adapt RUN --seed -2", "seed", "-2", "[0, 4294967295]"),
    ("adapt RUN --cost-limit -1", "cost_limit", "-1.0", "[0, inf)"),
    ("adapt RUN --cost-limit 1 2", "cost_limit", "[1.0, 2.0]", "has 2 numbers; wanted: one for all, or 1"),
    ('adapt RUN --task {"radius":1.3} --tasks 3', "tasks", "3", "one of the two"),
    ('adapt RUN --task {"radius":1.3} --split shifted', "split", "shifted", "one of the two"),
    ('render RUN --task {"radius":1.3} --split held-out', "split", "held-out", "one of the two"),
    ("adapt RUN --task {", "task", "'{'", '{"radius": 1.3}'),
    ("adapt RUN --task [1]", "task", "'[1]'", '{"radius": 1.3}'),
    ('adapt RUN --task {"colour":1}', "task", "'colour'", "radius, wall"),
    ('adapt RUN --task {"radius":0}', "task.radius", "0", "[0.1, 5] m"),
    ('adapt RUN --task {"radius":"big"}', "task.radius", "'big'", "[0.1, 5] m"),
    ("evaluate RUN --split shifted", "--split", "--help"),
    ("render RUN --format avi", "--format", "'avi'", "'mp4'", "'gif'"),  # tyro's order changes
    ("render RUN --tasks 0", "adaptation.tasks", "0", "[1, inf)"),
    ("report", "RUN-DIRS", "missing", "one or more"),
    ("doctor --quick", "--quick", "--help"),
]


@pytest.mark.parametrize("case", USAGE, ids=lambda case: case[0] or "nothing")
def test_bad_usage(case, run_dir, capsys):
    line, *parts = case
    args = [str(run_dir) if word == "RUN" else word for word in line.split()]
    assert fails(capsys, args, 2, *parts)


def test_an_existing_run_folder_is_bad_usage(run_dir, capsys):
    before = sorted(run_dir.rglob("*"))
    assert fails(capsys, ["train", SMOKE, "--run-dir", str(run_dir)], 2, "run-dir", str(run_dir), "new or an empty")
    assert sorted(run_dir.rglob("*")) == before


@pytest.mark.parametrize("verb", ["resume", "adapt", "evaluate", "render", "report"])
def test_a_folder_without_a_run_is_a_failure(verb, tmp_path, capsys):
    assert fails(capsys, [verb, str(tmp_path / "none")], 1, f"{tmp_path / 'none'}: no such run folder")
    assert fails(capsys, [verb, str(tmp_path)], 1, f"{tmp_path / 'config.toml'}: missing")


@pytest.mark.parametrize("verb", ["resume", "adapt", "evaluate", "render"])
def test_a_run_without_a_checkpoint_or_with_a_damaged_one_is_a_failure(verb, tmp_path, capsys):
    config = Config.preset(SMOKE)
    config.save(tmp_path / "config.toml")
    if verb != "resume":  # which begins again
        assert fails(capsys, [verb, str(tmp_path)], 1, f"{tmp_path / 'checkpoints'}: holds no checkpoint")
    folder = checkpoint.save(tmp_path, init_state(build(config), 0))
    data = next(path for path in folder.rglob("*") if path.parent.name == "d")
    data.write_bytes(data.read_bytes()[:-1])
    assert fails(capsys, [verb, str(tmp_path)], 1, f"{data}: damaged")


def test_an_unexpected_failure_is_one_line_too_unless_debugging(monkeypatch, capsys):
    def broken(*args):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(loop, "train", broken)
    assert fails(capsys, ["train", SMOKE], 1, "ZeroDivisionError: first line second line")
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", SMOKE, "--debug"])


def test_what_cannot_be_imported_is_one_line(tmp_path):
    """Nothing that the message is made with may import it once more."""
    (tmp_path / "mujoco.py").write_text("raise ImportError('libGL.so is missing')\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    args = [sys.executable, "-m", "metacpo.cli.main", "train", SMOKE]
    done = subprocess.run(args, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr == "metacpo: ImportError: libGL.so is missing\n"


def test_bad_usage_is_known_by_names_that_exist():
    for name in cli.USAGE:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), kind), Exception), name


@pytest.fixture
def trained(monkeypatch, run_dir):
    """What `train` was called with; nothing is trained."""
    calls = []

    def train(config, folder, debug_nans=False, devices=1):
        assert (debug_nans, devices) == (False, 1)
        calls.append((config, folder))
        return runs.open_run(run_dir)  # not finished: nothing to evaluate

    monkeypatch.setattr(loop, "train", train)
    return calls


def test_options_reach_the_config(trained, tmp_path):
    options = "--seed 3 --algorithm cpo --iterations 7 --cost-limit 12.5 --hidden 4 2".split()
    options += "--meta.steps 2 --outer.max-kl 0.1 --observe-task --history 3".split()
    options += "--observe-limit --limit-factors 0.5 2".split()
    assert cli.main(["train", SMOKE, *options, "--run-dir", str(tmp_path / "run")]) == 0
    config, folder = trained[0]
    expected = Config.preset(
        SMOKE, seed=3, algorithm="cpo", iterations=7, cost_limit=12.5, hidden=(4, 2),
        meta={"steps": 2}, outer={"max_kl": 0.1}, observe_task=True, history=3, observe_limit=True,
        limit_factors=(0.5, 2.0),
    )  # fmt: skip
    assert (config, folder) == (expected, tmp_path / "run")


def test_the_default_run_folder_says_what_it_is(trained):
    assert cli.main(["train", SMOKE, "--seed", "5", "--algorithm", "trpo"]) == 0
    folder = trained[0][1]
    assert folder.parent == Path("runs")
    assert folder.name.startswith(f"{SMOKE}-trpo-seed5-2")


@pytest.fixture
def evaluated(monkeypatch):
    """What `evaluate` was called with, and what was written; nothing is computed."""
    calls = {}

    def evaluate(setup, state, settings, splits, seed, cost_limit=None, task=None, say=None):
        calls["evaluate"] = dict(settings=settings, splits=splits, seed=seed, cost_limit=cost_limit, task=task)
        return "the result"

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(tables, "table", lambda result, trained: f"table of {result}", raising=False)
    monkeypatch.setattr(tables, "while_adapting", lambda result: [f"the way to {result}"])
    monkeypatch.setattr(files, "write", lambda folder, result: calls.update(written=folder))

    def write_report(folders):
        calls["reported"] = folders
        return folders[0] / "report.html"

    monkeypatch.setattr("metacpo.report.write_report", write_report)
    return calls


def test_adapt_uses_the_options_and_writes_nothing(run_dir, evaluated, capsys):
    options = '--steps 3 --cost-limit 12.5 --seed 4 --task {"radius":1.3}'
    assert cli.main(["adapt", str(run_dir), *options.split()]) == 0
    call = evaluated["evaluate"]
    settings = dataclasses.replace(Config.preset(SMOKE).adaptation, steps=3, tasks=1)
    assert (call["settings"], call["splits"], call["seed"]) == (settings, ("held-out",), 4)  # which is not looked at
    assert call["cost_limit"] == 12.5
    assert float(call["task"].params["radius"]) == pytest.approx(1.3)
    said = capsys.readouterr().out
    assert "table of the result" in said and "the way to the result" in said
    assert "written" not in evaluated
    assert cli.main(["adapt", str(run_dir), "--split", "shifted"]) == 0
    assert evaluated["evaluate"]["splits"] == ("shifted",)


@pytest.mark.parametrize("verb", ["adapt", "evaluate", "render"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--history", "3"], "history: 3 is not what the run was trained with; allowed: 0"),
        (["--observe-task"], "observe_task: true is not what the run was trained with; allowed: false"),
        (["--observe-limit"], "observe_limit: true is not what the run was trained with; allowed: false"),
    ],
)
def test_a_policy_sees_what_it_was_trained_to_see(run_dir, evaluated, capsys, verb, options, message):
    fails(capsys, [verb, str(run_dir), *options], 2, message)
    assert "evaluate" not in evaluated


def test_what_the_run_was_trained_with_may_be_said_again(tmp_path, evaluated, capsys):
    config = Config.preset("navigation", history=2, observe_task=True, observe_limit=True)
    config.save(tmp_path / "config.toml")
    checkpoint.save(tmp_path, init_state(build(config), config.seed))
    assert cli.main(["adapt", str(tmp_path), "--history", "2", "--observe-task", "--observe-limit"]) == 0
    fails(capsys, ["adapt", str(tmp_path), "--history", "0"], 2, "history: 0 is not what", "allowed: 2")


def test_evaluate_writes_both_splits_and_the_report(run_dir, evaluated, capsys):
    assert cli.main(["evaluate", str(run_dir), "--tasks", "3"]) == 0
    call = evaluated["evaluate"]
    assert call["settings"] == dataclasses.replace(Config.preset(SMOKE).adaptation, tasks=3)
    assert (call["splits"], call["cost_limit"], call["task"]) == (("held-out", "shifted"), None, None)
    assert (evaluated["written"], evaluated["reported"]) == (run_dir, [run_dir])
    assert str(run_dir / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["evaluate", "render", "report"])
def test_a_folder_that_cannot_be_written_is_said_before_the_work(run_dir, evaluated, monkeypatch, capsys, verb):
    def read_only(**where):
        raise OSError(errno.EROFS, "Read-only file system", "/a/name/of/its/own")

    monkeypatch.setattr(run_folder.tempfile, "TemporaryFile", read_only)
    intact = "; checkpoints that are whole stay so"
    assert fails(capsys, [verb, str(run_dir)], 1, f"{run_dir}: cannot be written (Read-only file system){intact}")
    assert evaluated == {}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    captured = capsys.readouterr()
    assert f"usage: metacpo {verb}" in captured.out
    assert captured.err == ""


def test_the_installed_command_is_this_one():
    """What pip writes into bin/ imports; `python -m`, which the other tests take, would not notice."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"].keys() == {"metacpo"}
    assert references.load(project["scripts"]["metacpo"], "command") is cli.entry


def test_help_lists_the_verbs_without_importing_jax():
    code = "import sys; from metacpo.cli.main import main; main(['--help']); assert 'jax' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(f"  {verb} " in result.stdout for verb in VERBS)
    assert set(cli.VERBS) == set(VERBS)


def test_doctor_finds_the_physics_working(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("python", "jaxlib", "mujoco", "orbax", "cache folder", "works: 100 steps"))
