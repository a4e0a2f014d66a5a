"""A task's own robot: bit for bit a bare loop of the model that was edited, and of the MJCF that says the same."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.envs import OwnRobot, PhysicsError
from metacpo.envs.check import check
from metacpo.envs.families.circle_hazard import CircleHazard
from metacpo.envs.physics import MujocoC, build, engine
from metacpo.envs.robots import SUBSTEPS, Car
from metacpo.envs.tasks import Parameter, TaskDistribution

from .worlds import STATE, as_float64

MODEL = """<mujoco><compiler autolimits="true"/><option timestep="0.01" gravity="0 0 {gravity}"/><worldbody>
<geom name="floor" type="plane" size="5 5 .1" friction=".1"/>
<geom name="post" type="box" pos="{post} 0 .2" size=".1 .1 .1"/>
<body name="cart" pos="0 0 .2"><joint name="x" type="slide" axis="1 0 0" damping="{damping}"/>
<geom name="cart" type="sphere" size="{size}" mass="{mass}" friction="{friction} .01 .01"/>
<body name="arm"><joint name="a" type="hinge" axis="0 1 0" {limit}/>
<geom name="arm" type="capsule" fromto="0 0 0 .1 0 .3" size=".02" mass=".2" contype="0" conaffinity="0"/></body></body>
<body name="ball" pos=".25 .02 .1"><freejoint/>
<geom type="sphere" size=".1" mass=".5" friction=".1"/></body></worldbody>
<actuator><motor name="drive" joint="x" gear="{gear}" ctrlrange="-1 1"/></actuator>
<sensor><jointpos name="x" joint="x"/><accelerometer site="s"/></sensor></mujoco>""".replace(
    '<body name="arm">', '<site name="s"/><body name="arm">'
)
PLAIN = dict(gravity=-9.81, post=0.5, damping=0.5, size=0.1, mass=1.0, friction=1.0, limit="", gear=3.0)
EDITS = {
    "mass": (dict(mass=2.5), lambda m: edit_mass(m, 2.5)),
    "damping": (dict(damping=2.0), lambda m: put(m.joint("x").damping, 2.0)),
    "friction": (dict(friction=0.3), lambda m: put(m.geom("cart").friction[:1], 0.3)),
    "gear": (dict(gear=-1.5), lambda m: put(m.actuator("drive").gear[:1], -1.5)),
    "gravity": (dict(gravity=-3.0), lambda m: put(m.opt.gravity[2:], -3.0)),
    "place": (dict(post=0.3), lambda m: put(m.geom("post").pos[:1], 0.3)),
    "size": (dict(size=0.3), lambda m: edit_size(m, 0.3)),
    "limit": (dict(limit='range="-10 10"'), lambda m: edit_limit(m)),
}
PARAMETERS = {"mass": Parameter(1.0, -5.0, 5.0, "kg"), "gear": Parameter(3.0, -9.0, 9.0, "N")}


def put(there, value):
    there[:] = value


def edit_mass(model, mass):
    body = model.body("cart")
    body.inertia[:] *= mass / body.mass[0]
    body.mass[:] = mass


def edit_size(model, size):
    body = model.body("cart")
    model.geom("cart").size[0] = size
    body.inertia[:] = 0.4 * body.mass[0] * size**2


def edit_limit(model):
    model.joint("a").range[:] = np.deg2rad([-10, 10])
    model.jnt_limited[model.joint("a").id] = 1


def mjcf(folder, name="cart", **changes):
    file = folder / f"{name}.xml"
    file.write_text(MODEL.format(**PLAIN | changes))
    return file


def controls(worlds, steps=60):
    return np.random.default_rng(1).uniform(-1, 1, (steps, worlds, 1)).astype(np.float32) * 0.3 + 0.7


def moved(physics, held, params):
    """PhysicsState [T, B] from rest; params: name -> [B]."""
    qpos0, nv = jnp.asarray(physics.model.qpos0, jnp.float32), physics.model.nv

    def run(held, params):
        start = physics.reset(qpos0, jnp.zeros(nv, jnp.float32), params=params)
        return jax.lax.scan(lambda s, u: (physics.step(s, u),) * 2, start, held)[1]

    params = {name: jnp.asarray(values, jnp.float32) for name, values in params.items()}
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(run, (1, 0), 1))(jnp.asarray(held), params))


def bare(model, held, substeps):
    """States [T, s] and sensors [T, y] of one world, step by step."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    data, seen = mujoco.MjData(model), mujoco.MjData(model)
    data.qpos = model.qpos0.astype(np.float32)
    states, sensors = np.empty((len(held), mujoco.mj_stateSize(model, STATE))), np.empty((len(held), model.nsensordata))
    for t, control in enumerate(held):
        data.ctrl = control
        mujoco.mj_step(model, data, substeps)
        mujoco.mj_getState(model, data, states[t], STATE)
        mujoco.mj_setState(model, seen, states[t], STATE)
        seen.ctrl = control
        mujoco.mj_forward(model, seen)
        sensors[t] = seen.sensordata
    return states, sensors


