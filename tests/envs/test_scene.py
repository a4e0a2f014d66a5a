"""What is drawn of a task is what the task says: places, sizes, how many, which button is lit."""

import jax
import numpy as np
import pytest
from toy_env import Counter

from metacpo.envs import ENVIRONMENTS, make
from metacpo.envs.costs import SummedCosts
from metacpo.envs.scene import Disc, Embodied, Ring, Wall, scene_of
from metacpo.envs.wrapped import has_position

KEY = jax.random.key(3)


def start(name, params=None):
    env = make(name)
    task = env.tasks.make(params or {})
    return env, task, env.reset(task, KEY)


def of_role(scene, role):
    return [shape for shape in scene if shape.role == role]


@pytest.mark.parametrize("name", ["point-circle", "car-circle"])
def test_a_circle_and_its_walls(name):
    env, task, state = start(name, {"radius": 1.5, "wall": 0.75})
    ring, *walls = env.scene(task, state)
    assert ring == Ring(0.0, 0.0, 1.5, "course")
    assert walls == [Wall(-0.75), Wall(0.75)]


def test_only_the_hazards_that_are_there():
    env, task, state = start("point-circle-hazard", {"hazards": 3})
    scene = env.scene(task, state)
    hazards = of_role(scene, "hazard")
    assert [(disc.x, disc.y) for disc in hazards] == [tuple(place) for place in state.world.hazards[:3].tolist()]
    assert {disc.radius for disc in hazards} == {0.12}
    assert of_role(scene, "wall") and of_role(scene, "course")


def test_buttons_with_the_lit_one_as_the_goal():
    env, task, state = start("point-button-hazard", {"buttons": 4, "hazards": 2})
    scene = env.scene(task, state)
    assert (len(of_role(scene, "hazard")), len(of_role(scene, "button"))) == (2, 3), "and the lit one"
    (goal,) = of_role(scene, "goal")
    assert (goal.x, goal.y) == tuple(state.world.buttons[int(state.world.goal)].tolist())
    bodies = env.bodies(task, state)
    np.testing.assert_allclose(bodies.places[:4, :2], state.world.buttons[:4])
    assert (bodies.places[4:, 2] < -1).all(), "buttons that a task lacks are out of sight"


def test_navigation_has_its_goal_and_hazards():
    env, task, state = start("navigation", {"goal_x": 1.0, "hazard2_radius": 0.5})
    first, second, goal = env.scene(task, state)
    assert isinstance(first, Disc) and first.role == second.role == "hazard"
    assert (second.radius, goal.x, goal.role) == (0.5, 1.0, "goal")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_can_be_asked_and_a_sum_of_costs_changes_nothing(name):
    env, task, state = start(name)
    assert scene_of(SummedCosts(env), task, state) == scene_of(env, task, state)


@pytest.mark.parametrize("name", ["point-circle", "car-circle-hazard", "point-button-hazard"])
def test_the_bodies_are_where_the_robot_is(name):
    env, task, state = start(name)
    assert isinstance(env, Embodied)
    qpos = env.bodies(task, state).physics.qpos
    assert qpos.shape == (env.physics.model.nq,)
    np.testing.assert_allclose(qpos[:2], env.position(state), atol=1e-6)


def test_an_environment_without_bodies_has_none_to_show():
    assert not isinstance(make("navigation"), Embodied)


class Placeless(Counter):
    position = property()  # pyright: ignore


def test_a_wrapper_has_a_position_where_what_it_wraps_has_one():
    """The method itself is every wrapper's."""
    assert has_position(make("navigation")) and has_position(SummedCosts(make("navigation")))
    assert hasattr(SummedCosts(Placeless()), "position") and not has_position(SummedCosts(Placeless()))
