"""The toll gates: the model by hand, walks against exact values, the linear program against independent optima."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metacpo.envs import Environment, make
from metacpo.envs.families import tabular
from metacpo.envs.families.tabular import GATES, HORIZON, A, S, model, optimal_value, policy_value

ENV = make("tabular")
KEY = jax.random.key(0)
RIGHT, UP, LEFT, DOWN = range(4)
TASK = ENV.tasks.make({"toll_low": 0.05, "toll_middle": 0.7, "toll_high": 0.5, "slip": 0.1})


def always(moves: dict[int, int], default: int = RIGHT) -> np.ndarray:
    """The policy [S, A] that makes one move in each cell."""
    return np.eye(A)[[moves.get(cell, default) for cell in range(S)]]


def walks(task, action, episodes, key=KEY):
    """Cells before each step, rewards and costs [T, episodes] under actions [S, A] by cell."""

    @jax.jit
    def run(keys):
        def step(state, _):
            cell = state.world.cell
            after = jax.vmap(ENV.step, (None, 0, 0))(task, state, action[cell])
            return after, (cell, after)

        return jax.lax.scan(step, jax.vmap(ENV.reset, (None, 0))(task, keys), length=HORIZON)[1]

    cells, after = run(jax.random.split(key, episodes))
    return np.asarray(cells), after


def test_the_model_by_hand():
    P, r, c, start = (np.asarray(table) for table in model(TASK))
    np.testing.assert_array_equal(start, np.eye(S)[3])
    np.testing.assert_allclose(P.sum(-1), 1, atol=1e-6)
    # From the start, right: 0.9 to the middle, and a slip of 0.1 shared by 4, 6, 0 and, for left, the cell itself.
    expected = np.zeros(S)
    expected[[4, 6, 3, 0]] = [0.925, 0.025, 0.025, 0.025]
    np.testing.assert_allclose(P[3, RIGHT], expected, atol=1e-6)
    expected = np.zeros(S)
    expected[[8, 5, 7]] = [0.95, 0.025, 0.025]  # up and right from the corner both stay there
    np.testing.assert_allclose(P[8, UP], expected, atol=1e-6)
    np.testing.assert_array_equal(r, np.eye(S)[5][:, None].repeat(A, 1))
    np.testing.assert_allclose(c[[1, 4, 7]], np.repeat([[0.05], [0.7], [0.5]], A, 1), atol=1e-6)
    assert np.sum(c) == pytest.approx(4 * 1.25, abs=1e-5)


def test_a_walk_straight_on_by_hand():
    dry = ENV.tasks.make({"toll_middle": 0.25, "slip": 0.0})
    cells, after = walks(dry, 100.0 * jnp.asarray(always({}), jnp.float32), 3)
    np.testing.assert_array_equal(cells[:, 0], [3, 4, *[5] * 10])
    np.testing.assert_array_equal(after.reward[:, 1], [0, 0, *[1] * 10])
    np.testing.assert_array_equal(after.cost[:, 2, 0], [0, 0.25, *[0] * 10])
    np.testing.assert_array_equal(ENV.position(after)[:2, 0], [[0, 0], [1, 0]])
    assert policy_value(dry, always({})) == (10, 0.25)
    # Below: down, right, right, up, and on at the goal. Eight steps there.
    assert policy_value(dry, always({3: DOWN, 2: UP})) == (8, 0)


def test_observation_and_the_end():
    assert isinstance(ENV, Environment)
    _, after = walks(TASK, jnp.zeros((S, A)), 4)
    obs, cell = np.asarray(after.obs), np.asarray(after.world.cell)
    np.testing.assert_array_equal(obs[..., :S], np.eye(S)[cell])
    np.testing.assert_allclose(obs[:, 0, S], np.arange(1, HORIZON + 1) / HORIZON, rtol=1e-6)
    np.testing.assert_array_equal(after.truncated[:, 0], np.arange(1, HORIZON + 1) >= HORIZON)
    assert not np.any(after.terminated)
    start = ENV.reset(TASK, KEY)
    np.testing.assert_array_equal(start.obs, np.eye(S + 1)[3])
    assert float(start.reward) == 0 and float(start.cost[0]) == 0 and int(start.steps) == 0


def test_every_key_is_used_once():
    """All keys that walks of several episodes ever hold or consume differ."""
    keys = jax.random.split(KEY, 5)
    state, seen = jax.vmap(ENV.reset, (None, 0))(TASK, keys), Counter()
    for _ in range(HORIZON):
        parts = jax.vmap(lambda k: jax.random.split(k, 3))(state.world.key)
        after = jax.vmap(ENV.step, (None, 0, None))(TASK, state, jnp.zeros(A))
        np.testing.assert_array_equal(jax.random.key_data(after.world.key), jax.random.key_data(parts[:, 0]))
        seen.update(tuple(row) for row in np.asarray(jax.random.key_data(parts)).reshape(-1, 2).tolist())
        # The move is drawn from the last part, the choice from the middle one; neither is passed on.
        choice = jax.vmap(lambda k: jax.random.categorical(k, jnp.zeros(A)))(parts[:, 1])
        moved = jax.vmap(jax.random.categorical)(parts[:, 2], jnp.log(model(TASK).P[state.world.cell, choice]))
        np.testing.assert_array_equal(after.world.cell, moved)
        state = after
    assert max(seen.values()) == 1 and len(seen) == 3 * 5 * HORIZON


def test_walks_agree_with_exact_values():
    logits = jax.random.normal(KEY, (S, A)) + jnp.asarray(4.0 * always({3: DOWN, 2: UP}), jnp.float32)
    episodes = 4000
    _, after = walks(TASK, logits, episodes, jax.random.key(1))
    exact = policy_value(TASK, np.asarray(jax.nn.softmax(logits)))
    for name, sample in zip(("return", "cost"), (after.reward, after.cost[..., 0]), strict=True):
        per_episode = np.asarray(sample, np.float64).sum(axis=0)
        error = per_episode.std() / np.sqrt(episodes)
        assert abs(per_episode.mean() - exact[name == "cost"]) < 4 * error, name
        assert error < 0.06
    assert 2 < exact[0] < 7.5 and exact[1] > 0.1  # neither is trivial


def backward(task, price: float, reward: float = 1.0) -> tuple[float, float, float]:
    """max E Σ (reward·r − price·c) by backward induction: that value, and return and cost of a policy that has it."""
    P, r, c, start = (np.asarray(table, np.float64) for table in model(task))
    V = np.zeros((S, 3))  # the priced value, return and cost of the greedy policy
    for _ in range(HORIZON):
        Q = np.stack([reward * r - price * c, r, c], axis=-1) + np.einsum("san,nk->sak", P, V)
        V = Q[np.arange(S), np.argmax(Q[..., 0], axis=1)]
    value, earned, paid = start @ V
    return float(value), float(earned), float(paid)


tolls = st.floats(0, 1, width=32)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(tolls, tolls, tolls, st.floats(0, 0.5, width=32), st.floats(0.0625, 1.5, width=32))
def test_the_linear_program_is_the_best_lagrangian_bound(low, middle, high, slip, limit):
    """Strong duality: min over prices ν ≥ 0 of [max_π J_r − ν·J_c] + ν·limit, each maximum by backward induction."""
    task = ENV.tasks.make({"toll_low": low, "toll_middle": middle, "toll_high": high, "slip": slip})
    cheapest = -backward(task, 1.0, reward=0.0)[0]
    if limit < cheapest - 1e-5:
        with pytest.raises(ValueError, match="is not held by any policy"):
            optimal_value(task, limit)
    assume(limit > cheapest + 0.01)  # near the cheapest policy the best price grows without bound
    value, policy = optimal_value(task, limit)
    bound = lambda nu: backward(task, nu)[0] + nu * limit  # noqa: E731
    left, right = 0.0, 2000.0  # the bound is convex in the price: golden section would do, thirds are simpler
    for _ in range(80):
        first, second = left + (right - left) / 3, right - (right - left) / 3
        left, right = (left, second) if bound(first) <= bound(second) else (first, right)
    # The program's tolerance, 1e-10, times the price, which is at most 10/0.01.
    assert value == pytest.approx(min(bound(0.0), bound(left)), abs=1e-7)
    np.testing.assert_allclose(policy.sum(-1), 1, atol=1e-9)
    earned, paid = policy_value(task, policy)
    assert earned == pytest.approx(value, abs=1e-7)
    assert paid <= limit + 1e-7


def test_the_optimum_mixes_two_ways_where_it_must():
    dry = ENV.tasks.make({"toll_low": 0.0, "toll_middle": 1.0, "toll_high": 1.0, "slip": 0.0})
    # Straight on earns 10 for a toll of 1, the detour 8 for nothing: a share of 0.4 goes straight on.
    value, policy = optimal_value(dry, 0.4)
    assert value == pytest.approx(8 + 0.4 * 2)
    np.testing.assert_allclose(policy[0, 3], [0.4, 0, 0, 0.6], atol=1e-8)
    assert optimal_value(dry, 5.0)[0] == pytest.approx(10)
    assert optimal_value(dry, 0.0)[0] == pytest.approx(8)


def test_a_limit_that_no_policy_holds_is_refused():
    slippery = ENV.tasks.make({"toll_low": 1.0, "slip": 1.0})
    with pytest.raises(ValueError, match=r"cost_limit: 0\.01 is not held by any policy"):
        optimal_value(slippery, 0.01)


def test_drawn_tasks():
    for split, (least, most) in {"train": (0.0, 0.1), "held-out": (0.0, 0.1), "shifted": (0.1, 0.2)}.items():
        p = {name: np.asarray(x) for name, x in ENV.tasks.sample_batch(KEY, 400, split).params.items()}
        assert set(p) == set(ENV.tasks.parameters) == {*GATES, "slip"}
        assert least <= p["slip"].min() and p["slip"].max() <= most
        sides = np.sort(np.stack([p["toll_low"], p["toll_high"]]), axis=0)
        assert sides[0].max() <= 0.1 and 0.3 <= sides[1].min() and sides[1].max() <= 0.8
        assert 0.4 < np.mean(p["toll_low"] < p["toll_high"]) < 0.6
        assert (0.6 if split == "shifted" else 0.3) <= p["toll_middle"].min() and p["toll_middle"].max() <= 1


def test_a_batch_is_its_members():
    tasks, keys = ENV.tasks.sample_batch(KEY, 4), jax.random.split(jax.random.key(2), 4)
    logits = jax.random.normal(KEY, (4, A))
    batch = jax.vmap(lambda t, k, a: ENV.step(t, ENV.reset(t, k), a))(tasks, keys, logits)
    for i in range(4):
        task = jax.tree.map(lambda x: x[i], tasks)  # noqa: B023
        alone = ENV.step(task, ENV.reset(task, keys[i]), logits[i])
        assert int(batch.world.cell[i]) == int(alone.world.cell)
        np.testing.assert_allclose(batch.obs[i], alone.obs)
    assert tabular.NEXT.shape == (S, A)