def both(model, params):
    edit_mass(model, params["mass"])
    model.actuator("drive").gear[0] = params["gear"]


@pytest.mark.parametrize("threads", [1, 2])
def test_each_world_is_a_bare_loop_of_its_task_s_model(tmp_path, threads):
    """Three tasks, two worlds each, in one call; a world's task is that of its reset."""
    physics = MujocoC(mjcf(tmp_path), 4, threads, vary=both)
    params = {"mass": np.repeat([0.5, 1.0, 3.0], 2), "gear": np.repeat([3.0, -2.0, 1.0], 2)}
    held = controls(6)
    seen = moved(physics, held, params)
    for world in range(6):
        model = mujoco.MjModel.from_xml_path(str(physics.mjcf))
        both(model, {name: float(np.float32(values[world])) for name, values in params.items()})
        mujoco.mj_setConst(model, mujoco.MjData(model))
        states, sensors = bare(model, held[:, world], 4)
        np.testing.assert_array_equal(as_float64(seen.bits)[:, world], states)
        np.testing.assert_array_equal(seen.sensors[:, world], sensors.astype(np.float32))
    assert np.ptp(seen.qpos[-1, :, 0]) > 0.1


def test_edited_models_move_as_the_mjcf_that_says_the_same(tmp_path):
    """Also where MuJoCo's compiler took a shortcut that the edit has to undo: bounding spheres, frames, constraints."""
    edits = list(EDITS.values())
    physics = MujocoC(mjcf(tmp_path), 4, 1, vary=lambda model, params: edits[int(params["edit"])][1](model))
    held = controls(1, steps=40)
    seen = moved(physics, np.repeat(held, len(edits), axis=1), {"edit": np.arange(len(edits))})
    plain, _ = bare(mujoco.MjModel.from_xml_path(str(physics.mjcf)), held[:, 0], 4)
    for world, (name, (changes, _)) in enumerate(EDITS.items()):
        told, _ = bare(mujoco.MjModel.from_xml_path(str(mjcf(tmp_path, "told", **changes))), held[:, 0], 4)
        np.testing.assert_allclose(as_float64(seen.bits)[:, world], told, atol=1e-9, err_msg=name)
        assert np.abs(plain - told).max() > 1e-3, name


def test_a_model_is_made_once_for_each_task(tmp_path):
    made = []

    def counted(model, params):
        made.append(params)
        both(model, params)

    physics = MujocoC(mjcf(tmp_path), 2, 2, vary=counted)
    params = {"mass": np.repeat([0.5, 1.0], 3), "gear": np.repeat([3.0, 3.0], 3)}
    moved(physics, controls(6, steps=5), params)
    moved(physics, controls(6, steps=5), params)
    assert made == [{"gear": 3.0, "mass": 0.5}, {"gear": 3.0, "mass": 1.0}]


