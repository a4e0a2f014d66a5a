"""A world that MuJoCo gives up is NaN for whoever learns, by whichever step, and MuJoCo says so nowhere else."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.envs.physics import MujocoC, engine

from .worlds import STATE, as_float64

HINGE = """<mujoco><option timestep="0.2">{flag}</option><worldbody><body>
<joint name="j" type="hinge" axis="0 1 0"/><geom size=".1" pos=".3 0 0"/></body></worldbody>
<actuator><motor joint="j" gear="{gear}"/></actuator>
<sensor><jointpos joint="j"/><jointvel joint="j"/></sensor></mujoco>"""
OFF = '<flag autoreset="disable"/>'


def hinge(folder, gear="1e12", flag=""):
    mjcf = folder / "hinge.xml"
    mjcf.write_text(HINGE.format(gear=gear, flag=flag))
    return mjcf


def moved(physics, controls, qpos=0.1):
    """PhysicsState [T, B] after each control [T, B] from rest."""
    controls = jnp.asarray(controls, jnp.float32)[..., None]

    def run(controls):
        start = physics.reset(jnp.full(1, qpos, jnp.float32), jnp.zeros(1, jnp.float32))
        return jax.lax.scan(lambda s, u: (physics.step(s, u),) * 2, start, controls)[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(run, 1, 1))(controls))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("flag", ["", OFF], ids=["autoreset", "no autoreset"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("substeps", [1, 2, 5])
def test_a_world_that_blows_up_is_nan_and_stays_so_and_the_others_are_mujoco_s(
    tmp_path, capfd, substeps, threads, flag
):
    """World 1 is pushed at once, world 3 in the third step; 0, 2 and 4 are never."""
    mjcf = hinge(tmp_path, flag=flag)
    controls = np.zeros((4, 5))
    controls[0, 1], controls[2, 3] = 1.0, 1.0
    physics = MujocoC(mjcf, substeps, threads)
    after = moved(physics, controls)
    broken = np.cumsum(controls, axis=0) > 0
    for seen in (after.sensors, after.qpos, after.qvel):
        np.testing.assert_array_equal(np.isnan(seen).all(axis=-1), broken)
    model = mujoco.MjModel.from_xml_path(str(mjcf))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    data, state = mujoco.MjData(model), np.empty(physics.state_size)
    data.qpos = np.float64(np.float32(0.1))
    for t in range(len(controls)):
        mujoco.mj_step(model, data, substeps)
        mujoco.mj_getState(model, data, state, STATE)
        for world in np.flatnonzero(~broken[t]):
            np.testing.assert_array_equal(as_float64(after.bits)[t, world], state)
    assert physics.warning is not None and "QACC at DOF 0" in physics.warning
    out, err = capfd.readouterr()
    assert "QACC" not in out + err and [path.name for path in tmp_path.iterdir()] == ["hinge.xml"]


@pytest.mark.parametrize("substeps", [1, 3])
def test_a_control_that_is_no_number_breaks_its_world_alone(tmp_path, substeps):
    """MuJoCo takes it for 0, warns, and neither resets the world nor stops its time."""
    controls = np.zeros((2, 3))
    controls[1, 1] = np.nan
    seen = moved(MujocoC(hinge(tmp_path, gear="1"), substeps, 2), controls).qpos[..., 0]
    np.testing.assert_array_equal(np.isnan(seen), np.isnan(controls))


def test_a_start_that_is_no_place_is_broken(tmp_path):
    physics = MujocoC(hinge(tmp_path, gear="1"), 1, 2)
    starts = jnp.asarray([[0.1], [3e12], [jnp.nan]], jnp.float32)
    seen = jax.jit(jax.vmap(lambda q: physics.reset(q, jnp.zeros(1))))(starts)
    for numbers in (seen.qpos, seen.qvel, seen.sensors):
        np.testing.assert_array_equal(np.isnan(numbers).all(axis=-1), [False, True, True])


def test_a_world_of_mujoco_s_own_start_is_not_broken(tmp_path):
    """At the place to which MuJoCo resets, without a control: the same numbers as after a reset, and no warning."""
    seen = moved(MujocoC(hinge(tmp_path), 1, 1), np.zeros((2, 2)), qpos=0.0)
    assert np.isfinite(seen.sensors).all()


def test_who_listened_before_hears_again(tmp_path):
    heard = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        moved(MujocoC(hinge(tmp_path), 1, 2), np.ones((1, 2)))
        assert heard == [] and mujoco.get_mju_user_warning() is not None
        model = mujoco.MjModel.from_xml_path(str(tmp_path / "hinge.xml"))
        data = mujoco.MjData(model)
        data.ctrl = 1.0
        mujoco.mj_step(model, data)
        assert len(heard) == 1 and "QACC" in heard[0]
    finally:
        mujoco.set_mju_user_warning(None)


@pytest.mark.slow
@pytest.mark.parametrize("gear", ["1", "1e12"])
def test_mjx_has_the_same_broken_worlds(tmp_path, gear):
    pytest.importorskip("mujoco.mjx")
    mjcf, controls = hinge(tmp_path, gear=gear), np.zeros((3, 3))
    controls[0, 1], controls[1, 2] = 1.0, np.nan
    c, x = (moved(engine(name)(mjcf, 2), controls) for name in ("mujoco", "mjx"))
    assert np.isnan(c.qpos).sum() == (5 if gear == "1e12" else 2)
    np.testing.assert_array_equal(np.isnan(x.qpos), np.isnan(c.qpos))
    np.testing.assert_array_equal(np.isnan(x.sensors), np.isnan(c.sensors))
