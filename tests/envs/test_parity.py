"""Safety-Gymnasium 1.0.0's own numbers: episodes recorded by `benchmarks/parity.py`, with its MuJoCo the same as ours.

Given the recorded states, actions and layouts, our observation, reward and costs are upstream's at every step, and
every state and action give the next state. Sensors leave the engine as float32, so that a value v carries an error of
6e-8·|v|: the tolerance is 1e-6 for |v| ≤ 1, relative above. Of a robot beside an object the same error of its place
turns the direction to it, by 1/distance as much, and a lidar's bins with it: that is added, for lidars. The Car's
acceleration is what MuJoCo's solver makes of its contacts, to its tolerance: upstream's starts warm, from the step
before, ours cold (no call may depend on the one before); in 1 of 500 steps they differ, by 1e-4.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from metacpo.envs import Environment, make
from metacpo.envs.base import OfCostKinds
from metacpo.envs.costs import of_kind, total_cost
from metacpo.envs.families.button import ButtonWorld, PointButton, _spheres, reward_and_cost
from metacpo.envs.families.circle_hazard import CircleHazard
from metacpo.envs.physics import PhysicsState
from metacpo.envs.physics.pools import Pool

REFERENCE = Path(__file__).parent / "reference"
NAMES = ("point-circle", "car-circle-hazard", "point-button-hazard")
RECORDED = [(version, name) for version in ("4.0.0", "3.17.0") for name in NAMES]
BINS = 16
SOLVER = 1e-4


class Episode:
    """A recorded episode, and our environment and task of it."""

    def __init__(self, version: str, name: str):
        self.env = make(name)
        self.name = name
        with np.load(REFERENCE / f"mujoco-{version}" / f"{name}.npz") as file:
            self.data = {key: file[key] for key in file.files}
        params = {key.removeprefix("task_"): value.item() for key, value in self.data.items() if key[:5] == "task_"}
        self.task = self.env.tasks.make(params)
        self.steps = len(self.data["action"])

    def __getitem__(self, key: str) -> np.ndarray:
        return self.data[key]

    def objects(self, kind: str, most: int) -> np.ndarray:
        """Places of objects, padded to `most`."""
        places = self.data[kind]
        return np.pad(places, ((0, most - len(places)), (0, 0)), constant_values=7.0).astype(np.float32)

    @property
    def held(self) -> np.ndarray:
        """[T + 1, nu (+ 3 mocaps)] of the steps that led to each state; zeros before the first."""
        control = np.concatenate([np.zeros((1, 2)), self["action"].astype(np.float64)])
        if "buttons" not in self.env.cost_names:
            return control
        spheres = np.asarray(_spheres(self.task.params, jnp.asarray(self.objects("buttons", 10))), np.float64)
        return np.concatenate([control, np.tile(spheres.ravel(), (len(control), 1))], axis=1)

    @property
    def states(self) -> np.ndarray:
        """[T + 1, s], MuJoCo's full physics."""
        rows = np.zeros((self.steps + 1, self.env.physics.state_size))
        rows[:, 1 : 1 + self["qpos"].shape[1]] = self["qpos"]
        rows[:, 1 + self["qpos"].shape[1] : 1 + self["qpos"].shape[1] + self["qvel"].shape[1]] = self["qvel"]
        if self["qpos"].shape[1] > 3:
            rows[0, 1:8] = self["start"]  # to the last bit: the Car just touches the floor, or just does not
        return rows

    @property
    def physics(self) -> PhysicsState:
        """[T + 1] worlds with their sensors."""
        engine = self.env.physics
        models, _ = engine._models((), None, self.steps + 1)
        states = self.states
        seen = engine._sense(Pool(engine.model, 1), models, states, self.held, [])
        parts = np.split(seen, np.cumsum(engine._seen)[:-1], axis=-1)
        return PhysicsState(*(jnp.asarray(part) for part in (*parts, states.view(np.uint32))))


