"""Nothing lost: damaged checkpoints, full disks, second writers, signals, and folders of other versions."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from test_checkpoint import delete, flip, same, state, truncate
from test_kill import TINY, start

from metacpo import load_policy, run_folder
from metacpo.cli import main as cli
from metacpo.run_folder import RunError, lock, require_writable
from metacpo.runtime.interrupts import Abandoned, run_interruptibly, worker
from metacpo.training import checkpoint, loop, runs
from metacpo.training.checksums import SUMS
from metacpo.training.setup import build
from metacpo.training.state import init_state

DATA = Path(__file__).parents[1] / "data" / "run-format-1"
ACTION = (-0.12692676484584808, 0.09302739053964615)  # on an observation of 0.5


@pytest.mark.parametrize("damage", [delete, truncate, flip])
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, damage, capsys):
    checkpoint.save(tmp_path, state(1))
    newest = checkpoint.save(tmp_path, state(2))
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        original = path.read_bytes()
        damage(path)
        assert same(checkpoint.restore(tmp_path, state(0)), state(1))
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "checkpoints/2/" in said and "iteration 1 is used instead" in said
        path.write_bytes(original)
    assert same(checkpoint.restore(tmp_path, state(0)), state(2))
    assert capsys.readouterr().err == ""


def test_a_damaged_checkpoint_is_written_again_and_pushes_no_whole_one_out(tmp_path):
    for iteration in (1, 7, 8, 9):
        flip(checkpoint.save(tmp_path, state(iteration)) / SUMS)
    shutil.rmtree(tmp_path / "checkpoints" / "7")
    checkpoint.save(tmp_path, state(2))
    assert checkpoint.latest(tmp_path) == 2
    flip(tmp_path / "checkpoints" / "2" / SUMS)
    checkpoint.save(tmp_path, state(2))
    assert same(checkpoint.restore(tmp_path, state(0)), state(2))


FULL = """
import resource, signal, sys
import test_kill
from metacpo.training import checkpoint
from metacpo.training.checksums import SUMS
from metacpo.cli import main as cli
run_dir, allowed = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save = checkpoint.save
def save_and_fill(path, state, config):
    save(path, state, config)
    if int(state.iteration) == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, allowed))
checkpoint.save = save_and_fill
test_kill.pretend()
sys.argv = ["metacpo", "resume", run_dir]
cli.entry()
"""
OURS = [str(folder) for folder in Path(__file__).parents[:2]]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([*OURS, *sys.path])}


@pytest.mark.parametrize("allowed", [0, 3000])
def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path, allowed):
    """A disk that takes no file longer than `allowed` bytes once there are two checkpoints."""
    TINY.save(tmp_path / "config.toml")
    command = [sys.executable, "-c", FULL, str(tmp_path), str(allowed)]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "cannot be written (File too large)" in result.stderr, result.stderr
    assert f"metacpo: {tmp_path}" in result.stderr
    assert int(runs.open_run(tmp_path).state.iteration) >= 2


def fill(path: Path) -> None:
    """Leave 40 KiB on a disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, path.stat().st_size - 40 * 1024)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_is_full_or_read_only(tmp_path, how):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("no mounts here")
    try:
        checkpoint.save(tmp_path, state(1))
        if how == "full":
            fill(tmp_path / "filler")
        else:
            subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
            with pytest.raises(RunError, match=rf"{tmp_path}: cannot be written \(Read-only.*; checkpoints that"):
                require_writable(tmp_path)
            with pytest.raises(RunError, match=r"lock: cannot be written \(Read-only"), lock(tmp_path):
                pass
        with pytest.raises(checkpoint.CheckpointError, match=r"/2: cannot be written \((No space|Read-only)"):
            checkpoint.save(tmp_path, state(2))
        assert same(checkpoint.restore(tmp_path, state(0)), state(1))
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_a_second_process_is_refused_by_name(tmp_path, capsys):
    TINY.save(tmp_path / "config.toml")
    with lock(tmp_path):
        for attempt in (lambda: loop.resume(tmp_path), lambda: lock(tmp_path).__enter__()):
            with pytest.raises(RunError, match=rf"is being trained by process {os.getpid()} on host \S+$"):
                attempt()
        checkpoint.save(tmp_path, init_state(build(TINY), 0))
        assert runs.open_run(tmp_path).config == TINY  # reading is allowed
        assert cli.main(["resume", str(tmp_path)]) == 1
    assert "is being trained by process" in capsys.readouterr().err
    with lock(tmp_path):
        pass


