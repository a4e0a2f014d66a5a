"""Car-Circle-Hazard and Point-Button-Hazard: lossless physics, one function for every task, rules by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.worlds import as_float64, bare_loop
from metacpo.envs import Environment, make
from metacpo.envs.costs import SummedCosts, hazard_cost, of_kind, total_cost
from metacpo.envs.families.button import BUTTONS, HAZARDS, TIMER, ButtonWorld, PointButton, _spheres, reward_and_cost
from metacpo.envs.families.circle_hazard import CircleHazard
from metacpo.envs.physics import MujocoC
from metacpo.envs.registry import UnknownEnvironment
from metacpo.envs.robots import POINT_BUTTON, Car, Point, rotation_matrix
from metacpo.envs.tasks import TaskError
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout

NAMES = ("car-circle-hazard", "point-button-hazard", "car-circle", "point-circle-hazard")
STEPS, WORLDS = 60, 5


def made(name: str, threads: int | None = None):
    """The environment with a number of threads."""
    return {
        "car-circle-hazard": lambda: CircleHazard(Car(), partial(MujocoC, threads=threads)),
        "point-button-hazard": lambda: PointButton(partial(MujocoC, threads=threads)),
    }[name]()


def physics_of(state):
    """MuJoCo's part of a state."""
    return state.world.physics


def wander(env, split="shifted"):
    """(starts, states [T, B], controls [T, B, 2], tasks) of random controls on several tasks at once."""
    tasks = env.tasks.sample_batch(jax.random.key(5), WORLDS, split)
    controls = jax.random.normal(jax.random.key(6), (STEPS, WORLDS, 2)) + jnp.array([0.5, 0.0])
    start = jax.jit(jax.vmap(env.reset))(tasks, jax.random.split(jax.random.key(7), WORLDS))

    @jax.jit
    def run(start):
        def one(state, action):
            state = jax.vmap(env.step)(tasks, state, action)
            return state, state

        return jax.lax.scan(one, start, controls)[1]

    return start, run(start), np.asarray(controls), tasks


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", NAMES[:2])
def test_worlds_equal_bare_mujoco(name, threads):
    """Bit for bit, contacts and all; every world has its own places."""
    env = made(name, threads)
    start, states, controls, tasks = wander(env)
    for i in range(WORLDS):
        places = None
        if name == "point-button-hazard":
            params = {key: value[i] for key, value in tasks.params.items()}
            places = np.asarray(_spheres(params, start.world.buttons[i]))
        begin = as_float64(physics_of(start).bits[i])
        expected, sensors = bare_loop(env.physics, begin, controls[:, i], places)
        np.testing.assert_array_equal(as_float64(physics_of(states).bits[:, i]), expected)
        np.testing.assert_array_equal(physics_of(states).sensors[:, i], sensors.astype(np.float32))
    assert np.all(np.isfinite(states.obs)) and states.obs.shape[-1] == env.observation_size


def test_a_button_stops_the_robot_bit_for_bit():
    """Driven into a sphere: contacts that act, reported, and the same as bare MuJoCo's."""
    physics = MujocoC(POINT_BUTTON, 10, 2)
    places = np.tile(np.array([0.0, 0.0, -9.0], np.float32), (BUTTONS, 1)) + np.arange(BUTTONS)[:, None].astype("f4")
    places[:, 2] = -9
    places[3] = [0.5, 0.0, 0.1]
    ahead = np.tile(np.array([1.0, 0.0], np.float32), (200, 1))

    def run(places):
        start = physics.reset(jnp.zeros(3), jnp.zeros(3), places)
        return start, jax.lax.scan(lambda s, a: (physics.step(s, a, places),) * 2, start, jnp.asarray(ahead))[1]

    start, states = jax.jit(run)(jnp.asarray(places))
    expected, sensors = bare_loop(physics, as_float64(start.bits), ahead, places)
    np.testing.assert_array_equal(as_float64(states.bits), expected)
    np.testing.assert_array_equal(states.sensors, sensors.astype(np.float32))
    contacts = np.asarray(states.sensors[:, -BUTTONS:])
    assert contacts[:, 3].max() >= 1 and np.count_nonzero(np.delete(contacts, 3, axis=1)) == 0
    assert expected[-1, 1] < 0.4  # x: in front of it


def test_places_must_be_given_where_the_model_has_them():
    with pytest.raises(ValueError, match="places: none given, the model has 10 mocap bodies"):
        MujocoC(POINT_BUTTON, 10, 1).reset(jnp.zeros(3), jnp.zeros(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(NAMES[0], marks=pytest.mark.slow), NAMES[1]])
