"""Cars that nobody has measured: what vary edits, what a crossed car does, and that nothing of it is seen."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.envs import make
from metacpo.envs.check import check
from metacpo.envs.check_bodies import vary_faults
from metacpo.envs.families.circle_wheels import CAR, vary

ENV, KNOWN = make("car-circle-wheels"), make("car-circle-hazard")
KEY = jax.random.key(0)
ACTIONS = jnp.array([[0.9, 0.9]] * 20 + [[0.9, 0.0]] * 20)  # straight on, then a turn by the left wheel alone
OTHERS = {"left": 2.0, "right": 0.5, "mass": 1.5, "friction": 0.5}


@pytest.fixture(scope="module")
def drive():
    """(start, states [40]) of a car under `ACTIONS`."""

    @jax.jit
    def run(task, swap):
        start = ENV.reset(task, KEY)

        def step(state, action):
            after = ENV.step(task, state, jnp.where(swap, action[::-1], action))
            return after, after

        return start, jax.lax.scan(step, start, ACTIONS)[1]

    return lambda swap=False, **car: run(ENV.tasks.make(car), swap)


def test_the_reference_car_is_that_of_the_known_family(drive):
    start, states = drive()
    task = KNOWN.tasks.make({})
    plain = KNOWN.reset(task, KEY)
    np.testing.assert_allclose(start.obs, plain.obs, atol=1e-6)
    step = jax.jit(KNOWN.step)
    for action in ACTIONS:
        plain = step(task, plain, action)
    np.testing.assert_allclose(states.obs[-1], plain.obs, atol=1e-5)
    np.testing.assert_array_equal(states.world.physics.bits[-1], plain.world.physics.bits)


def test_vary_edits_wheels_mass_and_friction():
    model = mujoco.MjModel.from_xml_path(str(ENV.physics.mjcf))
    plain = mujoco.MjModel.from_xml_path(str(ENV.physics.mjcf))
    vary(model, OTHERS | {"radius": 1.0})
    assert (model.actuator("left").gear[0], model.actuator("right").gear[0]) == (2.0, 0.5)
    np.testing.assert_allclose(model.body_mass, 1.5 * plain.body_mass)
    np.testing.assert_allclose(model.body_inertia, 1.5 * plain.body_inertia)
    np.testing.assert_allclose(model.geom_friction, 0.5 * plain.geom_friction)


def test_a_crossed_car_takes_the_other_wheel_s_torque(drive):
    crossed, swapped = drive(crossed=1.0)[1], drive(swap=True)[1]
    np.testing.assert_array_equal(crossed.world.physics.bits, swapped.world.physics.bits)
    plain = drive()[1]
    place = np.asarray(ENV.position(plain))[-1], np.asarray(ENV.position(crossed))[-1]
    assert np.linalg.norm(place[0] - place[1]) > 0.02


@pytest.mark.parametrize("name", OTHERS)
def test_every_number_of_the_car_matters_and_none_is_seen_at_the_start(drive, name):
    (start, states), (_, plain) = drive(**{name: OTHERS[name]}), drive()
    # The accelerometer feels what the floor does to a wheel: a start at rest on the floor is seen alike but for that.
    np.testing.assert_array_equal(start.obs[3:], drive()[0].obs[3:])
    assert np.abs(ENV.position(states)[-1] - ENV.position(plain)[-1]).max() > 1e-4


def test_draws():
    """The course is that of the known family's training in both splits, the car another one; half are crossed."""
    sampled = {s: jax.tree.map(np.asarray, ENV.tasks.sample_batch(KEY, 400, s).params) for s in ("train", "shifted")}
    for split, gain, mass, friction in (
        ("train", (0.5, 1.5), (0.7, 1.5), (0.5, 1.5)),
        ("shifted", (1.5, 2.0), (1.5, 2.0), (0.3, 0.5)),
    ):
        params = sampled[split]
        assert set(params) == {*KNOWN.tasks.parameters, *CAR}
        for name, (low, high) in {"left": gain, "right": gain, "mass": mass, "friction": friction}.items():
            assert low <= params[name].min() < low + 0.1 * (high - low) < high - 0.1 * (high - low) < params[name].max()
        assert 150 < params["crossed"].sum() < 250
        assert 1.0 <= params["radius"].min() and params["radius"].max() <= 1.5
        assert abs(np.corrcoef(params["left"], params["right"])[0, 1]) < 0.15


def test_check_env_tries_the_cars(monkeypatch):
    assert list(vary_faults(ENV)) == []
    monkeypatch.setattr(ENV.known.physics.varied, "_vary", lambda model, params: model.body_mass.fill(-1.0))
    assert "body_mass" in str(next(iter(vary_faults(ENV))))


@pytest.mark.slow
def test_the_contract_holds():
    assert [finding for finding in check(ENV) if finding.fatal] == []
