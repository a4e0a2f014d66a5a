"""Budgets in environment steps: what they pay for, that it is what a training uses, and where they are told."""

import csv
import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest

from metacpo.cli import main as cli
from metacpo.config.schema import Config, ConfigError, presets
from metacpo.training import checkpoint, loop, runs
from metacpo.training.budget import Budget, plan
from metacpo.training.clock import Clock
from metacpo.training.metrics import FILE, steps_used
from metacpo.training.progress import counted
from metacpo.training.setup import build
from metacpo.training.state import init_state

EXAMPLES = Path(__file__).parents[2] / "examples"
# preset: (steps an episode, meta-iterations of meta-cpo, as many as there were before budgets were steps)
KNOWN = {
    "bandit": (1, 60),
    "navigation": (100, 60),
    "tabular": (12, 80),
    "thruster": (30, 80),
    "navigation-lanes": (60, 360),
    "point-circle-signs": (500, 50),
    "car-circle-wheels": (500, 50),
    "point-circle": (500, 64),
    "point-circle-paper": (500, 64),
    "car-circle-hazard": (500, 64),
    "point-button-hazard": (1000, 64),
    "point-circle-smoke": (500, 4),
}
SIZES = dict(
    hidden=[2], meta={"tasks": 3, "steps": 2, "episodes": 5}, warmup={"iterations": 2, "tasks": 2, "episodes": 4}
)
TINY = Config.preset("bandit", total_steps=139, checkpoint_every=3, **SIZES)


def test_every_preset_is_known():
    assert sorted(KNOWN) == presets()


@pytest.mark.parametrize("algorithm", ["meta-cpo", "cpo"])
@pytest.mark.parametrize("preset", KNOWN)
def test_every_preset_s_steps_are_used_up(preset, algorithm):
    config = Config.preset(preset, algorithm=algorithm)
    found = plan(config, build(config))
    (length, iterations), meta, warmup = KNOWN[preset], config.meta, config.warmup
    one = length * meta.tasks * meta.episodes * (meta.steps + 1 if algorithm == "meta-cpo" else 1)
    first = length * warmup.tasks * warmup.episodes
    assert (found.warmup_iterations, found.warmup_steps, found.meta_steps) == (warmup.iterations, first, one)
    assert found.steps == first * found.warmup_iterations + one * found.meta_iterations
    assert found.steps <= config.total_steps < found.steps + one
    assert found.steps == found.steps_until(found.iterations)
    if algorithm == "meta-cpo":
        assert (found.iterations, found.steps) == (iterations, config.total_steps)
    else:
        assert found.iterations > iterations


@pytest.mark.parametrize(("file", "iterations"), [("gymnasium_env/cheetah.toml", 38), ("own_robot/crane.toml", 40)])
def test_the_examples_steps(file, iterations):
    config = Config.load(EXAMPLES / file)
    found = plan(config, build(config))
    assert (found.iterations, found.steps) == (iterations, config.total_steps)


def test_iterations_are_taken_instead_where_they_are_given():
    for algorithm, iterations, warmup in (("cpo", 30, 24), ("meta-cpo", 10, 10), ("meta-cpo", 0, 0)):
        config = Config.preset("point-circle", algorithm=algorithm, iterations=iterations, total_steps=1)
        found = plan(config, build(config))
        assert (found.iterations, found.warmup_iterations) == (iterations, warmup)


def test_the_warm_up_is_paid_first():
    """Whatever it leaves would pay for two iterations of CPO, which comes after the warm-up only."""
    config = Config.preset("point-circle", algorithm="cpo", total_steps=150_000)
    assert plan(config, build(config)) == Budget(1, 0, 80_000, 30_000)


def test_planned_steps_until_an_iteration():
    budget = Budget(2, 3, 10, 100)
    assert [budget.steps_until(k) for k in range(6)] == [0, 10, 20, 120, 220, 320]


SCANT = {
    "total_steps: 1000 pays for no iteration; allowed: at least 80000 (20 tasks × 8 episodes × 500 steps), "
    "or --iterations 0": {},
    "total_steps: 1000 pays for no iteration; allowed: at least 180000 (5 tasks × 6 rollouts × 12 episodes × "
    "500 steps), or --iterations 0": {"warmup": {"iterations": 0}},
    "total_steps: 1000 pays for no iteration; allowed: at least 30000 (5 tasks × 12 episodes × 500 steps), "
    "or --iterations 0": {"warmup": {"iterations": 0}, "algorithm": "cpo"},
}


@pytest.mark.parametrize("message", SCANT)
def test_too_few_steps_are_named_with_what_is_allowed(message, tmp_path):
    config = Config.preset("point-circle", total_steps=1000, **SCANT[message])
    with pytest.raises(ConfigError) as error:
        loop.train(config, tmp_path / "run")
    assert str(error.value) == message
    assert not (tmp_path / "run").exists()
    least = int(message.split("at least ")[1].split()[0])
    assert plan(dataclasses.replace(config, total_steps=least), build(config)).iterations == 1
    with pytest.raises(ConfigError, match=f"total_steps: {least - 1} pays for no iteration"):
        plan(dataclasses.replace(config, total_steps=least - 1), build(config))


