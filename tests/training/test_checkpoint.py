"""Checkpoints: the state comes back exactly, and any damage is named before it does harm."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.algorithms.inner_state import InnerState
from metacpo.policies import Normaliser
from metacpo.training import checkpoint
from metacpo.training.checksums import SUMS
from metacpo.training.state import TrainState


def state(iteration: int, size: int = 6) -> TrainState:
    """A state with numbers that no default has."""
    key = jax.random.key(iteration)
    normaliser = Normaliser(jnp.float32(iteration + 0.1), jnp.arange(3.0) / 3, jnp.full(3, 0.7))
    inner_state = InnerState(jnp.full(1, 0.3), jnp.full(1, -0.2), jnp.float32(iteration + 0.7))
    return TrainState(jax.random.normal(key, (size,)), inner_state, normaliser, key, jnp.int32(iteration))


def same(a: TrainState, b: TrainState) -> bool:
    def leaves(s: TrainState) -> list[tuple[object, ...]]:
        plain = jax.tree.map(np.asarray, eqx.tree_at(lambda s: s.key, s, jax.random.key_data(s.key)))
        return [(x.dtype, x.shape, x.tobytes()) for x in jax.tree.leaves(plain)]  # bytes: NaN equals itself

    return leaves(a) == leaves(b)


def test_the_newest_state_comes_back_bit_for_bit(tmp_path):
    for iteration in (1, 2, 10):
        checkpoint.save(tmp_path, state(iteration))
    restored = checkpoint.restore(tmp_path, state(0))
    assert same(restored, state(10))
    assert not same(restored, state(2))
    assert jnp.array_equal(jax.random.uniform(restored.key, (3,)), jax.random.uniform(state(10).key, (3,)))


def test_a_state_without_constraints_comes_back(tmp_path):
    """trpo has no multipliers: arrays without elements, which Orbax refuses to save."""
    unconstrained = eqx.tree_at(
        lambda s: s.inner_state, state(3), InnerState(jnp.zeros(0), jnp.zeros(0), jnp.float32(0.5))
    )
    checkpoint.save(tmp_path, unconstrained)
    assert same(checkpoint.restore(tmp_path, unconstrained), unconstrained)
    with pytest.raises(checkpoint.CheckpointError, match="another shape"):
        checkpoint.restore(tmp_path, state(0))


def test_only_the_newest_are_kept(tmp_path):
    for iteration in range(1, 6):
        checkpoint.save(tmp_path, state(iteration))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4", "5"]
    assert checkpoint.latest(tmp_path) == 5


def test_no_checkpoint(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(checkpoint.CheckpointError, match=r"checkpoints: holds no checkpoint"):
        checkpoint.restore(tmp_path, state(0))


def test_a_policy_of_another_shape(tmp_path):
    checkpoint.save(tmp_path, state(1, size=6))
    with pytest.raises(checkpoint.CheckpointError, match=r"checkpoints/1: .*another shape"):
        checkpoint.restore(tmp_path, state(0, size=7))


def delete(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """One bit, which Orbax by itself restores as another number where it hits an array."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [delete, truncate, flip])
def test_damage_to_any_file_is_named(tmp_path, damage):
    folder = checkpoint.save(tmp_path, state(1))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) > 5
    for path in files:
        original = path.read_bytes()
        damage(path)
        with pytest.raises(checkpoint.CheckpointError) as error:
            checkpoint.restore(tmp_path, state(0))
        # A damaged list of checksums may blame a file that it lists; both lie in the folder named.
        assert str(path if path.name != SUMS else folder) in str(error.value)
        assert "\n" not in str(error.value)
        path.write_bytes(original)
    assert same(checkpoint.restore(tmp_path, state(0)), state(1))