def test_a_task_without_a_model_is_a_broken_world_and_the_others_go_on(tmp_path):
    physics = MujocoC(mjcf(tmp_path), 2, 2, vary=both)
    seen = moved(physics, controls(3, steps=3), {"mass": np.array([1.0, -1.0, 2.0]), "gear": np.ones(3)})
    np.testing.assert_array_equal(np.isnan(seen.qpos).all(axis=-1), [[False, True, False]] * 3)
    assert physics.warning == "vary: body_mass[1] is -1; wanted a positive number, at gear=1, mass=-1"


def robot(folder, vary, masses=(0.5, 2.0), **changes) -> OwnRobot:
    def draw(key):
        a, b = jax.random.split(key)
        mass = jax.random.uniform(a, (), minval=masses[0], maxval=masses[1])
        return {"mass": mass, "gear": jax.random.uniform(b, (), minval=1.0, maxval=3.0)}

    env = OwnRobot(
        mjcf=mjcf(folder),
        tasks=TaskDistribution(PARAMETERS, {"train": draw, "shifted": draw}, (1.0,)),
        observe=lambda now: jnp.concatenate([now.qpos, now.qvel]),
        rewards={"right": lambda step: step.after.qpos[0]},
        costs={"fast": lambda step: (jnp.abs(step.after.qvel[0]) > 1.0).astype(jnp.float32)},
        episode_length=5,
        vary=vary,
    )
    return dataclasses.replace(env, **changes)


def by_chance(model, params):
    model.body_mass[2] = np.random.default_rng().uniform(1, 2)


def explodes(model, params):
    model.jnt_stiffness[0] = -1e30 if params["mass"] > 1.2 else 0.0
    model.qpos_spring[0] = 1.0


WRONG = {
    "AttributeError: property of 'MjModel' object has no setter": lambda m, p: setattr(m, "nq", 3),
    "ValueError: could not broadcast": lambda m, p: setattr(m, "body_mass", np.ones(9)),
    "returns float": lambda m, p: p["mass"],
    "KeyError: 'weight'": lambda m, p: put(m.body_mass[1:], p["weight"]),
    "body_mass[2] is -2; wanted a positive number": lambda m, p: put(m.body_mass[2:3], -2 * p["mass"]),
    "makes another model when it is called twice (": by_chance,
    "opt.timestep is 0.02": lambda m, p: setattr(m.opt, "timestep", 0.02),
    "geom_type changes, which is how the robot is put together": lambda m, p: put(m.geom_type[1:2], 2),
    "geom_friction is not finite": lambda m, p: put(m.geom_friction[0], np.nan),
    "MuJoCo gives the world up at its reset (Nan, Inf or huge value in QACC": explodes,
}


@pytest.mark.parametrize("says", WRONG)
def test_a_vary_that_is_wrong_is_found_by_check_env_with_the_parameters_that_did_it(tmp_path, says):
    (fault,) = [finding for finding in check(robot(tmp_path, WRONG[says])) if finding.fatal]
    assert fault.name == "vary" and says in fault.text and "\n" not in fault.text
    assert ", at gear=" in fault.text and ", mass=" in fault.text


def test_an_engine_of_one_model_refuses_a_vary(tmp_path):
    def own(mjcf, substeps):
        return MujocoC(mjcf, substeps)

    (fault,) = check(robot(tmp_path, both, engine=own))
    assert fault.name == "physics" and "this engine has one model for all tasks" in fault.text


