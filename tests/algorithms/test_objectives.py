"""What an update lowers, by hand numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.algorithms.inner_state import InnerState, pack, unpack
from metacpo.algorithms.objectives import CRPOSwitch, Penalty, PIDLagrangian, Reward


def weights(aim, c, inner_state=None):
    """(reward, costs, inner_state after) as NumPy."""
    c = jnp.asarray(c, jnp.float32)
    found, after = aim(c, InnerState.init(c.shape[0]) if inner_state is None else inner_state)
    return float(found.reward), np.asarray(found.costs), after


@pytest.mark.parametrize("c", [[], [0.3], [-1.0, 2.0]])
def test_the_reward_alone(c):
    reward, costs, _ = weights(Reward(), c)
    assert reward == 1 and costs.tolist() == [0] * len(c)


def test_a_penalty_has_one_price_whatever_the_cost():
    for c in ([-1.0, 2.0], [3.0, 0.0]):
        reward, costs, _ = weights(Penalty(2.5), c)
        assert reward == 1 and costs.tolist() == [2.5, 2.5]


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        ([-0.1], (1, [0])),
        ([0.02], (1, [0])),  # broken, but within the tolerance
        ([0.03], (0, [1])),
        ([0.5, 0.6], (0, [0, 1])),  # the most broken one
        ([0.5, -0.6], (0, [1, 0])),
        ([], (1, [])),
    ],
)
def test_a_switch_turns_to_the_most_broken_constraint(c, expected):
    reward, costs, _ = weights(CRPOSwitch(0.025), c)
    assert (reward, costs.tolist()) == expected


def test_a_multiplier_climbs_by_its_integral_gain_and_never_below_zero():
    """Dual ascent: ν = max(0, ν + 5c). Weights (1, ν)/(1 + ν)."""
    inner_state = InnerState.init(1, 1.0)
    for c, nu in ((0.1, 1.5), (-0.2, 0.5), (-0.2, 0.0), (0.4, 2.0)):
        reward, costs, inner_state = weights(PIDLagrangian(integral=5.0), [c], inner_state)
        assert reward == pytest.approx(1 / (1 + nu))
        assert costs == pytest.approx([nu / (1 + nu)])
        assert inner_state.multiplier == pytest.approx([nu])


def test_a_pid_multiplier_adds_what_is_broken_now_and_what_has_risen():
    """I = 1 + 2·0.1 = 1.2;  ν = 3·0.1 + 1.2 + 4·(0.1 − 0.05) = 1.7. A fall has no derivative part."""
    aim = PIDLagrangian(proportional=3.0, integral=2.0, derivative=4.0)
    start = InnerState(jnp.ones(1), jnp.array([0.05]), jnp.zeros(()))
    reward, costs, after = weights(aim, [0.1], start)
    assert costs / reward == pytest.approx([1.7])
    assert (float(after.multiplier[0]), float(after.error[0])) == (pytest.approx(1.2), pytest.approx(0.1))
    reward, costs, _ = weights(aim, [0.0], after)
    assert costs / reward == pytest.approx([1.2])


def test_several_multipliers_share_one_scale():
    reward, costs, _ = weights(PIDLagrangian(integral=1.0), [1.0, 2.0])
    assert reward == pytest.approx(1 / 6) and costs == pytest.approx([2 / 6, 3 / 6])


@pytest.mark.parametrize("learned", [(), ("scale",), ("multiplier",), ("multiplier", "scale")])
def test_learned_knobs_are_packed_behind_theta_as_logarithms(learned):
    theta, inner_state = jnp.arange(3.0), InnerState(jnp.array([0.5, 2.0]), jnp.array([7.0, 8.0]), jnp.asarray(0.3))
    packed = pack(theta, inner_state, learned)
    assert packed.shape == (3 + 2 * ("multiplier" in learned) + ("scale" in learned),)
    other = InnerState(jnp.ones(2), jnp.array([7.0, 8.0]), jnp.zeros(()))
    back, restored = unpack(packed, other, learned)
    np.testing.assert_array_equal(back, theta)
    np.testing.assert_allclose(restored.multiplier, [0.5, 2.0] if "multiplier" in learned else [1, 1], rtol=1e-6)
    assert float(restored.log_scale) == pytest.approx(0.3 if "scale" in learned else 0.0)
    np.testing.assert_array_equal(restored.error, [7.0, 8.0])