def test_vmap_equals_a_loop(name):
    env = made(name, 2)
    _, states, controls, tasks = wander(env, "train")
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    for i in (0, 3):
        task = jax.tree.map(lambda x, i=i: x[i], tasks)
        state = reset(task, jax.random.split(jax.random.key(7), WORLDS)[i])
        for t in range(10):
            state = step(task, state, jnp.asarray(controls[t, i]))
        np.testing.assert_array_equal(physics_of(state).bits, physics_of(states).bits[9, i])
        np.testing.assert_allclose(state.obs, states.obs[9, i], atol=1e-5)
        np.testing.assert_allclose(state.cost, states.cost[9, i], atol=1e-6)


@pytest.mark.parametrize("name", NAMES[:2])
def test_each_key_is_used_once(name):
    env = make(name)
    task = env.tasks.sample(jax.random.key(0))
    with jax.debug_key_reuse(True):
        state = jax.jit(env.reset)(task, jax.random.key(1))
        jax.jit(env.step)(task, state, jnp.zeros(2))


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    """One compiled rollout serves tasks with different numbers of objects; nothing breaks, starts cost nothing."""
    env = make(name)
    assert isinstance(env, Environment)
    task = env.tasks.make({})
    state = jax.jit(env.reset)(task, jax.random.key(0))
    assert state.obs.shape == (env.observation_size,)
    assert state.cost.shape == (len(env.cost_names),) == (len(env.tasks.cost_limit),)
    np.testing.assert_array_equal(state.cost, 0)
    assert env.position(state).shape == (2,)
    sizes = {"car-circle-hazard": 56, "point-button-hazard": 60, "car-circle": 40, "point-circle-hazard": 44}
    assert env.observation_size == sizes[name]


@pytest.mark.slow
def test_the_layout_lasts_an_episode_and_differs_between_episodes():
    env = make("point-button-hazard")
    start, states, _, tasks = wander(env)
    np.testing.assert_array_equal(states.world.hazards[-1], start.world.hazards)
    np.testing.assert_array_equal(states.world.buttons[-1], start.world.buttons)
    assert len(np.unique(np.asarray(start.world.hazards[:, 0, 0]))) == WORLDS
    assert np.all(np.asarray(start.world.goal) < np.asarray(tasks.params["buttons"]))


@pytest.mark.parametrize(
    ("at", "cost"),
    [((0.0, 0.0), 0.36), ((0.06, 0.0), 0.18), ((0.13, 0.0), 0.0), ((1.0, 0.03), 0.27), ((3.0, 0.0), 0.0)],
)
def test_hazard_cost_by_hand(at, cost):
    """Two hazards at (0, 0) and (1, 0); a third at (3, 0) is not there."""
    hazards, present = jnp.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]), jnp.array([True, True, False])
    assert float(hazard_cost(jnp.array(at), hazards, present, 0.12, 3.0)) == pytest.approx(cost, abs=1e-6)


@pytest.mark.parametrize(
    ("touched", "timer", "reward", "cost"),
    [
        ({}, 0, 0.5, 0.0),
        ({1: 1}, 0, 1.5, 0.0),  # the goal
        ({1: 2, 0: 1}, 0, 1.5, 1.0),  # two contacts with the goal press it once
        ({0: 2, 2: 1}, 0, 0.5, 3.0),  # each contact with a wrong one counts
        ({0: 2, 2: 1}, 4, 0.5, 0.0),  # not while the timer runs
    ],
)
def test_button_reward_and_cost_by_hand(touched, timer, reward, cost):
    """The goal, button 1, is at (2, 0); the robot goes from (0, 0) to (0.5, 0)."""
    env = make("point-button-hazard")
    task = env.tasks.make({"buttons": 3, "hazards": 0})
    buttons = jnp.zeros((BUTTONS, 2)).at[1, 0].set(2.0)
    physics = physics_of(jax.jit(env.reset)(task, jax.random.key(0)))
    world = ButtonWorld(physics, buttons, jnp.zeros((HAZARDS, 2)), jnp.int32(1), jnp.int32(timer), jax.random.key(0))
    contacts = jnp.zeros(BUTTONS).at[jnp.array(list(touched), int)].set(jnp.array(list(touched.values()), float))
    got = reward_and_cost(task, world, jnp.zeros(2), jnp.array([0.5, 0.0]), contacts)
    assert float(got[0]) == pytest.approx(reward)
    np.testing.assert_allclose(got[1], [cost, 0.0])


