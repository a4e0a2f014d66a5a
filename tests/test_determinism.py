"""The same seed gives the same bits in any process and run folder, on one core and on many."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs.physics import MujocoC
from metacpo.envs.robots import POINT
from metacpo.runtime.threads import POOL, fix_threads
from metacpo.training.runs import open_run

# The process is bound to its cores before anything counts them: XLA, MuJoCo's pool and TensorStore all do.
CHILD = """
import json, os, sys
cores, sys.argv = json.loads(sys.argv[1])
os.sched_setaffinity(0, cores)
os.cpu_count = lambda: len(cores)
from metacpo.cli.main import entry
entry()
"""
SMALL = {
    "point-circle-smoke": ["--iterations", "3"],
    "bandit": "--iterations 3 --checkpoint-every 2 --meta.tasks 4 --meta.steps 2 --meta.episodes 20 "
    "--adaptation.tasks 3 --adaptation.steps 1 --adaptation.episodes 9".split(),
}
ALL = sorted(os.sched_getaffinity(0))


def trained(preset: str, cores: list[int], folder: Path, cwd: Path) -> None:
    """`metacpo train` on these cores: training and adaptation."""
    cwd.mkdir(parents=True)
    environment = os.environ | {"METACPO_CACHE_DIR": str(cwd / "cache")}
    environment.pop(POOL, None)
    command = ["metacpo", "train", preset, *SMALL[preset], "--run-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([cores, command])],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def bits(folder: Path) -> list[bytes]:
    """Everything that the last checkpoint keeps."""
    plain = eqx.tree_at(lambda s: s.key, (state := open_run(folder).state), jax.random.key_data(state.key))
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(plain)]


def same(a: Path, b: Path) -> None:
    assert rows(a) == rows(b) and len(rows(a)) == 3
    assert bits(a) == bits(b)
    for file in ("config.toml", "adaptation.csv"):
        assert (a / file).read_bytes() == (b / file).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("preset", SMALL)
def test_the_same_seed_gives_the_same_bits_in_another_process_and_folder(preset, tmp_path):
    a, b = tmp_path / "a" / "run", tmp_path / "another" / "name"
    trained(preset, ALL, a, tmp_path / "here")
    trained(preset, ALL, b, tmp_path / "there" / "deeper")
    same(a, b)


@pytest.mark.slow
@pytest.mark.skipif(len(ALL) < 2, reason="needs two cores")
@pytest.mark.parametrize("preset", SMALL)
def test_the_same_seed_gives_the_same_bits_on_one_core_and_on_several(preset, tmp_path):
    a, b = tmp_path / "a" / "run", tmp_path / "b" / "run"
    trained(preset, ALL, a, tmp_path / "here")
    trained(preset, ALL[:1], b, tmp_path / "there")
    same(a, b)


def test_the_user_may_choose_another_number_of_threads(monkeypatch):
    monkeypatch.delenv(POOL, raising=False)
    fix_threads()
    assert os.environ[POOL] == "2"
    monkeypatch.setenv(POOL, "16")
    fix_threads()
    assert os.environ[POOL] == "16"


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_physics_does_not_depend_on_its_threads(threads):
    """The pool cuts the worlds into other pieces; every world stays what it is alone."""

    def drive(count: int) -> list[bytes]:
        physics = MujocoC(POINT, 5, threads=count)
        nq, nv, nu = physics.model.nq, physics.model.nv, physics.model.nu
        places = jnp.asarray(np.random.default_rng(0).normal(size=(13, nq)), jnp.float32)
        state = jax.vmap(physics.reset)(places, jnp.zeros((13, nv)))
        for step in range(20):
            state = jax.vmap(physics.step)(state, jnp.sin(step + places[:, :nu]))
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]

    assert drive(threads) == drive(1)