def test_too_few_steps_on_the_command_line(tmp_path, capsys):
    assert cli.main(["train", "point-circle", "--total-steps", "9", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("metacpo: total_steps: 9 pays for no iteration; allowed: at least 80000")
    assert cli.main(["train", "point-circle", "--total-steps", "0", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "metacpo: total_steps: 0 is not in [1, inf)\n"
    assert not (tmp_path / "run").exists()


def rows(run_dir):
    with (run_dir / FILE).open(newline="") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Algorithm ↦ its finished run; whatever is compiled for one is used again by the tests after it."""
    compiled, runs, compile_iteration = {}, {}, loop.compile_iteration

    def compile_once(setup, state, console):
        key = setup.meta, setup.algorithm.adapts
        if key not in compiled:
            compiled[key] = compile_iteration(setup, state, console)
        return compiled[key]

    def run(algorithm):
        if algorithm not in runs:
            folder = tmp_path_factory.mktemp("runs") / algorithm
            runs[algorithm] = loop.train(dataclasses.replace(TINY, algorithm=algorithm), folder)
        return runs[algorithm]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_iteration", compile_once)
        yield run


@pytest.mark.parametrize(
    ("algorithm", "iterations", "steps"),
    [
        pytest.param("cpo", 2 + 8, 136, marks=pytest.mark.slow),
        pytest.param("meta-cpo", 2 + 2, 106, marks=pytest.mark.slow),
    ],
)
def test_a_training_uses_the_steps_that_were_planned(trained, algorithm, iterations, steps):
    """139 steps: 2 × 8 for the warm-up; the rest is 8 × 15 or 2 × 45."""
    run = trained(algorithm)
    assert run.finished
    assert run.budget.steps == run.env_steps == steps
    found = rows(run.path)
    assert [row["iteration"] for row in found] == [str(k + 1) for k in range(iterations)]
    assert [int(row["env_steps"]) for row in found] == [run.budget.steps_until(k + 1) for k in range(iterations)]


@pytest.mark.slow
def test_a_resumed_training_ends_where_it_would_have(trained, tmp_path, monkeypatch, capsys):
    straight = trained("cpo")
    config = straight.config
    with monkeypatch.context() as patch:
        count, seen = loop._env_steps, []

        def interrupt(setup, row):
            seen.append(row)
            if len(seen) == 4:
                signal.raise_signal(signal.SIGINT)
            return count(setup, row)

        patch.setattr(loop, "_env_steps", interrupt)
        run = loop.train(config, tmp_path / "run")
    assert not run.finished and int(run.state.iteration) == 4 and run.env_steps == 2 * 8 + 2 * 15
    assert "interrupted after 4 of 10 meta-iterations, saved" in capsys.readouterr().out
    resumed = loop.resume(run.path)
    assert resumed.config == config and resumed.finished
    assert rows(run.path) == rows(straight.path) and resumed.env_steps == 136


def test_a_run_whose_settings_pay_for_nothing_can_be_opened_but_not_resumed(tmp_path, capsys):
    config = dataclasses.replace(TINY, total_steps=3)
    config.save(tmp_path / "config.toml")
    checkpoint.save(tmp_path, init_state(build(config), 0))
    assert runs.open_run(tmp_path).env_steps == 0
    assert cli.main(["resume", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("metacpo: total_steps: 3 pays for no iteration")


@pytest.mark.parametrize(
    "text", [None, "", "iteration\n2\n", "iteration,env_steps\n1,5\n", "iteration,env_steps\n2,x\n"]
)
def test_steps_that_metrics_do_not_tell(tmp_path, text):
    if text is not None:
        (tmp_path / FILE).write_text(text)
    assert steps_used(tmp_path, 2) is None
    (tmp_path / FILE).write_text("iteration,env_steps\n1,5\n2,15\n3,25\n")
    assert steps_used(tmp_path, 2) == 15
    (tmp_path / FILE).write_bytes(b"iteration,env_steps\n2,\xff\xfe\n")
    assert steps_used(tmp_path, 2) is None


def test_progress_counts_steps_and_the_time_left_follows_from_them(tmp_path, monkeypatch):
    """After the warm-up and one meta-iteration, which took 3 s for 45 of 90 planned steps, half as many as it might."""
    now = [100.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    setup = build(TINY)
    run = runs.Run(tmp_path, TINY, setup, init_state(setup, 0))
    clock = Clock(16, 0.0)
    clock.start_lap()
    now[0] += 3.0
    clock.end_lap(22, 45)
    tags = ("Metrics/EpRet", "Metrics/EpCost", "Metrics/CostLimit", "Meta/KL", "Meta/Case")
    row = loop._shown(run, 3, {tag: np.asarray(1.0) for tag in tags}, clock)
    assert (row.iteration, row.iterations, row.env_steps, row.planned_steps) == (3, 4, 38, 106)
    assert row.steps_per_second == pytest.approx(22 / 3)
    assert row.seconds_left == pytest.approx(3.0)  # 45 planned steps at 45 in 3 s
    assert (row.cells["iteration"], row.cells["steps"]) == ("3/4", "38/106")


def test_steps_in_the_unit_of_their_total():
    assert counted(1_920_000, 9_120_000) == "1.9/9.1 M"
    assert counted(2_000, 20_000) == "2.0/20.0 k"
    assert counted(999, 999) == "999/999"