# With the pinned MuJoCo the next states are compared too: those of the other version are slow tests.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id="-".join(each), marks=pytest.mark.slow if each[0] == "4.0.0" else ()) for each in RECORDED
    ],
)
def episode(request) -> Episode:
    return Episode(*request.param)


def ours(episode: Episode, env: Environment):
    """(obs [T + 1], reward [T], cost [T, m]) of our environment in the recorded worlds."""
    task, physics = episode.task, episode.physics
    if isinstance(env, PointButton):
        return _button(episode, env)
    circle = env.circle if isinstance(env, CircleHazard) else env
    state = jax.vmap(lambda p: circle._state(task, p, jnp.int32(1), moved=True))(physics)
    if isinstance(env, CircleHazard):
        hazards = jnp.asarray(episode.objects("hazards", 12))
        state = jax.vmap(lambda s: env._state(task, s, hazards))(state)
    return state.obs, state.reward[1:], state.cost[1:]


def _button(episode: Episode, env: PointButton):
    def world(physics: PhysicsState, goal, timer) -> ButtonWorld:
        places = (jnp.asarray(episode.objects(*kind)) for kind in (("buttons", 10), ("hazards", 16)))
        return ButtonWorld(physics, *places, goal.astype(jnp.int32), timer.astype(jnp.int32), jax.random.key(0))

    goal, timer = jnp.asarray(episode["goal"]), jnp.asarray(episode["timer"])
    obs = jax.vmap(lambda p, g, t: env.observe(episode.task, world(p, g, t)))(episode.physics, goal, timer)

    def outcome(before: PhysicsState, after: PhysicsState, goal, timer):
        place, touched = (lambda p: p.sensors[12:14]), after.sensors[-10:]
        return reward_and_cost(episode.task, world(before, goal, timer), place(before), place(after), touched)

    physics = episode.physics
    before, after = (jax.tree.map(lambda x: x[part], physics) for part in (slice(None, -1), slice(1, None)))  # noqa: B023
    reward, cost = jax.vmap(outcome)(before, after, goal[:-1], timer[:-1])
    return obs, reward, of_kind(env.cost_kind, cost)


