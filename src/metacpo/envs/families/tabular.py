"""Toll gates: a CMDP of nine cells whose constrained optimum a linear program gives.

    6 ▢ 7 gate 8 ▢      A walk from cell 3 to cell 5, where it pays to stay. Every way passes one of the gates
    3 start 4 gate 5    1, 4 and 7, which take a toll each step that is spent there. Straight on is shortest;
    0 ▢ 1 gate 2 ▢      one of the detours is cheap. Under a limit the best policy may have to mix two ways.

    observation [10]  one-hot of the cell, share of the episode that has passed. The tolls are not seen.
    action [4]        logits: a move (right, up, left, down) is drawn from softmax(action)
    motion            with probability `slip` a move drawn uniformly replaces it; moves off the grid stay
    reward            1 for each step that begins in the goal cell
    cost "toll"       the toll of the cell that the step begins in
    end               truncation after 12 steps; never terminated

The mean of a Gaussian policy over logits is a stochastic tabular policy by itself. So is the Gaussian: what is
drawn from it and from the softmax together is one distribution over moves.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key

from metacpo.envs.base import State
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

SIDE = 3
S, A = SIDE * SIDE, 4
HORIZON = 12
START, GOAL = 3, 5
GATES = {"toll_low": 1, "toll_middle": 4, "toll_high": 7}
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))


def _next_cells() -> np.ndarray:
    """[S, A]: where each move leads."""
    cell = np.arange(S)
    moved = [
        SIDE * np.clip(cell // SIDE + dy, 0, SIDE - 1) + np.clip(cell % SIDE + dx, 0, SIDE - 1) for dx, dy in MOVES
    ]
    return np.stack(moved, axis=1)


NEXT = _next_cells()


class Model(NamedTuple):
    """A finite CMDP: transition probabilities, reward and cost of a move, distribution of the first cell."""

    P: Float[Array, "S A S"]
    r: Float[Array, "S A"]
    c: Float[Array, "S A"]
    start: Float[Array, " S"]


class Walker(eqx.Module):
    """Where the walk is, and the key that all further chance comes from."""

    cell: Int32[Array, "*batch"]
    key: Key[Array, "*batch"]


class TollGates:
    """The family of toll gates; params: the three tolls and the probability to slip."""

    observation_size = S + 1
    action_size = A
    action_bound = math.inf
    episode_length = HORIZON
    cost_names = ("toll",)

    @property
    def tasks(self) -> TaskDistribution:
        toll = {name: Parameter(default=1.0, low=0.0, high=1.0, unit="per step") for name in GATES}
        toll["toll_low"] = Parameter(default=0.0, low=0.0, high=1.0, unit="per step")
        return TaskDistribution(
            parameters=toll | {"slip": Parameter(default=0.05, low=0.0, high=1.0, unit="probability")},
            draw={
                "train": lambda key: _draw(key, middle=(0.3, 1.0), slip=(0.0, 0.1)),
                "shifted": lambda key: _draw(key, middle=(0.6, 1.0), slip=(0.1, 0.2)),
            },
            cost_limit=(0.4,),
        )

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        """In a cell drawn from the model's start."""
        key, place = jax.random.split(key)
        cell = _categorical(place, jnp.log(model(task).start))
        return _state(Walker(cell, key), jnp.float32(0), jnp.zeros(1, jnp.float32), jnp.int32(0))

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        """One move. Each step splits the walk's key: two parts are used up, one is passed on."""
        key, choose, move = jax.random.split(state.world.key, 3)
        P, r, c, _ = model(task)
        cell, a = state.world.cell, _categorical(choose, action)
        walker = Walker(_categorical(move, jnp.log(P[cell, a])), key)
        return _state(walker, r[cell, a], c[cell, a][None], state.steps + 1)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        """Column and row of the cell, from the middle one."""
        cell = state.world.cell
        return jnp.stack([cell % SIDE - 1, cell // SIDE - 1], axis=-1).astype(jnp.float32)


def model(task: Task) -> Model:
    """The task's tables: what `step` draws from and what the optimum is computed from."""
    slip = task.params["slip"]
    moved = jnp.asarray(np.eye(S)[NEXT], slip.dtype)
    P = (1.0 - slip) * moved + slip * jnp.mean(moved, axis=1, keepdims=True)
    toll = (
        jnp.zeros(S, slip.dtype)
        .at[jnp.asarray(list(GATES.values()))]
        .set(jnp.stack([task.params[name] for name in GATES]))
    )
    goal, first = (jnp.asarray(np.eye(S)[cell], slip.dtype) for cell in (GOAL, START))
    return Model(P, jnp.broadcast_to(goal[:, None], (S, A)), jnp.broadcast_to(toll[:, None], (S, A)), first)


def policy_value(task: Task, policy: np.ndarray) -> tuple[float, float]:
    """(expected return, expected cost) of an episode under probabilities [S, A] or [T, S, A], on the host.

    Forward over the distribution d_t of the cell: d_{t+1}(s') = Σ_{s,a} d_t(s) π_t(a|s) P(s'|s,a).
    """
    P, r, c, d = (np.asarray(table, np.float64) for table in model(task))
    earned = paid = 0.0
    for pi in np.broadcast_to(policy, (HORIZON, S, A)):
        x = d[:, None] * pi
        earned, paid = earned + np.sum(x * r), paid + np.sum(x * c)
        d = np.einsum("sa,san->n", x, P)
    return float(earned), float(paid)


def optimal_value(task: Task, cost_limit: float) -> tuple[float, np.ndarray]:
    """The largest expected return of an episode under an expected cost of at most `cost_limit`, and a policy [T, S, A].

    Return and cost are linear in the occupancy x_t(s, a) = P(s_t = s, a_t = a), and the occupancies of all (also
    random, history-dependent) policies are the points of a polytope (Altman 1999, ch. 3), here for a finite horizon:

        maximise    Σ_t Σ_sa x_t(s, a) r(s, a)
        subject to  Σ_a x_0(s, a) = start(s),    Σ_a x_{t+1}(s', a) = Σ_sa x_t(s, a) P(s'|s, a),
                    Σ_t Σ_sa x_t(s, a) c(s, a) ≤ cost_limit,    x ≥ 0.

    π_t(a|s) = x_t(s, a)/Σ_a x_t(s, a) has this occupancy; it is uniform where x_t(s) = 0. On the host, by HiGHS.
    Raises ValueError where no policy holds the limit.
    """
    from scipy.optimize import linprog  # only whoever wants the optimum waits for it
    from scipy.sparse import block_diag, csr_array, diags_array, kron

    P, r, c, start = (np.asarray(table, np.float64) for table in model(task))
    total = csr_array(np.kron(np.eye(S), np.ones(A)))  # [S, S·A]: Σ_a
    flow = csr_array(P.reshape(S * A, S).T)
    balance = block_diag([total] * HORIZON) - kron(diags_array(np.ones(HORIZON - 1), offsets=-1), flow)
    first = np.concatenate([start, np.zeros((HORIZON - 1) * S)])
    solution = linprog(
        -np.tile(r.ravel(), HORIZON),
        A_ub=np.tile(c.ravel(), HORIZON)[None],
        b_ub=[cost_limit],
        A_eq=balance,
        b_eq=first,
        # The value is off by the tolerance times the price of cost; the default is 1e-7.
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solution.x is None:
        raise ValueError(f"cost_limit: {cost_limit!r} is not held by any policy ({solution.message})")
    x = np.maximum(solution.x, 0.0).reshape(HORIZON, S, A)
    visits = np.sum(x, axis=-1, keepdims=True)
    policy = np.where(visits > 1e-12, x / np.maximum(visits, 1e-12), 1.0 / A)
    return float(-solution.fun), policy


def _categorical(key: Key[Array, ""], logits: Float[Array, " k"]) -> Int32[Array, ""]:
    """A draw; of 32 bits also where JAX counts with 64."""
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _state(walker: Walker, reward: Float[Array, ""], cost: Float[Array, " 1"], steps: Int32[Array, ""]) -> State:
    passed = steps.astype(jnp.float32) / HORIZON
    return State(
        world=walker,
        obs=jnp.append(jax.nn.one_hot(walker.cell, S, dtype=jnp.float32), passed),
        reward=reward,
        cost=cost,
        terminated=jnp.bool_(False),
        truncated=steps >= HORIZON,
        steps=steps,
    )


def _draw(key: Key[Array, ""], middle: tuple[float, float], slip: tuple[float, float]) -> dict[str, Array]:
    """Straight on costs `middle`; of the detours one, drawn by lot, is nearly free, and the other is dear."""
    side, straight, cheap, dear, slippery = jax.random.split(key, 5)
    open_toll = jax.random.uniform(cheap, (), jnp.float32, maxval=0.1)
    shut_toll = jax.random.uniform(dear, (), jnp.float32, minval=0.3, maxval=0.8)
    low_is_open = jax.random.bernoulli(side)
    return {
        "toll_low": jnp.where(low_is_open, open_toll, shut_toll),
        "toll_middle": jax.random.uniform(straight, (), jnp.float32, minval=middle[0], maxval=middle[1]),
        "toll_high": jnp.where(low_is_open, shut_toll, open_toll),
        "slip": jax.random.uniform(slippery, (), jnp.float32, minval=slip[0], maxval=slip[1]),
    }
