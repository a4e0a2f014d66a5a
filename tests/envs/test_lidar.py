"""The pseudo-lidar: hand-made cases, its symmetry, and an independent reading of its definition."""

import cmath
import math

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metacpo.envs.lidar import pseudo_lidar, to_ego

BINS = 16
RANGE = 6.0
lidar = jax.jit(lambda ego: pseudo_lidar(ego, RANGE))
coordinates = st.integers(-8000, 8000).map(lambda millimetres: millimetres / 1000)
objects = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=3)


def by_definition(ego, max_distance: float, bins: int) -> np.ndarray:
    """One object after the other, one bin after the other, in complex numbers."""
    rings = np.zeros(bins)
    width = 2 * math.pi / bins
    for x, y in ego:
        z = complex(x, y)
        angle = cmath.phase(z) % (2 * math.pi)
        value = max(0.0, max_distance - abs(z)) / max_distance
        index = min(int(angle / width), bins - 1)
        alias = (angle - index * width) / width
        for ring, share in ((index, 1.0), (index + 1, alias), (index - 1, 1 - alias)):
            rings[ring % bins] = max(rings[ring % bins], share * value)
    return rings


def rings(**by_bin: float) -> np.ndarray:
    """All zero but bin3=0.5 and the like."""
    out = np.zeros(BINS)
    for name, value in by_bin.items():
        out[int(name.removeprefix("bin"))] = value
    return out


def polar(distance: float, in_bins: float):
    angle = in_bins * 2 * math.pi / BINS
    return jnp.array([[distance * math.cos(angle), distance * math.sin(angle)]])


def test_straight_ahead_is_the_edge_between_the_first_and_the_last_bin():
    np.testing.assert_allclose(lidar(jnp.array([[1.5, 0.0]])), rings(bin0=0.75, bin15=0.75), atol=1e-6)


def test_straight_behind():
    np.testing.assert_allclose(lidar(jnp.array([[-3.0, 0.0]])), rings(bin8=0.5, bin7=0.5), atol=1e-6)


def test_left_and_right():
    np.testing.assert_allclose(lidar(jnp.array([[0.0, 3.0]])), rings(bin4=0.5, bin3=0.5), atol=1e-6)
    np.testing.assert_allclose(lidar(jnp.array([[0.0, -3.0]])), rings(bin12=0.5, bin11=0.5), atol=1e-6)


def test_a_quarter_into_a_bin():
    expected = rings(bin5=0.5, bin6=0.25 * 0.5, bin4=0.75 * 0.5)
    np.testing.assert_allclose(lidar(polar(3.0, 5.25)), expected, atol=1e-6)


def test_out_of_range_is_not_seen_and_on_the_spot_is_one():
    np.testing.assert_array_equal(lidar(polar(6.0, 3.3)), np.zeros(BINS))
    np.testing.assert_array_equal(lidar(polar(60.0, 3.3)), np.zeros(BINS))
    np.testing.assert_array_equal(lidar(jnp.zeros((1, 2))), rings(bin0=1.0, bin15=1.0))


def test_the_nearest_object_wins():
    far, near = polar(4.0, 2.5), polar(1.0, 2.5)
    for both in (jnp.concatenate([far, near]), jnp.concatenate([near, far])):
        np.testing.assert_array_equal(lidar(both), lidar(near))
    assert lidar(near)[2] > lidar(far)[2]


def test_other_bin_counts():
    ego = jnp.array([[0.0, 1.0], [-1.0, -1.0]])
    np.testing.assert_allclose(pseudo_lidar(ego, 3.0, bins=6), by_definition(ego, 3.0, 6), atol=1e-6)


def test_ego_frame_by_hand():
    """Facing +y: what lies at +y is ahead, what lies at +x is to the right (−y of the robot)."""
    facing_y = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(to_ego(jnp.array([[0.0, 2.0], [3.0, 0.0]]), facing_y), [[2, 0], [0, -3]])


@settings(max_examples=100, deadline=None)
@given(objects)
def test_definition(ego):
    seen = np.asarray(lidar(jnp.asarray(ego, jnp.float32)))
    np.testing.assert_allclose(seen, by_definition(ego, RANGE, BINS), atol=1e-5)
    assert np.all((seen >= 0) & (seen <= 1))


@settings(max_examples=50, deadline=None)
@given(objects, st.integers(1, BINS - 1))
def test_turning_by_whole_bins_shifts_the_bins(ego, turns):
    angle = turns * 2 * math.pi / BINS
    turned = np.asarray(ego) @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    before, after = lidar(jnp.asarray(ego, jnp.float32)), lidar(jnp.asarray(turned, jnp.float32))
    # An object at the robot's own place has no direction to turn.
    if min(np.hypot(*np.asarray(ego).T)) > 1e-3:
        np.testing.assert_allclose(after, np.roll(before, turns), atol=1e-4)