def test_observation_reward_and_costs_are_upstreams(episode):
    obs, reward, cost = ours(episode, episode.env)
    assert obs.shape == episode["obs"].shape == (501, episode.env.observation_size)
    acceleration = np.isclose(obs[:, :3], episode["obs"][:, :3], rtol=1e-6, atol=1e-6).all(axis=1)
    assert acceleration.all() or (episode.name == "car-circle-hazard" and acceleration.mean() > 0.99)
    np.testing.assert_allclose(obs[:, :3], episode["obs"][:, :3], rtol=SOLVER, atol=SOLVER)
    first = episode.env.circle.robot.observation_size if isinstance(episode.env, CircleHazard) else 12  # of the lidars
    np.testing.assert_allclose(obs[:, 3:first], episode["obs"][:, 3:first], rtol=1e-6, atol=1e-6)
    apart = np.abs(obs[:, first:] - episode["obs"][:, first:]).max(axis=1)
    assert np.all(apart <= 1e-6 + turned_by_rounding(episode)), apart.max()
    assert np.mean(apart <= 1e-6) >= 0.998
    np.testing.assert_allclose(reward, episode["reward"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(cost, episode["indicator"][:, :-1])
    np.testing.assert_array_equal(total_cost(episode.env, cost), episode["indicator"][:, -1])


def test_graded_costs_are_upstreams_without_its_indicator(episode):
    if not isinstance(episode.env, OfCostKinds):
        pytest.skip("its costs are indicators by themselves")
    env = episode.env.with_cost_kind("graded")
    _, _, cost = ours(episode, env)
    for j, name in enumerate(env.cost_names):
        np.testing.assert_allclose(cost[:, j], episode["graded"][:, j], rtol=0, atol=1e-6, err_msg=name)
        assert np.count_nonzero(episode["graded"][:, j]) > 5, name  # the episode says something of it
    np.testing.assert_allclose(total_cost(env, cost), episode["graded"][:, -1], rtol=0, atol=1e-6)


def turned_by_rounding(episode: Episode) -> np.ndarray:
    """[T + 1]: how much of a bin the nearest object turns when the robot's place is rounded to float32."""
    place = episode["qpos"][:, :2]
    objects = np.concatenate(
        [episode.data.get(kind, np.zeros((0, 2))) for kind in ("hazards", "buttons")] + [np.zeros((1, 2))]
    )
    distance = np.linalg.norm(place[:, None] - objects, axis=-1).min(axis=1)
    return BINS / (2 * np.pi) * 2.0**-24 * np.abs(place).max(axis=1) * np.sqrt(2) / distance


def test_every_recorded_state_and_action_give_the_next_state(episode):
    """Bare MuJoCo on our model with MuJoCo's default of warm starts, as upstream's is, each step from the recording.

    Not the whole episode from its start: a Point's speed control switches between two limits, so that rounding grows
    tenfold a step, and the C library's sine rounds by the processor. Files keep places to 1e-11.
    """
    if str(episode["mujoco"]) != mujoco.__version__:
        pytest.skip(f"recorded with MuJoCo {episode['mujoco']}: another engine, another trajectory")
    model = mujoco.MjModel.from_xml_path(str(mjcf(episode)))
    data = mujoco.MjData(model)
    if model.nmocap:
        data.mocap_pos[: len(episode["buttons"]), :2] = episode["buttons"]
        data.mocap_pos[: len(episode["buttons"]), 2] = 0.1
    qpos, qvel = np.empty_like(episode["qpos"][1:]), np.empty_like(episode["qvel"][1:])
    places = episode.states[:, 1 : 1 + model.nq]
    for t, action in enumerate(episode["action"]):
        data.qpos, data.qvel, data.ctrl = places[t], episode["qvel"][t], np.clip(action, -1, 1)
        mujoco.mj_step(model, data, 10)
        qpos[t], qvel[t] = data.qpos, data.qvel
    np.testing.assert_allclose(qpos, episode["qpos"][1:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(qvel, episode["qvel"][1:], rtol=0, atol=1e-6)


def mjcf(episode: Episode) -> Path:
    """The file of our model."""
    from metacpo.envs import robots

    return {"point-circle": robots.POINT, "car-circle-hazard": robots.CAR}.get(episode.name, robots.POINT_BUTTON)


def test_the_timer_and_the_goal_follow_upstreams_rules():
    """Stepping our environment from each recorded world gives the recorded timer, and a new goal when it was hit."""
    episode = Episode("4.0.0", "point-button-hazard")
    env = episode.env
    state = env.reset(episode.task, jax.random.key(0))
    buttons, hazards = (jnp.asarray(episode.objects(*kind)) for kind in (("buttons", 10), ("hazards", 16)))

    def after(physics: PhysicsState, goal, timer, action):
        world = ButtonWorld(physics, buttons, hazards, goal, timer, jax.random.key(1))
        return env.step(episode.task, eqx.tree_at(lambda s: s.world, state, world), action)

    physics = jax.tree.map(lambda x: x[:-1], episode.physics)
    goal, timer = (jnp.asarray(episode[name][:-1], jnp.int32) for name in ("goal", "timer"))
    stepped = jax.jit(jax.vmap(after))(physics, goal, timer, jnp.asarray(episode["action"]))
    np.testing.assert_array_equal(stepped.world.timer, episode["timer"][1:])
    np.testing.assert_allclose(stepped.reward, episode["reward"], rtol=0, atol=1e-6)
    kept = episode["timer"][1:] != 10
    np.testing.assert_array_equal(stepped.world.goal[kept], episode["goal"][1:][kept])
    assert np.all(np.asarray(stepped.world.goal) < 5)
