"""Kill −9 at any moment: what resumes ends bit for bit as if nothing had happened.

The sessions are forked from a server that has imported everything, and most have a learner that costs nothing: what a
kill can hurt is files, and those are real. The slow test has a real setup.
"""

import csv
import dataclasses
import multiprocessing
import random
import time
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.config.schema import Config
from metacpo.training import checkpoint, loop, predictions, runs
from metacpo.training.state import TrainState

COUNTED = ("Metrics/EpRet", "Metrics/EpCost", "Metrics/CostLimit", "Metrics/EpLen", "Meta/KL", "Meta/Case")
SIZES = {"tasks": 2, "steps": 0, "episodes": 2}
TINY = Config.preset("bandit", algorithm="cpo", hidden=[1], iterations=40, checkpoint_every=1, meta=SIZES)
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["metacpo.training.loop", "metacpo.envs.families.bandit", "metacpo.algorithms.registry"])


def pretended(state: TrainState) -> tuple[TrainState, dict[str, np.ndarray]]:
    """A meta-iteration that depends on every bit of the state before it, and takes no time."""
    theta, key = np.asarray(state.theta), np.asarray(jax.random.key_data(state.key))
    rng = np.random.default_rng([*key.tolist(), *theta.view(np.uint32).tolist()])
    row = {tag: rng.normal(size=()).astype(np.float32) for tag in COUNTED}
    row |= {"Metrics/EpLen": np.float32(rng.integers(1, 9)), "Meta/Case": np.float32(0)}
    new = jax.random.wrap_key_data(jnp.asarray(rng.integers(0, 2**32, key.shape, dtype=np.uint32)))
    values = jnp.asarray(rng.normal(size=theta.shape).astype(np.float32)), new, jnp.int32(int(state.iteration) + 1)
    return eqx.tree_at(lambda s: (s.theta, s.key, s.iteration), state, values), row


def pretend() -> None:
    """From now on this process trains the learner that costs nothing."""
    loop.logged_tags = lambda run: sorted({*COUNTED, *predictions.TAGS})
    loop.compile_iteration = lambda setup, state, console: pretended


def session(config: Config, run_dir: Path, real: bool) -> None:
    """One process: begins the run or continues it, to its end or until it is killed."""
    if not real:
        pretend()
    if (run_dir / "config.toml").exists():
        loop.resume(run_dir)
    else:
        loop.train(config, run_dir)


def start(config: Config, run_dir: Path, real: bool):
    process = SERVER.Process(target=session, args=(config, run_dir, real))
    process.start()
    return process


def parts(run_dir: Path) -> list[Path]:
    """Checkpoints that are being written, or that a kill has torn."""
    folder = run_dir / "checkpoints"
    return [path for path in folder.iterdir() if not path.name.isdecimal()] if folder.is_dir() else []


def files(folder: Path) -> int:
    try:
        return sum(path.is_file() for path in folder.rglob("*"))
    except FileNotFoundError:  # renamed meanwhile
        return 0


def kill_while_writing(process, run_dir: Path, rng: random.Random) -> None:
    """After some checkpoints of this session, when the next has so many files."""
    wanted = (checkpoint.latest(run_dir) or 0) + rng.randrange(3)
    many = rng.randrange(14)
    while process.is_alive():
        if (checkpoint.latest(run_dir) or 0) >= wanted and any(files(part) >= many for part in parts(run_dir)):
            break
    process.kill()


def kill_any_time(process, run_dir: Path, rng: random.Random) -> None:
    """Also while it starts; after five checkpoints at the latest, so that iterations last for all kills."""
    last, end = (checkpoint.latest(run_dir) or 0) + 5, time.monotonic() + rng.uniform(0.0, 3.0)
    while time.monotonic() < end and (checkpoint.latest(run_dir) or 0) < last:
        time.sleep(0.01)
    process.kill()


def killed(config: Config, run_dir: Path, real: bool, kills: int, seed: int) -> int:
    """A run that is killed so often and then left alone; how many of the kills tore a checkpoint."""
    rng, torn = random.Random(seed), 0
    for k in range(kills):
        process = start(config, run_dir, real)
        (kill_any_time if k % 4 == 0 else kill_while_writing)(process, run_dir, rng)
        process.join()
        assert process.exitcode == -9, "a session ended before its kill: more iterations are needed"
        torn += bool(parts(run_dir))
    process = start(config, run_dir, real)
    process.join()
    assert process.exitcode == 0
    return torn


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def bits(config: Config, run_dir: Path) -> dict[str, bytes]:
    run = runs.open_run(run_dir)
    assert run.finished and run.config == config
    plain = eqx.tree_at(lambda s: s.key, run.state, jax.random.key_data(run.state.key))
    return {
        jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in jax.tree_util.tree_leaves_with_path(plain)
    }


def compare(config: Config, folder: Path, real: bool, kills: int) -> None:
    process = start(config, folder / "straight", real)
    process.join()
    assert process.exitcode == 0
    torn = killed(config, folder / "killed", real, kills, seed=kills)
    assert torn >= kills // 4, f"only {torn} of {kills} kills hit a checkpoint that was being written"
    assert rows(folder / "killed") == rows(folder / "straight")
    assert [row["iteration"] for row in rows(folder / "killed")] == [str(k + 1) for k in range(config.iterations)]
    assert bits(config, folder / "killed") == bits(config, folder / "straight")
    assert not parts(folder / "killed")


@pytest.mark.slow
def test_five_kills_leave_no_trace(tmp_path):
    compare(TINY, tmp_path, real=False, kills=5)


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_thirty_kills_leave_no_trace(tmp_path, real):
    compare(dataclasses.replace(TINY, iterations=150), tmp_path, real, kills=30)


def resumes(folder: Path, real: bool = False) -> None:
    process = start(TINY, folder, real)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("left", ["nothing", "a lock", "half a config"])
def test_killed_before_there_was_a_run(tmp_path, left):
    config = dataclasses.replace(TINY, iterations=2)
    if left != "nothing":
        (tmp_path / ("lock" if left == "a lock" else "config.part.toml")).write_text("seed")
    process = start(config, tmp_path, False)
    process.join()
    assert process.exitcode == 0
    assert len(rows(tmp_path)) == 2


def test_killed_before_the_first_checkpoint(tmp_path):
    """Only the settings are there, and perhaps rows: it begins again."""
    config = dataclasses.replace(TINY, iterations=3)
    config.save(tmp_path / "config.toml")
    (tmp_path / "metrics.csv").write_text("iteration,env_st")
    resumes(tmp_path)
    assert [row["iteration"] for row in rows(tmp_path)] == ["1", "2", "3"]


@pytest.mark.parametrize("tail", [b"", b"4,7", b"3", b"\0\0\0\0\r\n", b"4,\xff\xfe\r\n"])
def test_half_a_row_after_the_checkpoint_is_dropped(tmp_path, tail):
    config = dataclasses.replace(TINY, iterations=3)
    resumes_of = partial(start, config, tmp_path, False)
    process = resumes_of()
    process.join()
    before, text = rows(tmp_path), (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text.replace("iterations = 3\n", "iterations = 4\n", 1))
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(tail)
    resumes(tmp_path)
    assert rows(tmp_path)[:3] == before and len(rows(tmp_path)) == 4
