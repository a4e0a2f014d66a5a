"""The example of a Gymnasium environment: it says what it costs, and it is learned."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo import envs
from metacpo.cli import main as cli
from metacpo.envs.tasks import Task

FOLDER = Path(__file__).parents[2] / "examples" / "gymnasium_env"


@pytest.fixture(scope="module")
def cheetah(example):
    return example("gymnasium_env/cheetah.py")


def test_it_costs_to_be_faster_than_the_task_allows(cheetah):
    env = cheetah.env
    assert isinstance(env, envs.Environment)
    assert (env.observation_size, env.action_size, env.episode_length) == (17, 6, 100)
    targets = jnp.array([0.0, 0.4, 10.0])
    tasks = jax.vmap(lambda speed: Task(jnp.array([10.0]), {"target_speed": speed}))(targets)
    state = jax.vmap(env.reset, (0, None))(tasks, jax.random.key(0))
    step = jax.jit(jax.vmap(env.step, (0, 0, None)))
    costs = []
    for action in np.random.default_rng(1).uniform(-1, 1, (20, 6)).astype(np.float32):
        before, state = state, step(tasks, state, action)
        speed = (env.position(state) - env.position(before))[:, 0] / 0.05
        np.testing.assert_array_equal(state.cost[:, 0], speed > targets)
        np.testing.assert_allclose(state.reward, speed - 0.1 * np.sum(action**2), atol=1e-3)
        costs.append(np.asarray(state.cost[:, 0]))
    total = np.sum(costs, axis=0)
    assert total[0] > total[1] > 0 and total[2] == 0


@pytest.mark.slow
def test_the_cheetah_learns_to_run_within_its_limits(tmp_path, monkeypatch):
    """metacpo train, from another folder."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(FOLDER / "cheetah.toml"), "--run-dir", "run"]) == 0
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        untrained = float(next(csv.DictReader(file))["Metrics/EpRet"])
    with (tmp_path / "run" / "adaptation.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "held-out"]
    first, last = ([row for row in rows if row["step"] == step] for step in ("0", "5"))

    def mean(group, name):
        return np.mean([float(row[name]) for row in group])

    assert mean(last, "return") >= untrained + 25  # m/s, summed over 100 steps
    assert mean(last, "satisfied") >= 0.7 and mean(last, "satisfied") >= mean(first, "satisfied")
    assert mean(last, "episode_cost") <= 0.8 * mean(first, "episode_cost")