def test_a_killed_process_holds_no_lock(tmp_path):
    process = start(TINY, tmp_path, False)
    while not (tmp_path / "metrics.csv").exists():
        assert process.is_alive()
        time.sleep(0.01)
    with pytest.raises(RunError, match=f"process {process.pid} "), lock(tmp_path):
        pass
    process.kill()
    process.join()
    with lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_locked_is_said(tmp_path, monkeypatch, capsys):
    def refuse(descriptor, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_folder.fcntl, "flock", refuse)
    with lock(tmp_path):
        pass
    assert "cannot be locked (No locks available); nothing stops" in capsys.readouterr().err


def test_work_is_finished_within_the_grace_and_abandoned_after_it():
    stop = threading.Event()
    with worker() as pool:
        assert run_interruptibly(pool, stop, lambda: 3, grace=0.0) == 3
        stop.set()
        assert run_interruptibly(pool, stop, lambda: time.sleep(0.3) or 4, grace=5.0) == 4
        begin = time.monotonic()
        with pytest.raises(Abandoned):
            run_interruptibly(pool, stop, lambda: time.sleep(2.0), grace=0.5)
        assert 0.4 < time.monotonic() - begin < 1.5
        with pytest.raises(ZeroDivisionError):
            run_interruptibly(pool, threading.Event(), lambda: 1 // 0, grace=0.0)


SLOW = """
import sys, time
import test_kill
from metacpo.cli import main as cli
from metacpo.training import loop, predictions
where, run_dir, toml = sys.argv[1:]
loop.logged_tags = lambda run: sorted({*test_kill.COUNTED, *predictions.TAGS})
def endless(state):
    if int(state.iteration) == 1:
        print("now", flush=True)
        time.sleep(1000)
    return test_kill.pretended(state)
def compile_iteration(*args):
    if where == "compiling":
        print("now", flush=True)
        time.sleep(1000)
    return endless
loop.compile_iteration = compile_iteration
sys.argv = ["metacpo", "train", toml, "--run-dir", run_dir]
cli.entry()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("where", "iterations"), [("compiling", 0), pytest.param("computing", 1, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_in_time_whatever_it_does(tmp_path, where, iterations, number):
    """The states before are saved, the computation that does not end is left behind."""
    TINY.save(tmp_path / "bandit.toml")
    command = [sys.executable, "-c", SLOW, where, str(tmp_path / "run"), str(tmp_path / "bandit.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        with contextlib.suppress(StopIteration):
            while "now" not in next(process.stdout):
                pass
        time.sleep(0.2)
        begin = time.monotonic()
        process.send_signal(number)
        said = process.communicate()[0]
    assert (process.returncode, time.monotonic() - begin < 10.0) == (0, True)
    assert f"interrupted after {iterations} of 40" in said
    assert int(runs.open_run(tmp_path / "run").state.iteration) == iterations


def test_a_run_folder_of_format_1_is_read_forever():
    """Never regenerate tests/data/run-format-1: it stands for the folders that people have."""
    policy = load_policy(DATA)
    action = policy(jnp.full(1, 0.5), deterministic=True)
    assert action.tolist() == pytest.approx(ACTION, abs=1e-6)


@pytest.mark.slow
def test_a_run_of_format_1_goes_on(tmp_path):
    shutil.copytree(DATA, tmp_path / "run")
    assert loop.resume(tmp_path / "run").finished
    assert checkpoint.latest(tmp_path / "run") == 3


def test_other_formats_are_refused_by_name(tmp_path):
    for path in DATA.rglob("*"):
        assert path.stat().st_size < 50_000
    shutil.copytree(DATA, tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    text = config.read_text()
    assert "format = 1\n" in text
    config.write_text(text.replace("format = 1\n", ""))  # from before the number was written
    assert runs.open_run(tmp_path / "run").config.iterations == 3
    for number, words in (
        ("4", "format 4 is newer than this metacpo, which reads 3; update"),
        ("0", "format 0 is not"),
    ):
        config.write_text(text.replace("format = 1\n", f"format = {number}\n"))
        with pytest.raises(RunError, match=f"config.toml: {words}"):
            runs.open_run(tmp_path / "run")
