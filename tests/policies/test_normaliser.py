"""The normaliser against NumPy."""

import jax.numpy as jnp
import numpy as np

from metacpo.policies import CLIP, STD_FLOOR, Normaliser


def test_normaliser_merges_as_if_it_had_seen_all_at_once():
    rng = np.random.default_rng(0)
    parts = [rng.normal(m, s, (n, 3)) for m, s, n in ((2, 3, 50), (-1, 0.5, 7), (10, 1, 200))]
    normaliser = Normaliser.init(3)
    for part in parts:
        moments = (np.float32(len(part)), *(np.float32(f(part, axis=0)) for f in (np.mean, np.var)))
        normaliser = normaliser.update(*(jnp.asarray(m) for m in moments))
    everything = np.concatenate(parts)
    assert float(normaliser.count) == 257
    np.testing.assert_allclose(normaliser.mean, everything.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(normaliser.var, everything.var(axis=0), rtol=1e-5)
    z = normaliser(jnp.asarray(everything, jnp.float32))
    np.testing.assert_allclose(z, (everything - everything.mean(0)) / everything.std(0), atol=1e-4)


def test_normaliser_before_any_data_changes_nothing():
    obs = jnp.array([[0.5, -3.0]])
    np.testing.assert_array_equal(Normaliser.init(2)(obs), obs)
    unchanged = Normaliser.init(2).update(jnp.float32(0), jnp.full(2, 9.0), jnp.full(2, 9.0))
    np.testing.assert_array_equal(unchanged(obs), obs)


def test_normaliser_of_a_constant_observation_stays_finite_and_bounded():
    normaliser = Normaliser.init(2).update(jnp.float32(10), jnp.array([1.0, 1.0]), jnp.array([0.0, 1.0]))
    by_hand = [0.005 / STD_FLOOR, CLIP]
    np.testing.assert_allclose(normaliser(jnp.array([1.005, 1000.0])), by_hand, rtol=1e-4)
    np.testing.assert_allclose(normaliser(jnp.array([0.0, 0.0])), [-CLIP, -1], rtol=1e-4)
