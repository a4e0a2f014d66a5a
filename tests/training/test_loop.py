"""The run around the loop: what it writes, how it stops, and that resuming leaves no trace.

Two executables serve the whole module, those of a warm-up and of a meta-iteration, in an environment without MuJoCo,
because they take long to compile.
"""

import csv
import dataclasses
import signal
import threading

import numpy as np
import pytest

from metacpo.config.schema import Config
from metacpo.run_folder import RunError, RunExistsError
from metacpo.training import checkpoint, loop, runs
from metacpo.training.tags import describe

SMOKE = Config.preset("point-circle-smoke", env="bandit", meta={"steps": 1}, iterations=4, checkpoint_every=3)
COUNTERS = ("iteration", "env_steps", "seconds")


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def straight(patch, tmp_path_factory):
    """A run that nothing interrupts; the runs after it reuse its executable."""
    compiled = {}
    compile_iteration = loop.compile_iteration

    def compile_once(setup, state, console):
        # The learner of a warm-up is made anew by every run.
        if setup.meta.steps not in compiled:
            compiled[setup.meta.steps] = compile_iteration(setup, state, console)
        return compiled[setup.meta.steps]

    patch.setattr(loop, "compile_iteration", compile_once)
    patch.setenv("METACPO_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    return loop.train(SMOKE, tmp_path_factory.mktemp("runs") / "straight")


@pytest.fixture
def interrupting(straight, monkeypatch):
    """A function that makes the next run receive `number` in the middle of meta-iteration `iteration`."""
    compile_iteration = loop.compile_iteration

    def at(iteration: int, number: signal.Signals):
        def compile_with_signal(*args):
            iterate = compile_iteration(*args)

            def run_and_signal(state):
                if int(state.iteration) + 1 == iteration:
                    signal.raise_signal(number)
                return iterate(state)

            return run_and_signal

        monkeypatch.setattr(loop, "compile_iteration", compile_with_signal)

    yield at


def rows(run_dir) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_time(run_dir) -> list[dict[str, str]]:
    return [{name: text for name, text in row.items() if name != "seconds"} for row in rows(run_dir)]


def test_a_run_folder_holds_the_run(straight):
    folder = straight.path
    assert {path.name for path in folder.iterdir()} == {"config.toml", "metrics.csv", "tb", "checkpoints", "lock"}
    assert Config.load(folder / "config.toml") == SMOKE
    assert [row["iteration"] for row in rows(folder)] == ["1", "2", "3", "4"]
    seconds = [float(row["seconds"]) for row in rows(folder)]
    assert seconds == sorted(seconds)
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["3", "4"]
    assert straight.finished


def test_env_steps_count_every_step_of_every_episode(straight):
    meta, warmup = SMOKE.meta, SMOKE.warmup
    first = warmup.tasks * warmup.episodes
    steps = meta.tasks * (meta.steps + 1) * meta.episodes
    assert [int(row["env_steps"]) for row in rows(straight.path)] == [first + k * steps for k in range(4)]


def test_a_promise_of_the_meta_update_stands_beside_what_became_of_it(straight):
    first, *others = rows(straight.path)
    assert first["Meta/CostPredicted"] == first["Meta/CostActual"] == "nan"
    before = first
    for row in others:
        change = np.float32(row["Metrics/EpCost"]) - np.float32(before["Metrics/EpCost"])
        assert float(row["Meta/CostActual"]) == pytest.approx(float(change), abs=1e-4)
        change = np.float32(row["Metrics/EpRet"]) - np.float32(before["Metrics/EpRet"])
        assert float(row["Meta/ReturnActual"]) == pytest.approx(float(change), abs=1e-4)
        for name in ("CostPredicted", "ReturnPredicted"):
            assert row[f"Meta/{name}"] == before[f"Meta/Next{name}"] and np.isfinite(float(row[f"Meta/{name}"]))
        before = row


def test_inner_promises_are_means_over_their_updates(straight):
    for row in rows(straight.path)[1:]:
        for name in ("CostPredicted", "CostActual", "ReturnPredicted", "ReturnActual"):
            each = [float(row[f"Adapt/step{k + 1}/{name}"]) for k in range(SMOKE.meta.steps)]
            assert float(row[f"Train/{name}"]) == pytest.approx(np.mean(each), rel=1e-5, abs=1e-6)
        costs = [float(row[f"Adapt/step{k}/EpCost"]) for k in range(SMOKE.meta.steps + 1)]
        assert float(row["Train/CostActual"]) == pytest.approx((costs[-1] - costs[0]) / SMOKE.meta.steps, abs=1e-4)


def test_every_tag_is_described(straight):
    for tag in set(rows(straight.path)[0]) - set(COUNTERS):
        assert describe(tag).description


def test_the_meta_iteration_is_compiled_once(straight):
    assert straight.compilations["meta_iteration"] == 1
    assert straight.compilations["warmup_iteration"] == 1


def test_the_meta_iteration_is_compiled_while_the_warmup_runs(straight, tmp_path, monkeypatch):
    compile_iteration, compiling, seen = loop.compile_iteration, threading.Event(), []

    def compile_and_tell(setup, *args):
        iterate = compile_iteration(setup, *args)
        if setup.meta.steps:
            compiling.set()
            return iterate

        def wait_and_iterate(state):
            seen.append(compiling.wait(timeout=60))
            return iterate(state)

        return wait_and_iterate

    monkeypatch.setattr(loop, "compile_iteration", compile_and_tell)
    run = loop.train(SMOKE, tmp_path / "run")
    assert seen == [True] and without_time(run.path) == without_time(straight.path)


def test_nothing_is_compiled_that_no_iteration_needs(straight, tmp_path, monkeypatch):
    compile_iteration, compiled = loop.compile_iteration, []
    monkeypatch.setattr(loop, "compile_iteration", lambda *args: compiled.append(args[0]) or compile_iteration(*args))
    loop.train(dataclasses.replace(SMOKE, iterations=SMOKE.warmup.iterations), tmp_path / "run")
    assert [setup.meta.steps for setup in compiled] == [0]


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_an_interrupted_and_resumed_run_has_the_same_metrics(straight, interrupting, number, tmp_path, capsys):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupting(2, number)
    run = loop.train(SMOKE, tmp_path / "run")
    assert not run.finished
    assert checkpoint.latest(run.path) == len(rows(run.path)) == 2  # the running iteration was finished
    assert f"interrupted after 2 of 4 meta-iterations, saved; resume with: metacpo resume {run.path}" in (
        capsys.readouterr().out.replace("\n", "")
    )
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers

    assert loop.resume(run.path).finished
    assert without_time(run.path) == without_time(straight.path)
    assert float(rows(run.path)[2]["seconds"]) > float(rows(run.path)[1]["seconds"])


@pytest.mark.slow
def test_rows_after_the_checkpoint_are_written_again(straight, interrupting, tmp_path, monkeypatch):
    """A run that dies without saving goes back to its last checkpoint, and metrics.csv with it."""

    def die(*args):
        raise RuntimeError("power cut")

    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        save = checkpoint.save
        patch.setattr(checkpoint, "save", lambda *args: save(*args) if int(args[1].iteration) < 4 else die())
        with pytest.raises(RuntimeError, match="power cut"):
            loop.train(SMOKE, run_dir)
    assert len(rows(run_dir)) == 4
    assert checkpoint.latest(run_dir) == 3
    loop.resume(run_dir)
    assert without_time(run_dir) == without_time(straight.path)


def test_resuming_a_finished_run_changes_nothing(straight):
    before = (straight.path / "metrics.csv").read_bytes()
    assert loop.resume(straight.path).finished
    assert (straight.path / "metrics.csv").read_bytes() == before


@pytest.mark.slow
def test_another_seed_gives_another_run(straight, tmp_path):
    run = loop.train(dataclasses.replace(SMOKE, seed=1, iterations=1), tmp_path / "run")
    assert without_time(run.path)[0] != without_time(straight.path)[0]


def test_training_works_in_a_thread_that_may_not_handle_signals(straight, tmp_path):
    config = dataclasses.replace(SMOKE, iterations=2)  # the warm-up's and one more
    thread = threading.Thread(target=loop.train, args=(config, tmp_path / "run"))
    thread.start()
    thread.join()
    assert without_time(tmp_path / "run") == without_time(straight.path)[:2]


def test_an_existing_folder_is_never_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match=r"run-dir: .* exists; allowed: a new or"):
        loop.train(SMOKE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_folders_without_a_run_are_named(tmp_path):
    with pytest.raises(RunError, match=r"none: no such run folder"):
        runs.open_run(tmp_path / "none")
    with pytest.raises(RunError, match=r"config\.toml: missing"):
        runs.open_run(tmp_path)
    (tmp_path / "config.toml").write_text("seed = -3\n")
    with pytest.raises(RunError, match=r"config\.toml: seed: -3 is not in"):
        runs.open_run(tmp_path)
    SMOKE.save(tmp_path / "config.toml")
    with pytest.raises(checkpoint.CheckpointError, match=r"checkpoints: holds no checkpoint"):
        runs.open_run(tmp_path)


@pytest.mark.parametrize("env", ["FOLDER/theirs.py:env", "theirs:env"])
def test_code_in_a_run_folder_is_never_run(tmp_path, monkeypatch, env):
    """A stranger's run names an environment that lies in its own folder; even on sys.path it is not imported."""
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    config = dataclasses.replace(SMOKE, env=env.replace("FOLDER", str(tmp_path)))
    config.save(tmp_path / "config.toml")
    with pytest.raises(RunError, match="lies in the run folder, whose code is not run"):
        runs.open_run(tmp_path)
    assert not (tmp_path / "ran").exists()