def test_a_press_starts_the_timer_and_hides_the_buttons():
    env = make("point-button-hazard")
    task = env.tasks.make({})
    state = jax.jit(env.reset)(task, jax.random.key(3))
    world = state.world
    hidden = ButtonWorld(world.physics, world.buttons, world.hazards, world.goal, jnp.int32(TIMER), jax.random.key(0))
    assert np.any(np.asarray(env.observe(task, world)[12:28]) > 0)
    np.testing.assert_array_equal(env.observe(task, hidden)[12:28], 0)
    np.testing.assert_array_equal(env.observe(task, hidden)[28:], env.observe(task, world)[28:])


def test_rotation_matrix_of_a_quarter_turn():
    quarter = jnp.array([np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)], jnp.float32)
    np.testing.assert_allclose(rotation_matrix(quarter), [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)


def test_an_upright_car_sees_what_a_point_sees():
    at, offsets = jnp.array([0.3, -0.2, 0.1]), jnp.array([[1.0, 0.0], [0.2, -0.7]])
    c, s = np.cos(0.7), np.sin(0.7)
    axes = jnp.array([c, s, 0, -s, c, 0], jnp.float32)
    car = Car().ego(jnp.concatenate([jnp.zeros(19), at, jnp.zeros(3), axes]), offsets)
    point = Point().ego(jnp.concatenate([jnp.zeros(12), at, jnp.zeros(3), axes]), offsets)
    np.testing.assert_allclose(car, point, atol=1e-6)


@pytest.mark.slow
def test_summed_costs_are_the_same_worlds_with_one_cost():
    env = make("car-circle-hazard")
    one = SummedCosts(env)
    assert one.cost_names == ("walls+hazards",) and len(one.tasks.cost_limit) == 1
    policy, normaliser = GaussianPolicy(56, 2, (4,), 1.0), Normaliser.init(56)
    phi, task = policy.init(jax.random.key(0)), env.tasks.make({"wall": 0.05})
    both = [rollout(e, policy, phi, normaliser, task, jax.random.key(1), 2) for e in (env, one)]
    np.testing.assert_array_equal(both[0].obs, both[1].obs)
    np.testing.assert_array_equal(jnp.max(both[0].cost, axis=-1, keepdims=True), both[1].cost)
    assert float(both[1].cost.sum()) > 0


@pytest.mark.parametrize(("kind", "each", "total"), [("indicator", [1, 1, 0], 1), ("graded", [2, 0.25, 0], 2.25)])
def test_a_step_costs_by_degrees_or_0_or_1_in_total(kind, each, total):
    env = make("point-button-hazard", cost_kind=kind)
    cost = of_kind(kind, jnp.array([2.0, 0.25, 0.0]))
    np.testing.assert_array_equal(cost, each)
    assert float(total_cost(env, cost)) == total == float(total_cost(env, np.asarray(cost)[None])[0])
    assert float(total_cost(SummedCosts(env), jnp.array([0.25]))) == 0.25


def test_a_cost_that_is_no_number_is_no_indicator():
    cost = of_kind("indicator", jnp.array([jnp.nan, 1.0]))
    assert np.isnan(cost[0]) and np.isnan(total_cost(make("point-button-hazard"), cost))


def test_other_engines_keep_the_kind_of_costs_and_other_families_have_none():
    assert CircleHazard(Car(), cost_kind="graded").with_physics(MujocoC).cost_kind == "graded"
    assert PointButton(cost_kind="graded").with_physics(MujocoC).cost_kind == "graded"
    with pytest.raises(UnknownEnvironment, match="cost_kind: 'graded' is not for navigation, which has no with_cost"):
        make("navigation", cost_kind="graded")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("car-circle-hazard", {"hazards": 12}, r"task\.hazards: no room for 12 .*take fewer, or a larger extent"),
        ("car-circle-hazard", {"hazards": 13}, r"task\.hazards: 13 is not in \[0, 12\] hazards"),
        ("car-circle-hazard", {"hazards": 2.5}, r"task\.hazards: 2\.5 is not a whole number of hazards"),
        ("point-button-hazard", {"extent": 0.8}, r"task\.extent: no room for 4 buttons and 7 hazards"),
        ("point-button-hazard", {"buttons": 0}, r"task\.buttons: 0 is not in \[1, 10\] buttons"),
        ("point-button-hazard", {"radius": 1.0}, r"task: unknown field 'radius'; allowed: extent, buttons, hazards"),
    ],
)
def test_what_is_not_allowed_is_named(name, params, message):
    with pytest.raises(TaskError, match=message):
        make(name).tasks.make(params)