def test_a_built_in_family_takes_a_vary():
    """The Car with weak and swapped wheels, against a bare loop of that model; the reward sees it too."""
    gains = {"left": Parameter(1.0, -2.0, 2.0, ""), "right": Parameter(1.0, -2.0, 2.0, "")}

    def wheels(model, params):
        for name in gains:
            model.actuator(name).gear[0] = params[name]

    env = CircleHazard(Car(), vary=wheels)
    plain = env.tasks.make({})
    tasks = [dataclasses.replace(plain, params=plain.params | gain) for gain in WHEELS]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *tasks)
    held = np.tile(np.array([1.0, 0.5], np.float32), (10, 1))

    def run(task, key):
        start = env.reset(task, key)
        return start, jax.lax.scan(lambda s, u: (env.step(task, s, u),) * 2, start, held)[1]

    start, after = jax.jit(jax.vmap(run, (0, None)))(stacked, jax.random.key(0))
    for i, gain in enumerate(WHEELS):
        model = mujoco.MjModel.from_xml_path(str(Car.mjcf))
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
        model.actuator_gear[:, 0] = gain["left"], gain["right"]
        data, state = mujoco.MjData(model), np.array(as_float64(start.world.physics.bits)[i])
        mujoco.mj_setState(model, data, state, STATE)
        for t, control in enumerate(held):
            data.ctrl = control
            mujoco.mj_step(model, data, SUBSTEPS)
            mujoco.mj_getState(model, data, state, STATE)
            np.testing.assert_array_equal(as_float64(after.world.physics.bits)[i, t], state)
    assert env.with_physics(MujocoC).vary is wheels
    assert np.abs(after.world.physics.qpos[0, -1] - after.world.physics.qpos[1, -1]).max() > 1e-3


WHEELS = [{"left": jnp.float32(a), "right": jnp.float32(b)} for a, b in ((1.0, 1.0), (0.5, -1.5))]


def test_mjx_s_model_of_a_task_is_that_of_the_edited_model(tmp_path):
    """Every number of it, by MJX's own way of reading a model; and what MJX would not notice is refused."""
    mjx = pytest.importorskip("mujoco.mjx")
    from metacpo.envs.physics.mjx_vary import with_leaves

    file = mjcf(tmp_path)
    physics = build(engine("mjx"), file, 2, both)
    values = {"mass": np.array([0.5, 3.0]), "gear": np.array([3.0, -2.0])}
    params = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    leaves = jax.vmap(physics.varied.leaves)(params)  # pyright: ignore[reportAttributeAccessIssue]
    for world in range(2):
        model = physics.model_of({name: float(value[world]) for name, value in params.items()})
        told = jax.tree_util.tree_leaves_with_path(mjx.put_model(model))
        made = with_leaves(mjx.put_model(physics.model), {name: value[world] for name, value in leaves.items()})
        for (path, wanted), found in zip(told, jax.tree.leaves(made), strict=True):
            if "stat" not in jax.tree_util.keystr(path):  # for pictures and for the solver's scale of its tolerance
                np.testing.assert_array_equal(found, wanted, err_msg=jax.tree_util.keystr(path))
    one = {name: value[0] for name, value in params.items()}
    start = jax.eval_shape(lambda p: physics.reset(jnp.zeros(9), jnp.zeros(8), params=p), one)
    after = jax.eval_shape(lambda state: physics.step(state, jnp.zeros(1)), start)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), start)
    lossy = lambda m, p: put(m.dof_frictionloss[:1], 0.1)  # noqa: E731
    for vary, says in ((lambda m, p: edit_limit(m), "jnt_limited"), (lossy, "dof_frictionloss")):
        with pytest.raises(PhysicsError, match=rf"vary: mjx cannot vary {says}.* of cart.xml, which is .*, at mass=1"):
            build(engine("mjx"), file, 2, vary).model_of({"mass": 1.0})


@pytest.mark.slow
def test_mjx_moves_each_task_s_robot_as_the_c_engine_does(tmp_path):
    pytest.importorskip("mujoco.mjx")
    file, held = mjcf(tmp_path), controls(2, steps=5)
    params = {"mass": np.array([0.5, 3.0]), "gear": np.array([3.0, -2.0])}
    c, x = (moved(build(engine(name), file, 2, both), held, params) for name in ("mujoco", "mjx"))
    assert np.abs(c.qpos[-1, 0] - c.qpos[-1, 1]).max() > 0.01
    np.testing.assert_allclose(x.qpos, c.qpos, atol=1e-4)
