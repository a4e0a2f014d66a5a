"""MJX against MuJoCo's C engine on the same controls, and what becomes of what MJX cannot do."""

import sys
from importlib import metadata

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.envs import make
from metacpo.envs.physics import MujocoC, PhysicsError, engine
from metacpo.envs.robots import CAR, POINT, POINT_BUTTON, SUBSTEPS, Car, Point

pytest.importorskip("mujoco.mjx")
WORLDS = 6
ENGINES = ("mujoco", "mjx")


def both(mjcf, robot, controls, places=None):
    """PhysicsState [T, B] of each engine after the same controls [T, B, 2] from the same places, at rest."""
    rng = np.random.default_rng(1)
    xy = jnp.asarray(rng.uniform(-1, 1, (WORLDS, 2)), jnp.float32)
    starts = jax.vmap(lambda p: robot.start(p, 3 * p[:1]))(xy)

    def roll(physics):
        def world(qpos, held):
            start = physics.reset(qpos, jnp.zeros(robot.velocities, jnp.float32), places)
            return jax.lax.scan(lambda s, u: (physics.step(s, u, places),) * 2, start, held)[1]

        return jax.jit(jax.vmap(world, in_axes=(0, 1), out_axes=1))(starts, jnp.asarray(controls, jnp.float32))

    return [jax.tree.map(np.asarray, roll(engine(name)(mjcf, SUBSTEPS))) for name in ENGINES]


def controls(steps):
    return np.random.default_rng(0).uniform(-1, 1, (steps, WORLDS, 2))


@pytest.mark.slow
def test_point_positions_agree_for_a_hundred_steps():
    """Of MuJoCo's, in metres. The Point's turning servo is stiff: at 2 ms it jumps between its limits from step to
    step, and a rounding error grows until it decides which. After ten times as many steps, centimetres are left."""
    c, x = both(POINT, Point(), controls(100))
    assert np.abs(c.qvel).max() > 0.1
    apart = np.abs(x.qpos - c.qpos).max(axis=1)  # [T, 3]
    assert apart[: 100 // SUBSTEPS, :2].max() <= 1e-4
    assert apart[:, :2].max() <= 0.02
    first = slice(0, 2)
    np.testing.assert_allclose(x.sensors[first, :, 3:], c.sensors[first, :, 3:], atol=5e-3)
    np.testing.assert_allclose(x.sensors[first, :, :3], c.sensors[first, :, :3], atol=0.1)  # accelerations, m/s²


@pytest.mark.slow
def test_in_float64_a_turning_point_agrees_to_rounding(x64):
    c, x = both(POINT, Point(), controls(10))
    assert x.qpos.dtype == np.float64
    np.testing.assert_allclose(x.qpos, c.qpos, atol=1e-6)


@pytest.mark.slow
def test_the_button_is_touched_on_both():
    grid = np.stack(np.meshgrid([-0.8, -0.4, 0.0, 0.4, 0.8], [-0.5, 0.5]), axis=-1).reshape(10, 2)
    places = jnp.asarray(np.concatenate([grid, np.full((10, 1), 0.1)], axis=1), jnp.float32)
    c, x = both(POINT_BUTTON, Point(), np.broadcast_to([1.0, 0.0], (60, WORLDS, 2)), places)
    touched = c.sensors[..., -10:]
    assert touched.sum() >= 10
    assert np.mean(touched != x.sensors[..., -10:]) <= 0.01  # a contact may begin a step earlier
    assert np.mean(np.abs(x.qpos[..., :2] - c.qpos[..., :2])) <= 0.02


@pytest.mark.slow
def test_the_car_rolls_on_both():
    """Contacts of wheels that touch the floor and bear load; compilation alone takes most of a minute."""
    c, x = both(CAR, Car(), controls(30))
    assert np.abs(c.qpos[-1, :, :2] - c.qpos[0, :, :2]).max() > 0.05
    np.testing.assert_allclose(x.qpos[..., :3], c.qpos[..., :3], atol=5e-3)


@pytest.mark.slow
def test_an_environment_runs_on_either_engine():
    """Observation (but for what the turning servo shakes), reward and cost of one environment, ten steps on."""
    found = []
    for name in ENGINES:
        env = make("point-circle", physics=name)
        task = env.tasks.make({})

        def drive(key, env=env, task=task):
            action = jnp.array([1.0, 0.0])
            return jax.lax.scan(lambda s, _: (env.step(task, s, action),) * 2, env.reset(task, key), length=10)[1]

        found.append(jax.jit(jax.vmap(drive))(jax.random.split(jax.random.key(0), 3)))
    c, x = found
    assert float(jnp.abs(c.reward).max()) > 0.001
    steady = np.r_[3, 9:28]  # forward speed, magnetometer, lidar
    np.testing.assert_allclose(x.obs[..., steady], c.obs[..., steady], atol=2e-2)
    np.testing.assert_allclose(x.reward, c.reward, rtol=0.05, atol=1e-3)
    np.testing.assert_array_equal(x.cost, c.cost)


def test_a_model_that_mjx_cannot_simulate_is_named(tmp_path):
    mjcf = tmp_path / "crate.xml"
    bodies = "".join(
        f'<body name="{name}" pos="0 0 {z}"><freejoint/><geom name="{name}" type="{name}" size="0.1 0.1 0.1"/></body>'
        for name, z in (("box", 0.1), ("cylinder", 0.4))
    )
    mjcf.write_text(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
    MujocoC(mjcf, 1)
    with pytest.raises(PhysicsError, match=r"simulate crate.xml: .*CYLINDER.*take physics 'mujoco'") as error:
        engine("mjx")(mjcf, 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"), [("<mujoco><worldbody/></mujoc>", "does not compile"), (None, "does not compile")]
)
def test_a_file_that_is_no_model_is_named(tmp_path, text, says):
    mjcf = tmp_path / "broken.xml"
    if text:
        mjcf.write_text(text)
    for name in ENGINES:
        with pytest.raises(PhysicsError, match=f"mjcf: .*broken.xml {says}") as error:
            engine(name)(mjcf, 1)
        assert "\n" not in str(error.value)


def test_an_engine_that_is_not_there_is_named_with_its_remedy(monkeypatch):
    with pytest.raises(PhysicsError, match="physics: 'bullet' is not one of mujoco, mjx, warp"):
        engine("bullet")
    with pytest.raises(PhysicsError, match="warp"):  # no GPU here, and mostly no Warp either
        engine("warp")
    monkeypatch.setattr(metadata, "version", lambda name: "3.2.1")
    monkeypatch.setattr("metacpo.envs.physics.mjx.version", lambda name: "3.2.1")
    with pytest.raises(PhysicsError, match=r"'mjx' is mujoco-mjx 3.2.1, but mujoco is .*pip install 'mujoco==3.2.\*'"):
        engine("mjx")
    monkeypatch.delitem(sys.modules, "metacpo.envs.physics.mjx")
    monkeypatch.setitem(sys.modules, "mujoco.mjx", None)
    monkeypatch.delattr(mujoco, "mjx", raising=False)
    with pytest.raises(PhysicsError, match=r"'mjx' is not installed .*pip install 'metacpo\[mjx\]'"):
        engine("mjx")
