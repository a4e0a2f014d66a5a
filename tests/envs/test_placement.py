"""Placement: the keep-outs hold, whatever is asked for, or nothing is placed; lidars ignore what is not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacpo.envs import make
from metacpo.envs.lidar import pseudo_lidar
from metacpo.envs.placement import crowded, place

MOST = 8
SLACK = 1e-5  # m, of float32
place_some = jax.jit(lambda key, extent, present, taken: place(key, extent, 0.3, present, taken, 0.1))
coordinates = st.integers(-2000, 2000).map(lambda millimetres: millimetres / 1000)
points = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(500, 2500), st.integers(0, MOST), points)
def test_keep_outs_hold_or_nothing_is_placed(seed, extent, count, taken):
    extent = extent / 1000
    present = np.arange(MOST) < count
    places = np.asarray(
        place_some(jax.random.key(seed), jnp.float32(extent), jnp.asarray(present), jnp.asarray(taken, jnp.float32))
    )
    if np.isnan(places).any():
        assert np.isnan(places).all() and count > 0
        return
    there = places[present]
    assert np.all(np.abs(there) <= extent - 0.3 + SLACK)
    apart = np.linalg.norm(there[:, None] - there, axis=-1)[np.triu_indices(count, 1)]
    assert np.all(apart >= 0.6 - SLACK)
    assert np.all(np.linalg.norm(there[:, None] - np.array(taken), axis=-1) >= 0.4 - SLACK)


@pytest.mark.slow
def test_shipped_tasks_are_never_too_crowded():
    """The fullest tasks of each split; a layout that failed would be NaN."""
    for name in ("car-circle-hazard", "point-button-hazard"):
        env = make(name)
        for split in ("train", "shifted"):
            tasks = env.tasks.sample_batch(jax.random.key(1), 40, split)
            states = jax.jit(jax.vmap(env.reset))(tasks, jax.random.split(jax.random.key(2), 40))
            assert np.all(np.isfinite(states.obs))


def test_a_layout_that_fails_shows_in_the_observation():
    """Compiled code cannot raise: the world breaks, and is masked out and counted."""
    env = make("car-circle-hazard")
    task = env.tasks.make({})
    task.params["extent"] = jnp.float32(0.5)
    assert not np.all(np.isfinite(jax.jit(env.reset)(task, jax.random.key(0)).obs))


def test_crowded_is_about_room():
    def layout(extent, key):
        return place(key, extent, 0.3, jnp.ones(MOST, bool), jnp.zeros((0, 2)))

    assert crowded(layout, jnp.float32(0.6))
    assert not crowded(layout, jnp.float32(3.0))


objects = st.lists(st.tuples(coordinates, coordinates, st.booleans()), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(objects)
def test_a_lidar_sees_the_objects_that_are_there_and_no_others(rows):
    ego = jnp.asarray([row[:2] for row in rows], jnp.float32)
    present = np.array([row[2] for row in rows])
    seen = pseudo_lidar(ego, 3.0, present=jnp.asarray(present))
    each = [np.asarray(pseudo_lidar(ego[i : i + 1], 3.0)) for i in np.flatnonzero(present)]
    np.testing.assert_allclose(seen, np.max([np.zeros(16), *each], axis=0), atol=1e-6)
