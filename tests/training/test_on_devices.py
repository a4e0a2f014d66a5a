"""A run on several devices: the same learning to rounding, whatever their number, and a run may change it."""

import csv
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import metacpo
from metacpo.adaptation.evaluate import evaluate
from metacpo.config.schema import Config
from metacpo.config.sections import AdaptationSettings
from metacpo.runtime.devices import DeviceError, devices_in_use, on_devices, spread
from metacpo.training import loop
from metacpo.training.setup import build
from metacpo.training.state import init_state

SMALL = {"meta": {"tasks": 4, "episodes": 6, "steps": 2}, "hidden": [8]}
RUN = Config.preset("bandit", iterations=3, checkpoint_every=1, **SMALL)
# Sums over tasks are rounded in another order, and two updates later some of it shows.
CLOSE = {"rtol": 2e-3, "atol": 2e-4}


def after_one_iteration(config: Config, devices: int):
    setup = build(config, devices=devices)
    state = on_devices(init_state(setup, 0), devices)
    return on_devices(loop.compile_iteration(setup, state, Console())(state), 1)


@pytest.mark.parametrize(
    "algorithm, several",
    [
        ("meta-cpo", (2, 4)),
        pytest.param("c-maml", (4,), marks=pytest.mark.slow),  # one cost critic for all tasks
        pytest.param("meta-crpo", (2, 4), marks=pytest.mark.slow),
    ],
)
def test_an_iteration_is_the_same_on_any_number_of_devices(algorithm, several):
    config = dataclasses.replace(RUN, algorithm=algorithm)
    one, row = after_one_iteration(config, 1)
    for devices in several:
        state, other = after_one_iteration(config, devices)
        np.testing.assert_allclose(state.theta, one.theta, **CLOSE)
        np.testing.assert_allclose(state.normaliser.mean, one.normaliser.mean, **CLOSE)
        assert other.keys() == row.keys()
        for tag in row:
            np.testing.assert_allclose(other[tag], row[tag], err_msg=tag, **CLOSE)


def test_every_device_steps_its_own_worlds():
    """MuJoCo, a model for each task: bit for bit what one device steps, while the calls of all come at once."""
    env = metacpo.make("car-circle-wheels")
    tasks = env.tasks.sample_batch(jax.random.key(0), 4)
    keys = jax.random.split(jax.random.key(1), (4, 3))
    actions = jax.random.uniform(jax.random.key(2), (20, 4, 3, 2), jnp.float32, -1, 1)

    def episodes(tasks, keys, actions):
        start = jax.vmap(jax.vmap(env.reset, (None, 0)))(tasks, keys)
        advance = jax.vmap(jax.vmap(env.step, (None, 0, 0)), (0, 0, 0))
        return jax.lax.scan(lambda s, a: ((after := advance(tasks, s, a)), after.obs), start, actions)[1]

    seen = []
    for devices in (1, 2, 4):
        given = on_devices((tasks, keys, actions), devices)
        with devices_in_use(devices):
            seen.append(np.asarray(jax.jit(spread(episodes, (0, 0, 1), 1))(*given)))
    assert np.all(np.isfinite(seen[0]))
    assert len(np.unique(seen[0][-1].reshape(4 * 3, -1), axis=0)) == 4 * 3  # no two worlds are alike
    for other in seen[1:]:
        np.testing.assert_array_equal(other, seen[0])


def rows_of(run):
    with (run.path / "metrics.csv").open(newline="") as file:
        return [{tag: float(x) for tag, x in row.items() if tag != "seconds"} for row in csv.DictReader(file)]


def test_a_run_moves_between_numbers_of_devices(tmp_path):
    straight = loop.train(RUN, tmp_path / "one")
    loop.train(dataclasses.replace(RUN, iterations=1), tmp_path / "moved", devices=2)
    dataclasses.replace(RUN, iterations=3).save(tmp_path / "moved" / "config.toml")
    moved = loop.resume(tmp_path / "moved", devices=4)
    assert moved.finished and int(moved.state.iteration) == 3
    assert len(moved.state.theta.devices()) == 1  # whoever goes on with it needs no mesh
    np.testing.assert_allclose(moved.state.theta, straight.state.theta, **CLOSE)
    for row, other in zip(rows_of(straight), rows_of(moved), strict=True):
        assert row.keys() == other.keys()
        np.testing.assert_allclose(other["Metrics/EpRet"], row["Metrics/EpRet"], **CLOSE)


def test_an_evaluation_takes_as_many_devices_as_can_share_its_tasks():
    config = dataclasses.replace(RUN, adaptation=AdaptationSettings(steps=1, episodes=4, tasks=6))
    rows = []
    for devices in (1, 4):  # two of the four have three tasks each
        setup = build(config, devices=devices)
        result = evaluate(setup, init_state(setup, 0), config.adaptation, ("held-out",), seed=0)
        assert len(result.splits[0].adaptation.phi.devices()) == 1
        rows.append([(row.step, row.episode_return, row.episode_cost) for row in result.rows])
    np.testing.assert_allclose(rows[1], rows[0], **CLOSE)


def test_what_devices_cannot_share_is_refused_before_there_is_a_folder(tmp_path):
    with pytest.raises(DeviceError, match=re.escape("devices: 3 cannot share meta.tasks = 4; allowed: 1, 2, 4")):
        loop.train(RUN, tmp_path / "run", devices=3)
    assert not (tmp_path / "run").exists()
